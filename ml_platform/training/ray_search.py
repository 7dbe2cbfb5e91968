"""The trials of a study on a Ray cluster: a task for each fold of each, while the study stays with whoever searches.

So a worker needs no database, and a trial that is worse than most is stopped before its next fold is given away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np

from ml_platform import metrics
from ml_platform.spec import ModelSpec, PlatformError
from ml_platform.training.encoding import Floats
from ml_platform.training.ray_workers import connected, refuse_small
from ml_platform.training.search import Fold, answer, searched_space
from ml_platform.training.study import begin
from ml_platform.training.training_set import LABEL

_LOOK_AGAIN_SECONDS = 0.2


@dataclass
class _Running:
    """A trial, the task of its next fold, and the losses of the rows of those before."""

    trial: Any
    task: Any
    losses: list[Floats] = field(default_factory=list)


def search_on_ray(spec: ModelSpec, parts: Sequence[Fold], study: Any, lock: Path, address: str) -> None:
    """Carry the study's trials through, as many at once as the cluster has room for.

    Killed, it can be called again. A worker that is killed costs its fold, which Ray has another do.

    Raises:
        PlatformError: there is no such cluster, or a trial failed on it.
    """
    space = searched_space(spec)
    with connected(address) as ray:
        refuse_small(ray, spec, 1)
        room = int(ray.cluster_resources()["CPU"]) // spec.workers.threads
        data = [ray.put(part) for part in parts]
        judged = ray.remote(_row_losses).options(
            num_cpus=spec.workers.threads, max_retries=spec.workers.restarts, scheduling_strategy="SPREAD"
        )
        running: list[_Running] = []
        while True:
            finished, trial = begin(study, space, spec.parameters, lock) if len(running) < room else (0, None)
            if trial is not None:
                running.append(_Running(trial, judged.remote(spec, dict(trial.params), data[0])))
            elif running:
                one = _next_done(ray, spec, study, running)
                if _goes_on(study, one, len(parts)):
                    one.task = judged.remote(spec, dict(one.trial.params), data[len(one.losses)])
                    running.append(one)
            elif finished >= space.trials:
                return
            else:
                sleep(_LOOK_AGAIN_SECONDS)  # others are at the last ones


def _next_done(ray: Any, spec: ModelSpec, study: Any, running: list[_Running]) -> _Running:
    """Taken out of those that run, with the losses of the fold that is done."""
    from optuna.trial import TrialState

    (done,), _ = ray.wait([each.task for each in running])
    (one,) = (each for each in running if each.task == done)
    try:
        one.losses.append(ray.get(done))
    except ray.exceptions.RayError as error:
        for each in running:
            study.tell(each.trial, state=TrialState.FAIL)
        raise PlatformError(
            f"a trial of the search for {spec.name} failed on the Ray cluster: {str(error).strip().splitlines()[-1]}; "
            f"start the same search again"
        ) from error
    running.remove(one)
    return one


def _goes_on(study: Any, one: _Running, folds: int) -> bool:
    """Tell the study how the trial stands; whether another of its folds is to be judged."""
    from optuna.trial import TrialState

    fold, loss = len(one.losses), float(np.concatenate(one.losses).mean())
    one.trial.report(loss, fold - 1)
    if one.trial.should_prune():
        study.tell(one.trial, state=TrialState.PRUNED)
        return False
    if fold == folds:
        study.tell(one.trial, loss)
    return fold < folds


def _row_losses(spec: ModelSpec, parameters: dict[str, Any], part: Fold) -> Floats:
    return metrics.row_losses(part.judged[LABEL], answer(spec, parameters, part, threads=spec.workers.threads))
