"""Search for better parameters of a model: folds in the order of time, what a trial is judged by, and what came out."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.spec import HAPPENS_AT, DeclarationError, ModelSpec, PlatformError, Search, TooFewLabels
from ml_platform.training.encoding import Floats
from ml_platform.training.estimators import train
from ml_platform.training.study import Judge, open_study, work
from ml_platform.training.training_set import LABEL
from ml_platform.training.workers import Site, refuse_site


@dataclass(frozen=True)
class Fold:
    """Rows to learn from, and later ones to judge on."""

    learned: pl.DataFrame
    judged: pl.DataFrame


def folds(rows: pl.DataFrame, search: Search) -> list[Fold]:
    """Time cut into ``search.folds + 1`` parts of equal length; each but the first is judged once, in order.

    Raises:
        TooFewLabels: a part holds no rows, or a fold's rows to learn from lie all within the gap.
    """
    if rows.is_empty():
        raise TooFewLabels("there are no labelled rows to search on")
    moments: list[datetime] = rows[HAPPENS_AT].sort().to_list()
    length = (moments[-1] - moments[0]) / (search.folds + 1)
    found = []
    for number in range(1, search.folds + 1):
        begins, ends = moments[0] + number * length, moments[0] + (number + 1) * length
        last = number == search.folds
        judged = rows.filter(pl.col(HAPPENS_AT) >= begins, pl.lit(last) | (pl.col(HAPPENS_AT) < ends))
        learned = rows.filter(pl.col(HAPPENS_AT) < begins - search.gap)
        if judged[LABEL].n_unique() < 2 or learned.is_empty():
            raise TooFewLabels(
                f"fold {number} of {search.folds} has {learned.height} rows to learn from and {judged.height} to be "
                f"judged on, of {rows.height} from {moments[0]} to {moments[-1]}; take fewer folds or a shorter gap"
            )
        found.append(Fold(learned, judged))
    return found


def answers(spec: ModelSpec, parameters: Mapping[str, Any], parts: Sequence[Fold], *, threads: int) -> Iterator[Floats]:
    """The probabilities of each fold's judged rows, by a model of these parameters that learned from those before."""
    for part in parts:
        yield answer(spec, parameters, part, threads=threads)


def answer(spec: ModelSpec, parameters: Mapping[str, Any], part: Fold, *, threads: int) -> Floats:
    """The probabilities of a fold's judged rows; trained by one process, whoever trains the model."""
    changed = replace(spec, parameters={**spec.parameters, **parameters}, compute="local")
    return train(changed, part.learned, threads=threads).predict(part.judged)


def judge(spec: ModelSpec, parts: Sequence[Fold], *, threads: int) -> Judge:
    """Mean log-loss of all judged rows; told to ``heard`` after each fold."""

    def judged(parameters: Mapping[str, Any], heard: Callable[[int, float], None]) -> float:
        losses: list[Floats] = []
        for number, given in enumerate(answers(spec, parameters, parts, threads=threads)):
            losses.append(metrics.row_losses(parts[number].judged[LABEL], given))
            heard(number, float(np.concatenate(losses).mean()))
        return float(np.concatenate(losses).mean())

    return judged


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a study found: the best parameters, and their gain over the declared ones in log-loss on the judged rows.

    gain: with a 95% interval by bootstrap over days; ``better``: probability of a gain above 0.
    """

    best: Mapping[str, Any]
    loss: float
    declared_loss: float
    gain: float
    low: float
    high: float
    better: float
    completed: int
    pruned: int
    failed: int

    def sentence(self) -> str:
        """For people; says so where nothing was gained."""
        told = (
            f"log-loss {self.loss:.4f} instead of {self.declared_loss:.4f}: a gain of {self.gain:+.4f} (95% interval "
            f"{self.low:+.4f} to {self.high:+.4f}) on the judged rows, after {self.completed} trials to the end, "
            f"{self.pruned} stopped early and {self.failed} failed"
        )
        sure = self.low > 0
        return f"better parameters were found: {told}" if sure else f"no surely better parameters were found: {told}"


def outcome(study: Any, spec: ModelSpec, parts: Sequence[Fold], timezone: str, *, threads: int) -> Searched:
    """Train the best and the declared parameters once more and compare them row by row.

    The best was chosen among many on these rows, so its gain is what a challenger may hope for; the gate decides.
    """
    from optuna.trial import TrialState

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    labels = pl.concat(part.judged[LABEL] for part in parts)
    moments = pl.concat(part.judged[HAPPENS_AT] for part in parts)
    days = moments.dt.convert_time_zone(timezone).dt.date()
    tried: tuple[Mapping[str, Any], ...] = (study.best_params, {})
    best, declared = (np.concatenate(list(answers(spec, each, parts, threads=threads))) for each in tried)
    gain = metrics.paired_gain(labels, declared, best, days, seed=spec.seed, min_gain=0.0, resamples=2000)
    return Searched(
        best=dict(study.best_params),
        loss=metrics.log_loss(labels, best),
        declared_loss=metrics.log_loss(labels, declared),
        gain=gain.mean,
        low=gain.low,
        high=gain.high,
        better=gain.probability,
        completed=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
    )


def searched_space(spec: ModelSpec) -> Search:
    """What the model declares to be searched.

    Raises:
        DeclarationError: nothing.
    """
    if spec.search is None:
        raise DeclarationError(f"model {spec.name} declares no search; give it search=Search(space=...)")
    return spec.search


def search(
    spec: ModelSpec,
    rows: pl.DataFrame,
    name: str,
    database: Path,
    timezone: str,
    *,
    workers: int,
    site: Site | None = None,
) -> Searched:
    """Carry the study of that name through with so many processes, then compare its best with what is declared.

    rows: the training part. A model with ``compute="ray"`` has its trials on the cluster of ``site``, as many at once
    as that has room for. Stopped or killed, the same call goes on with the study.

    Raises:
        DeclarationError: nothing is declared to be searched. TooFewLabels: a fold lacks rows.
        PlatformError: a worker failed or was killed; what it had begun is done by the next call. Or Ray is not there.
    """
    site = site or Site()
    refuse_site(spec, site)
    parts = folds(rows, searched_space(spec))
    address = f"sqlite:///{database}"
    study = open_study(name, address, spec.seed)  # made once, before several look for it
    if spec.compute == "ray":
        from ml_platform.training.ray_search import search_on_ray

        search_on_ray(spec, parts, study, database.with_suffix(".lock"), site.cluster)
    else:
        _search_here(spec, parts, name, address, database.with_suffix(".lock"), workers)
    return outcome(open_study(name, address, spec.seed), spec, parts, timezone, threads=os.cpu_count() or 1)


def _search_here(spec: ModelSpec, parts: Sequence[Fold], name: str, address: str, lock: Path, workers: int) -> None:
    threads = max((os.cpu_count() or 1) // workers, 1)
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_work, args=(spec, parts, name, address, lock, threads)) for _ in range(workers)]
    for process in running:
        process.start()
    try:
        for process in running:
            process.join()
    finally:
        for process in running:
            process.terminate()
    ended = [process.exitcode for process in running]
    if any(ended):
        raise PlatformError(f"workers of the search for {spec.name} ended with {ended}; start the same search again")


def _work(spec: ModelSpec, parts: Sequence[Fold], name: str, address: str, lock: Path, threads: int) -> None:
    study = open_study(name, address, spec.seed)
    work(study, searched_space(spec), spec.parameters, judge(spec, parts, threads=threads), lock)
