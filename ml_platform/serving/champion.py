"""Which model answers: the registry's champion, loaded and checked, exchanged in one step while requests go on."""

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.features.request_values import RequestPlan
from ml_platform.serving.traffic import Split
from ml_platform.serving.trial import Fault, tried
from ml_platform.spec import FeatureView, HomeDamaged, ModelRefused, PlatformError, Task, View
from ml_platform.spec.features import feature_name
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.model_files import as_registered
from ml_platform.stores.rollout_state import Rollout
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.estimators import load
from ml_platform.training.feature_record import read_record, refuse_changed
from ml_platform.training.model import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """What to read from one view: feature and the model input that it fills."""

    view: FeatureView
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A loaded model version and the plan of its lookups; immutable, exchanged as a whole.

    computed: those of its features that are computed from the request and the looked-up values; ``None``: it has none.
    """

    name: str
    version: str
    model: Model
    categorical: tuple[str, ...]
    feature_names: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    computed: RequestPlan | None
    loaded_at: datetime

    @property
    def inputs(self) -> tuple[str, ...]:
        """The model's inputs in order."""
        return self.categorical + self.feature_names


def plan(
    inputs: Sequence[str], task: Task, views: Mapping[str, View]
) -> tuple[tuple[str, ...], list[Lookup], RequestPlan | None]:
    """Categorical inputs, and what fills the others: lookups, views in the order of the inputs, and request features.

    The model's own inputs decide, not today's declaration: a champion trained before a view was added goes on serving.

    Raises:
        ModelRefused: an input is neither a categorical entity nor a feature of a declared view.
    """
    categorical = tuple(name for name in inputs if name in task.categorical)
    if categorical != tuple(inputs[: len(categorical)]):
        raise ModelRefused(f"its categorical inputs {', '.join(categorical)} do not come first; train it again")
    declared = {feature_name(view, feature): (view, feature) for view in views for feature in views[view].schema()}
    others = inputs[len(categorical) :]
    for name in others:
        if name not in declared:
            raise ModelRefused(f"its input {name!r} is not a feature of any declared view; restore it or train again")
    computed = RequestPlan(views.values(), others)
    wanted: dict[str, list[tuple[str, str]]] = {}
    for name in dict.fromkeys([*others, *computed.looked_up]):
        view, feature = declared[name]
        if name not in computed.names:
            wanted.setdefault(view, []).append((feature, name))
    stored = {name: view for name, view in views.items() if isinstance(view, FeatureView)}
    lookups = [Lookup(view=stored[name], features=tuple(found)) for name, found in wanted.items()]
    return categorical, lookups, computed if computed.names else None


def check(model: Model) -> None:
    """Ask the model about rows of nothing and of zeros.

    Raises:
        ModelRefused: it fails, or does not answer with one probability a row.
    """
    inputs = model.encoding.inputs
    rows: list[dict[str, Any]] = [dict.fromkeys(inputs), dict.fromkeys(inputs, 0.0), dict.fromkeys(inputs)]
    found = tried(lambda: np.asarray(model.predict_rows(rows)))
    if isinstance(found, Fault):
        raise ModelRefused(f"it cannot answer rows of nothing and of zeros: {found.reason}") from found.error
    answers = found
    if answers.shape != (len(rows),):
        raise ModelRefused(f"it answers {len(rows)} rows with an array of shape {answers.shape}")
    if not (np.isfinite(answers).all() and (answers >= 0).all() and (answers <= 1).all()):
        raise ModelRefused(f"its answers {answers.tolist()} are no probabilities")


def load_champion(
    tracking: Tracking, ledger: Ledger, version: ModelVersion, task: Task, views: Mapping[str, View], scratch: Path
) -> Champion:
    """Download a version, compare its files with the ledger, load, plan and check it.

    Raises:
        ModelRefused: its files are not those that were registered, its inputs or answers are not what can be served, or
            a feature was declared otherwise since.
    """
    name, number = version.name, str(version.version)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = tracking.download(version, Path(folder) / "downloaded")
        files = as_registered(files, ledger, name, number, Path(folder) / "compared")
        return made_servable(files, name, number, task, views)


def made_servable(files: Path, name: str, version: str, task: Task, views: Mapping[str, View]) -> Champion:
    """Load, plan and check the version in a folder; nothing is read from it afterwards.

    Raises:
        ModelRefused: its inputs or answers are not what can be served, or a feature was declared otherwise since.
    """
    model, record = load(files), read_record(files)
    inputs = tuple(model.encoding.inputs)
    categorical, lookups, computed = plan(inputs, task, views)
    refuse_changed(record, views.values())
    check(model)
    return Champion(
        name=name,
        version=version,
        model=model,
        categorical=categorical,
        feature_names=inputs[len(categorical) :],
        lookups=tuple(lookups),
        computed=computed,
        loaded_at=datetime.now(UTC),
    )


