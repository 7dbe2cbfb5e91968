"""The versions that a backtest needs: each trained once for its moment, its answers computed once, both kept on disk.

A version depends on its moment alone, not on who asked for it, so that all policies share it. What is kept is found by
its content: the rows it was made of, the declaration, the code of training.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform import training
from ml_platform.decisions.backtest_answers import Answers
from ml_platform.decisions.backtest_history import ROW, History
from ml_platform.evaluation.baselines import baselines
from ml_platform.evaluation.cost import latency_ms
from ml_platform.spec import HAPPENS_AT, ModelSpec, TooFewLabels
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.training.encoding import Encoding
from ml_platform.training.estimators import load, train
from ml_platform.training.model import Model
from ml_platform.training.training_set import HOLDOUT, LABEL_KNOWN_AT, PART, TRAIN, split

Floats = NDArray[np.float64]
# Of the stage's modules those that change no version: whoever edits them need not train all again.
_NOT_TRAINING = (
    *("assets", "steps", "upkeep", "described", "by_hand", "lineage", "manifest", "reproduce"),
    *("search", "study", "study_plots", "feature_record"),
)
_MODEL, _TOLD, _BESIDE = "model", "told.json", "beside.npz"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A model as it would have been registered at ``now``.

    trained_until: its newest training event. seconds, cpu_seconds: that its training took.
    beside: what each baseline answers to the holdout. latency_ms: of single rows.
    """

    now: datetime
    trained_until: datetime
    answers: Answers
    seconds: float
    cpu_seconds: float
    rows: int
    encoding: Encoding
    weights: Floats
    beside: Mapping[str, Floats]
    latency_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Trains what is asked for and was never trained.

    spec: the history's, or ``without_holdout`` of it, where no gate judges. folder: what is kept lies there.
    told: is told before something takes long.
    """

    history: History
    spec: ModelSpec
    folder: Path
    threads: int
    told: Callable[[str], object] = lambda _: None
    _made: dict[datetime, Version] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def gated(self) -> bool:
        """Whether rows are held out for a gate."""
        return self.spec.gate.holdout > timedelta(0)

    def at(self, now: datetime) -> Version:
        """The version trained at this moment.

        Raises:
            TooFewLabels: too little was known by then.
        """
        if now not in self._made:
            self._made[now] = self._found(now) or self._train(now)
        return self._made[now]

    def holdout(self, now: datetime) -> pl.DataFrame:
        """The rows that the gate judges the version of ``now`` on, with their inputs, labels and ``row``."""
        start = now - self.spec.gate.holdout
        return self.history.labelled_at(now, self.spec).filter(pl.col(HAPPENS_AT) >= start)

    def _parts(self, now: datetime) -> pl.DataFrame:
        known = self.history.labelled_at(now, self.spec)
        if self.gated:
            return split(known, self.spec, now)
        learned = known.filter(pl.col(LABEL_KNOWN_AT) <= now)
        if self.spec.train_window is not None:
            learned = learned.filter(pl.col(HAPPENS_AT) >= now - self.spec.train_window)
        if learned.height < self.spec.min_rows:
            raise TooFewLabels(
                f"model {self.spec.name} has {learned.height} labelled rows at {now.isoformat()}; "
                f"{self.spec.min_rows} are needed"
            )
        return learned.with_columns(pl.lit(TRAIN).alias(PART))

    def _train(self, now: datetime) -> Version:
        self.told(f"training the version of {now:%Y-%m-%d}")
        parts = self._parts(now)
        learned = parts.filter(pl.col(PART) == TRAIN).drop(ROW)
        began, used = perf_counter(), process_time()
        model = train(self.spec, learned, threads=self.threads)
        spent = {"seconds": perf_counter() - began, "cpu_seconds": process_time() - used}
        held, beside, slow = parts.filter(pl.col(PART) == HOLDOUT), {}, [0.0]
        if self.gated:
            beside = {name: answer(held) for name, answer in baselines(self.spec, learned).items()}
            slow = latency_ms(model, held)
        told = {
            **spent,
            "rows": learned.height,
            "trained_until": learned[HAPPENS_AT].item(-1).isoformat(),
            "latency_ms": slow,
        }
        self._keep(now, model, told, beside)
        return self._version(now, model, told, beside)

    @property
    def _tag(self) -> str:
        return fingerprint(self.spec, _sources())

    def _place(self, now: datetime) -> Path:
        """Where the version lies, if it was ever made of the same."""
        window = self.spec.train_window
        first = self.history.questions[HAPPENS_AT].item(0)
        start = first if window is None else now - self.spec.gate.holdout - window
        content = f"{self._tag} {now.isoformat()} {self.history.digest(start, now)}"
        return self.folder / sha256(content.encode()).hexdigest()[:24]

    def _found(self, now: datetime) -> Version | None:
        place = self._place(now)
        if not (place / _TOLD).exists():
            return None
        told = json.loads((place / _TOLD).read_text())
        with np.load(place / _BESIDE) as stored:
            beside = {name: stored[name] for name in stored.files}
        return self._version(now, load(place / _MODEL), told, beside)

    def _keep(self, now: datetime, model: Model, told: Mapping[str, Any], beside: Mapping[str, Floats]) -> None:
        """Whole or not at all: a kill leaves a draft that nobody reads."""
        place = self._place(now)
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self.folder))
        model.save(draft / _MODEL)
        np.savez(draft / _BESIDE, **beside)  # type: ignore[arg-type]
        (draft / _TOLD).write_text(json.dumps(dict(told)))
        if place.exists():  # another backtest was quicker
            shutil.rmtree(draft)
        else:
            draft.rename(place)

    def _version(self, now: datetime, model: Model, told: Mapping[str, Any], beside: Mapping[str, Floats]) -> Version:
        return Version(
            now=now,
            trained_until=datetime.fromisoformat(told["trained_until"]),
            answers=Answers(model=model, history=self.history, folder=self._place(now)),
            seconds=told["seconds"],
            cpu_seconds=told["cpu_seconds"],
            rows=told["rows"],
            encoding=model.encoding,
            weights=model.weights(),
            beside=beside,
            latency_ms=tuple(told["latency_ms"]),
        )


def _sources() -> str:
    """A digest of the code that trains."""
    digest = sha256()
    for file in sorted(Path(next(iter(training.__path__))).glob("*.py")):
        if file.stem not in _NOT_TRAINING:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def without_holdout(spec: ModelSpec) -> ModelSpec:
    """The model as it is trained where no gate judges it: on the newest rows, too."""
    return replace(spec, gate=replace(spec.gate, holdout=timedelta(0)))
