"""A study of Optuna that several processes work on, each of which may be killed at any moment.

A trial belongs to the process that began it. Trials are begun under a lock, so that there are never more than asked
for; one whose process is gone is failed under the same lock and begun anew by another.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from ml_platform.spec import Between, DeclarationError, Search

_WORKER = "worker"  # the attribute that says whose a trial is
_LOOK_AGAIN_SECONDS = 0.2
# A function of the parameters; it tells the loss so far after each of its steps, and may be stopped there.
Judge = Callable[[Mapping[str, Any], Callable[[int, float], None]], float]


def open_study(name: str, address: str, seed: int) -> Any:
    """The study of that name, made if need be. address: of a database, as SQLAlchemy writes it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    wait = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    storage = optuna.storages.RDBStorage(address, engine_kwargs=wait)
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="minimize",
        load_if_exists=True,
        # Processes that sample at once must not try the same: each has a sequence of its own.
        sampler=optuna.samplers.TPESampler(seed=seed + os.getpid(), constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )


def work(study: Any, search: Search, defaults: Mapping[str, Any], judged: Judge, lock: Path) -> None:
    """Carry trials through until the study has ``search.trials`` of them; the first one takes the declared values.

    Run in as many processes as there are cores for, all with the same ``lock``, a file of this machine. Killed at any
    moment, it can be called again.

    Raises:
        DeclarationError: the space is not one that can be searched.
    """
    while True:
        finished, trial = begin(study, search, defaults, lock)
        if finished >= search.trials:
            return
        if trial is None:
            sleep(_LOOK_AGAIN_SECONDS)  # others are at the last ones; if one is killed, its trial is begun anew
            continue
        _carry_through(study, trial, judged)


def begin(study: Any, search: Search, defaults: Mapping[str, Any], lock: Path) -> tuple[int, Any]:
    """How many trials were carried through, and a new one if one more is wanted than run now, else None.

    Raises:
        DeclarationError: the space is not one that can be searched.
    """
    distributions = {name: _distribution(name, among) for name, among in search.space.items()}
    with _held(lock):
        _fail_orphans(study)
        finished, running = _counts(study)
        return finished, _begun(study, distributions, defaults) if finished + running < search.trials else None


def _begun(study: Any, distributions: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    if not study.get_trials(deepcopy=False):
        known = {name: defaults[name] for name in distributions if name in defaults}
        study.enqueue_trial(known, skip_if_exists=True)
    trial = study.ask(fixed_distributions=distributions)
    trial.set_user_attr(_WORKER, _this_process())
    return trial


def _carry_through(study: Any, trial: Any, judged: Judge) -> None:
    import optuna

    def heard(step: int, loss: float) -> None:
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        loss = judged(dict(trial.params), heard)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except BaseException:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise
    else:
        study.tell(trial, loss)


def _counts(study: Any) -> tuple[int, int]:
    """Trials carried through (stopped early among them), and trials that run."""
    from optuna.trial import TrialState

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states), states.count(TrialState.RUNNING)


def _fail_orphans(study: Any) -> None:
    """Fail the trials whose process is gone. Called under the lock: one that is nobody's was never begun in full."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _lives(trial.user_attrs.get(_WORKER)):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _this_process() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}"


def _lives(worker: str | None) -> bool:
    if worker is None:
        return False
    host, pid, began = worker.rsplit("/", 2)
    return host != socket.gethostname() or _began(int(pid)) == began


def _began(pid: int) -> str | None:
    """When the process began, in the kernel's ticks: its number alone may be another's by now. None if it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] == "Z" else words[19]


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """The kernel lets go of it when the process ends, however."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _distribution(name: str, among: Between | tuple[Any, ...]) -> Any:
    from optuna import distributions

    try:
        if not isinstance(among, Between):
            return distributions.CategoricalDistribution(among)
        if isinstance(among.low, int) and isinstance(among.high, int):
            return distributions.IntDistribution(among.low, among.high, log=among.log)
        return distributions.FloatDistribution(among.low, among.high, log=among.log)
    except ValueError as error:
        raise DeclarationError(f"the parameter {name} cannot be searched in {among}: {error}") from error