def registry_errors() -> tuple[type[Exception], ...]:
    """What a registry raises that cannot be reached or is locked for the moment."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (OSError, MlflowException, SQLAlchemyError)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What answers; immutable, exchanged as a whole, so that no request sees half of a change.

    canary: answers the split's share of the units; None: there is none, whatever the split says.
    change: of the rollout's file, that this was made of; 0 without a rollout.
    """

    champion: Champion
    canary: Champion | None = None
    split: Split = field(default_factory=lambda: Split(by=()))
    change: int = 0


@dataclass
class ChampionWatch:
    """Looks at registry and rollout every so often and exchanges ``serving``; a version that fails is refused once.

    find: the registry's champion; raises a PlatformError while there is none, or one of ``passing``, the errors of a
        registry that is not to be reached for a while.
    load: makes a version servable; raises a PlatformError, ValueError, KeyError or OSError if it cannot.
    numbered: the registry's version of this number, raising likewise. rollout: where one stands, if the service has
        any; by: whose values make a unit of it. watched: whether a referee looks at it; else no canary answers.
    stamp: equal ones say that nothing in the registry changed meanwhile; where that is cheap to know.
    """

    find: Callable[[], ModelVersion]
    load: Callable[[ModelVersion], Champion]
    passing: tuple[type[Exception], ...] = (OSError,)
    every: timedelta = timedelta(seconds=0.5)
    numbered: Callable[[int], ModelVersion] | None = None
    rollout: Callable[[], Rollout | None] = lambda: None
    by: tuple[str, ...] = ()
    watched: Callable[[], bool] = lambda: True
    stamp: Callable[[], object] = object
    serving: Serving | None = None
    refused: dict[str, str] = field(default_factory=dict)
    absent: str = "the registry was not asked yet"
    _looked_at: object = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def current(self) -> Champion | None:
        """The champion that answers."""
        return self.serving.champion if self.serving else None

    def look(self) -> None:
        """One look: exchange what answers if the registry or the rollout names something else that can be served."""
        self._look_for_champion()
        if self.serving is not None:
            self._look_for_canary(self.serving)

    def _look_for_canary(self, serving: Serving) -> None:
        try:
            rollout = self.rollout()
        except (HomeDamaged, OSError) as error:
            logger.error("the rollout cannot be read, so nobody is answered by a canary: %s", error)
            self.serving = Serving(champion=serving.champion)
            return
        if rollout is None:
            return
        answers = (
            rollout.champion == serving.champion.version
            and not rollout.closed
            and rollout.phase in ("canary", "won")
            and self.watched()
        )
        if rollout.change == serving.change and answers == (serving.canary is not None):
            return
        split = Split(by=self.by, share=rollout.share, salt=rollout.salt)
        canary = self._canary(serving, rollout.canary) if answers else None
        if answers and canary is None and rollout.change == serving.change:
            return  # refused, or not to be had now
        self.serving = Serving(champion=serving.champion, canary=canary, split=split, change=rollout.change)
        told = f"canary version {canary.version} answers {rollout.share:.0%}" if canary else "no canary answers"
        logger.info("%s: %s (%s)", rollout.model, told, rollout.phase)

    def _canary(self, serving: Serving, number: str) -> Champion | None:
        """It, loaded once; None where it cannot be: then the champion answers everybody."""
        held = serving.canary
        if held is not None and held.version == number:
            return held
        if number in self.refused or self.numbered is None:
            return None
        try:
            return self.load(self.numbered(int(number)))
        except self.passing as error:
            logger.warning("canary version %s cannot be fetched now: %s", number, error)
            return None
        except (PlatformError, ValueError, KeyError) as error:
            self._refuse("canary", number, error)
            return None

    def _look_for_champion(self) -> None:
        """Exchange the champion if the registry names another one that can be served."""
        absent: tuple[type[Exception], ...] = (PlatformError, *self.passing)
        stamp = self.stamp()
        if self.serving is not None and stamp == self._looked_at:
            return
        try:
            version = self.find()
        except absent as error:
            if str(error) != self.absent:
                logger.warning("no champion to be had: %s", error)
            self.absent = str(error)
            return
        number = str(version.version)
        if (self.current is not None and self.current.version == number) or number in self.refused:
            self._looked_at = stamp
            return
        held = self.serving.canary if self.serving else None
        try:
            found = held if held is not None and held.version == number else self.load(version)
        except self.passing as error:
            logger.warning("%s: version %s cannot be fetched now: %s", version.name, number, error)
            return
        except (PlatformError, ValueError, KeyError) as error:
            self._refuse(version.name, number, error)
            return
        before = self.current.version if self.current else "none"
        self.serving = Serving(champion=found)
        logger.info("%s: champion is version %s now (before: %s)", version.name, number, before)

    def _refuse(self, name: str, number: str, error: Exception) -> None:
        stays = f"version {self.current.version} stays" if self.current else "there is no other"
        self.absent = f"version {number} of {name} was refused: {error}"
        logger.error("%s: version %s refused, %s: %s", name, number, stays, error)
        self.refused[number] = str(error)

    def start(self) -> None:
        """Go on looking from a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="champion-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.every.total_seconds()):
            self.look()

    @property
    def alive(self) -> bool:
        """Whether the thread goes on looking."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
