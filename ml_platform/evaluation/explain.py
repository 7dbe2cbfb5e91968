"""Why a prediction came out as it did: the vector as served, the version that answered, what each input added."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.evaluation.answered import Answered
from ml_platform.spec import ModelRefused, NoContributions, NotExplained, Project, UnknownName
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.contributions import Contributions
from ml_platform.training.estimators import load
from ml_platform.training.feature_record import FeatureRecord, changes, read_record
from ml_platform.training.model import Model

# Trees and pipelines repeat to the bit; the bits of a network's float32 products differ between machines.
SAME_PROBABILITY = 1e-6
# Of the way from the baseline to the raw score; an integral over many steps comes as near as that.
SMALL_GAP = 1e-4


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of the model.

    value: as it was served, None is missing. view: which view it is a feature of; None: it was sent with the question.
    view_version: how that was declared when the model was trained, None if it was not written down.
    changed: how it is declared otherwise today, None if it is not. contribution: to the raw score, None if the family
    has none.
    baseline: its value in what contributions are counted from, None where there is none.
    """

    name: str
    value: float | str | None
    view: str | None
    view_version: str | None
    changed: str | None
    contribution: float | None
    baseline: float | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """An answer, taken apart.

    recomputed: what the version answers to the logged vector now. contributions: None where the family has none, which
    ``without`` says why.
    """

    answer: Answered
    version: ModelVersion
    estimator: str
    inputs: tuple[Input, ...]
    recomputed: float
    contributions: Contributions | None
    without: str | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not add up; nothing if the answer is explained."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        logged, found = self.answer.probability, self.contributions
        if not abs(self.recomputed - logged) <= SAME_PROBABILITY:
            yield (
                f"the logged vector gives {self.recomputed!r} and not the {logged!r} that was answered: the log, or "
                f"the files of {self.version.name} version {self.version.version}, are not what they were"
            )
        if found is None:
            return
        if not abs(found.gap) <= SMALL_GAP * max(1.0, abs(found.raw - found.base)):
            yield f"contributions and base miss the raw score {found.raw!r} by {found.gap!r}"
        if not abs(found.probability - self.recomputed) <= SAME_PROBABILITY:
            yield f"the raw score {found.raw!r} stands for {found.probability!r}, the model says {self.recomputed!r}"


def explain(answer: Answered, project: Project, tracking: Tracking) -> Explanation:
    """Load the version that answered, and take its answer apart.

    Raises:
        NotExplained: the version or its files are gone, or what was logged is not the whole of its inputs.
    """
    version = _version(answer, tracking)
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = tracking.download(version, Path(folder))
            model, record = load(files), read_record(files)
        except ModelRefused as error:
            raise NotExplained(f"{_by(answer)}, which cannot be loaded: {error}") from error
    vector = _vector(answer, model)
    row = model.matrix([vector])[0]
    found, without = None, None
    try:
        found = model.contributions(row)
    except NoContributions as error:
        without = str(error)
    return Explanation(
        answer=answer,
        version=version,
        estimator=model.estimator,
        inputs=tuple(_inputs(model, vector, project, record, found)),
        recomputed=float(model.predict_rows([vector])[0]),
        contributions=found,
        without=without,
    )


def _by(answer: Answered) -> str:
    return f"{answer.prediction_id} was answered by version {answer.version} of {answer.model}"


def _version(answer: Answered, tracking: Tracking) -> ModelVersion:
    try:
        return tracking.version(answer.model, answer.version)
    except UnknownName as error:
        raise NotExplained(f"{_by(answer)}, which is gone from the registry ({tracking.uri}): {error}") from error


def _vector(answer: Answered, model: Model) -> dict[str, Any]:
    """By the model's inputs: categories as they were sent, features as they were logged."""
    sent = {name: answer.entities[name] for name in model.encoding.categories if name in answer.entities}
    logged: dict[str, Any] = {**sent, **answer.features}
    missing = [name for name in model.encoding.inputs if name not in logged]
    if missing:
        raise NotExplained(
            f"{_by(answer)}, and {answer.found_in} does not say what it was given for {', '.join(missing)}: without "
            f"the whole vector nothing can be explained"
        )
    return {name: logged[name] for name in model.encoding.inputs}


def _inputs(
    model: Model,
    vector: Mapping[str, Any],
    project: Project,
    record: FeatureRecord | None,
    found: Contributions | None,
) -> Iterator[Input]:
    changed = changes(record, project.all_views.values()) if record else {}
    for place, name in enumerate(model.encoding.inputs):
        view = None if name in model.encoding.categories else name.partition("__")[0]
        yield Input(
            name=name,
            value=vector[name],
            view=view,
            view_version=record.version(view) if record and view else None,
            changed=changed.get(name),
            contribution=float(found.values[place]) if found else None,
            baseline=found.baselines[place] if found else None,
        )
