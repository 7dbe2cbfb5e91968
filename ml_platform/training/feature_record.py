"""How each feature was declared when a model was trained: kept beside the model, compared before it is served.

A changed feature under an old name would feed an old model silently with other values. A model stored before there was
such a record has none and is served as it is.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.spec import Active, Computed, FeatureView, ModelRefused, RequestView, View, Window
from ml_platform.spec.features import Feature, feature_name
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.lineage import used_names

RECORD_FILE = "features.json"
CURES = (
    "restore the declaration, declare the changed feature under a new name beside the old one, or train the model again"
)
_SHOWN = 8  # hexadecimal digits that tell a declaration from its neighbours
OTHERWISE, GONE = "is declared otherwise now", "is not declared any more"


@dataclass(frozen=True, kw_only=True)
class FeatureRecord:
    """Model input -> (fingerprint of what is declared in plain values, that of its expressions or None without any).

    polars: its version; each version writes expressions down in its own way, so they are compared within one only.
    """

    polars: str
    features: Mapping[str, tuple[str, str | None]]

    def version(self, view: str) -> str | None:
        """A short name of how this view's features were declared; None if none is recorded."""
        of_view = {name: list(prints) for name, prints in self.features.items() if name.partition("__")[0] == view}
        return fingerprint(of_view)[:_SHOWN] if of_view else None


def record_of(views: Iterable[View]) -> FeatureRecord:
    """Today's declarations; descriptions, owners and how long values are kept online do not count: no value changes."""
    found: dict[str, tuple[str, str | None]] = {}
    for view in views:
        if isinstance(view, RequestView):
            found |= {feature_name(view.name, each.name): _computed_prints(view, each) for each in view.features}
        else:
            names = [(feature, name) for feature in view.features for name, _, _ in feature.features()]
            found |= {feature_name(view.name, name): _fingerprints(view, feature, name) for feature, name in names}
    return FeatureRecord(polars=pl.__version__, features=found)


def _computed_prints(view: RequestView, feature: Computed) -> tuple[str, str]:
    """What it looks up is recorded on its own: a model that is trained on it is trained on that, too."""
    reads = {name: view.of_request.get(name, "looked up") for name in feature.reads}
    return fingerprint({"reads": reads, "kind": feature.value_type}), fingerprint([feature.value])


def _fingerprints(view: FeatureView, feature: Feature, name: str) -> tuple[str, str | None]:
    names = used_names(view, feature)
    selects = view.where is not None and view.where.meta.has_multiple_outputs()
    derived = {each: view.derive[each] for each in sorted(view.derive) if selects or each in names}
    ((span, kind),) = [(span, kind) for each, span, kind in feature.features() if each == name]
    plain = {
        "source": view.source,
        "key": view.key,
        "entities": [(entity.name, entity.dtype) for entity in view.entities],
        "names": sorted(names),
        "derived": {each: sorted(expression.meta.root_names()) for each, expression in derived.items()},
        "kind": kind,
        "span": span,
        **_own(view, feature),
    }
    expressions = [*derived.values(), *([] if view.where is None else [view.where])]
    return fingerprint(plain), fingerprint(expressions) if expressions else None


def _own(view: FeatureView, feature: Feature) -> Mapping[str, Any]:
    if isinstance(feature, Active):
        return {"opened_at": feature.opened_at, "closed_by": sorted(feature.closed_by), "fact": feature.key}
    aggregate = feature.aggregate if isinstance(feature, Window) else "latest"
    return {"column": feature.column, "aggregate": aggregate, "time": view.time}


def write_record(folder: Path, views: Iterable[View]) -> None:
    """Put today's declarations of a model's views beside the model."""
    record = record_of(views)
    (folder / RECORD_FILE).write_text(json.dumps({"polars": record.polars, "features": record.features}, indent=1))


def read_record(folder: Path) -> FeatureRecord | None:
    """What was put there; None beside a model that was stored before there were records.

    Raises:
        ModelRefused: the file is not what ``write_record`` wrote.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    try:
        body = json.loads(path.read_text())
        features = {str(name): (str(plain), made) for name, (plain, made) in body["features"].items()}
        return FeatureRecord(polars=str(body["polars"]), features=features)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(f"{path} is damaged ({error}); restore it or train the model again") from error


def changes(record: FeatureRecord, views: Iterable[View]) -> dict[str, str]:
    """Recorded feature -> what is otherwise today, for those that are; others are left out."""
    today = record_of(views)
    found: dict[str, str] = {}
    for name, then in record.features.items():
        if name not in today.features:
            found[name] = GONE
        elif not _same(then, today.features[name], one_polars=record.polars == today.polars):
            found[name] = OTHERWISE
    return found


def _same(then: tuple[str, str | None], now: tuple[str, str | None], *, one_polars: bool) -> bool:
    comparable = one_polars or None in (then[1], now[1])
    return then[0] == now[0] and (then[1] == now[1] or not comparable)


def refuse_changed(record: FeatureRecord | None, views: Iterable[View]) -> None:
    """Do not let a changed feature into an old model.

    Raises:
        ModelRefused: a feature that the model was trained on is declared otherwise today; all of them are named.
    """
    changed = {} if record is None else changes(record, views)
    if changed:
        told = ", ".join(f"{name} {what}" for name, what in changed.items())
        raise ModelRefused(
            f"of the features it was trained on, {told}; {CURES} (`ml-platform impact --changed` names the services)"
        )
