"""What MLflow's pages say of a model and its versions, as Markdown, and what of a training set they show."""

from collections.abc import Mapping

import polars as pl

from ml_platform.spec import ModelSpec, Verdict
from ml_platform.spec.manifests import SetManifest
from ml_platform.stores.pages import Pages
from ml_platform.stores.tracking_entries import ASSET_KEY, RUN_ID, Context, Dataset
from ml_platform.training.training_set import HOLDOUT, TRAIN

_USES: Mapping[str, Context] = {TRAIN: "training", HOLDOUT: "evaluation"}
# MLflow's names of types; any other is shown as a string.
_TYPES = {pl.Int64: "long", pl.Int32: "integer", pl.Float64: "double", pl.Float32: "float", pl.Boolean: "boolean"}


def datasets(table: str, uri: str, version: int, made_of: SetManifest, columns: pl.Schema) -> list[Dataset]:
    """The parts of a training set: what is trained on, and what is held out."""
    types = {name: _type(dtype) for name, dtype in columns.items()}
    return [
        Dataset(
            name=f"{table} ({part})",
            digest=made_of.content_hash,
            source=uri,
            version=version,
            context=use,
            rows=made_of.rows.get(part, 0),
            columns=types,
        )
        for part, use in _USES.items()
    ]


def _type(dtype: pl.DataType) -> str:
    return "datetime" if isinstance(dtype, pl.Datetime) else _TYPES.get(dtype.base_type(), "string")


def about_model(spec: ModelSpec, pages: Pages) -> str:
    """The registered model's description."""
    key = f"models/{spec.name}"
    lines = [
        f"{spec.description} {spec.task.description}",
        f"- asset: [{key}]({pages.dagster_asset(key)}), owner {spec.owner}",
        f"- views: {', '.join(spec.views)}",
        "- `champion` is the version that serves, `challenger` the newest one that does not; "
        f"`ml-platform history {spec.name}` tells what served when",
    ]
    return _text(lines)


def about_version(tags: Mapping[str, str], pages: Pages, verdict: Verdict | None = None) -> str:
    """A version's description, from the tags that it was registered with; verdict: the gate's, once it has one."""
    decision = tags.get("consumed_decision", "0")
    clean = {"True": ", committed", "False": ", with uncommitted changes"}.get(tags.get("code_clean", ""), "")
    lines = [
        f"{verdict.state}: {verdict.reason}" if verdict else "Not judged yet.",
        f"- trained on {tags['training_set']}, {_days(tags, 'trained')}; held out {_days(tags, 'holdout')}",
        f"- why: retraining decision {decision}" if decision != "0" else "- why: asked for",
        f"- code {tags['code'][:12]}{clean}; {tags['threads']} threads, device {tags['device']}",
    ]
    if tags.get(RUN_ID):
        run, key = tags[RUN_ID], tags[ASSET_KEY]
        links = f"[run {run[:8]}]({pages.dagster_run(run)}) of [{key}]({pages.dagster_asset(key)})"
        lines.append(f"- made in Dagster by {links}")
    return _text(lines)


def _days(tags: Mapping[str, str], part: str) -> str:
    first, last = (str(tags[f"{part}_{end}"])[:10] for end in ("from", "until"))
    return f"{first} to {last}"


def _text(lines: list[str]) -> str:
    """A paragraph and the list after it."""
    first, *others = lines
    return f"{first}\n\n" + "\n".join(others)
