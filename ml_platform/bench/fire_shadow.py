"""What the unseen answers of a rollout's other version cost the version that serves: by turns with and without them.

The service stands on one core; load generator, Redis and the referee, which asks the other version, share the other.
Each turn asks as of a day of its own, so that the referee never reads what another turn left.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median

from ml_platform.bench.fire_world import POLICIES, importable
from ml_platform.bench.serving import Load, Server, load
from ml_platform.bench.serving_world import (
    AS_OF,
    MODEL,
    OTHER_CORE,
    SEED,
    SERVER_CORE,
    SERVICE,
    TREES,
    World,
    pin,
    registered,
    served_inputs,
    world,
)
from ml_platform.serving.process import running
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.rollout_state import Rollout

LOADED = 0.3  # of the rate of a closed loop


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Turns without something beside the service and with it; ``rate``: questions a second."""

    without: Sequence[Load]
    beside: Sequence[Load]
    rate: float

    @property
    def cpu(self) -> float:
        """The server's CPU an answer, with over without."""
        return _times(self.beside, self.without, "cpu_us")

    @property
    def p99(self) -> float:
        """The same of the 99th percentile."""
        return _times(self.beside, self.without, "p99_ms")


@dataclass(frozen=True, kw_only=True)
class Shadow(Turns):
    """``seen``: the share of answers that the other version was asked about."""

    seen: float


def _times(some: Sequence[Load], others: Sequence[Load], what: str) -> float:
    over, under = (median(float(getattr(turn, what)) for turn in turns) for turns in (some, others))
    return over / under


def shadow(seconds: float, rounds: int) -> Shadow:
    """So many turns of each, of so many seconds.

    Raises:
        PlatformError: there is no redis-server to start.
    """
    with tempfile.TemporaryDirectory(prefix="ml_platform_shadow_") as name:
        folder = Path(name)
        with importable(folder), world(folder, OTHER_CORE, POLICIES) as made:
            other, _, _ = registered(made.profile, served_inputs(), folder / "other", trees=TREES, seed=SEED + 1)
            os.environ.update(made.environment())
            return _turns(made, str(other), seconds, rounds)


def _turns(made: World, other: str, seconds: float, rounds: int) -> Shadow:
    with running(made.profile, SERVICE, refereed=True) as service:
        assert service.referee is not None
        pin(service.child.pid, SERVER_CORE)
        pin(service.referee.pid, OTHER_CORE)
        server = Server(port=service.port, pid=service.child.pid)
        rate = LOADED * load(server, min(seconds, 3.0), asked_at=AS_OF).rate  # before the turns' days
        turns: Mapping[bool, list[Load]] = {False: [], True: []}
        answered = seen = 0
        for number in range(2 * rounds + 2):
            with_it, day = bool(number % 2), AS_OF + timedelta(days=1 + number)
            _let(made, other, number, with_it)
            turn = load(server, seconds, rate=rate, asked_at=day)
            if number < 2:  # the referee loads the versions
                continue
            turns[with_it].append(turn)
            if with_it:
                log = PredictionLog(made.profile.log_path)
                answered += len(log.ids(SERVICE, day.date()))
                seen += len(log.ids(SERVICE, day.date(), "shadow"))
    return Shadow(without=turns[False], beside=turns[True], rate=rate, seen=seen / answered)


def _let(made: World, other: str, number: int, with_it: bool) -> None:
    """A rollout of the other version in the shadow begins on the turn's day, or the last one is over."""
    begun = AS_OF.replace(hour=0) + timedelta(days=1 + number)

    def to(held: Rollout | None) -> Rollout:
        if not with_it and held is not None:
            return replace(held, phase="aborted", closed=True)
        return Rollout(
            number=number,
            change=0,
            model=MODEL,
            champion="1",
            canary=other,
            phase="shadow" if with_it else "aborted",
            step=-1,
            share=0.0,
            begun=begun,
            since=begun,
            reason="a turn",
            resting=True,
            closed=not with_it,
        )

    rollout_file(made.profile, SERVICE).change(to)
