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
    import optuna

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
                continue
            if not running:
                if finished >= space.trials:
                    return
                sleep(_LOOK_AGAIN_SECONDS)  # others are at the last ones
                continue
            (done,), _ = ray.wait([each.task for each in running])
            (one,) = (each for each in running if each.task == done)
            running.remove(one)
            try:
                one.losses.append(ray.get(done))
            except ray.exceptions.RayError as error:
                for each in (one, *running):
                    study.tell(each.trial, state=optuna.trial.TrialState.FAIL)
                raise PlatformError(
                    f"a trial of the search for {spec.name} failed on the Ray cluster at {address}: "
                    f"{str(error).strip().splitlines()[-1]}; start the same search again"
                ) from error
            fold = len(one.losses)
            loss = float(np.concatenate(one.losses).mean())
            one.trial.report(loss, fold - 1)
            if one.trial.should_prune():
                study.tell(one.trial, state=optuna.trial.TrialState.PRUNED)
            elif fold == len(parts):
                study.tell(one.trial, loss)
            else:
                one.task = judged.remote(spec, dict(one.trial.params), data[fold])
                running.append(one)


def _row_losses(spec: ModelSpec, parameters: dict[str, Any], part: Fold) -> Floats:
    return metrics.row_losses(part.judged[LABEL], answer(spec, parameters, part, threads=spec.workers.threads))
