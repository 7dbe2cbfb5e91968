"""Drills of a service under load: versions exchanged, workers ended and killed; what became of every question."""

import os
import random
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ml_platform.bench.fire_load import Answer, Callers, until
from ml_platform.bench.fire_world import FireWorld, Foreground, foreground
from ml_platform.bench.serving_world import MODEL, SERVICE
from ml_platform.serving.traffic import CANARY, Split
from ml_platform.spec import PlatformError
from ml_platform.stores.clock import Clock
from ml_platform.stores.rollout_state import Phase, Rollout

WORKERS = 2
_SETTLED_SECONDS, _SETTLED_ANSWERS = 0.4, 30  # without an answer of before, a swap counts as done
_SWAP_SECONDS = 10.0
_GROWN_SECONDS = 2.2  # a little more than ``crew`` wants a worker to have answered before it is no start that failed
_BY = ("ask",)


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of the questions.

    answered, failed: questions with an answer 200, and without. lost: answers that are not in the log as they were
    given. doubled: records of the log under an id that stands there before. wrong: answers whose probability is not the
    named version's own, to the bit.
    """

    answered: int
    failed: int
    lost: int
    doubled: int
    wrong: int
    reasons: tuple[str, ...] = ()


def account(world: FireWorld, load: Callers) -> Account:
    """By the log as it stands on the disk, and by ``Booster.predict`` of the version that each answer names."""
    reading = world.log.read_predictions(SERVICE)
    columns = reading.frame.select("prediction_id", "model_version", "probability").rows()
    logged = {name: (version, probability) for name, version, probability in columns}
    lost = [a for a in load.answers if logged.get(a.name) != (a.version, a.probability)]
    wrong = [a for a in load.answers if world.expected[a.version][a.user] != a.probability]
    return Account(
        answered=len(load.answers),
        failed=len(load.failed) + load.refused,
        lost=len(lost),
        doubled=reading.doubles,
        wrong=len(wrong),
        reasons=tuple(sorted({failure.reason for failure in load.failed})[:5]),
    )


@contextmanager
def under_load(
    world: FireWorld, workers: int, prefix: str, *, pause: float = 0.01
) -> Iterator[tuple[Foreground, Callers]]:
    """A service of so many workers, and the callers that it answers all the while."""
    served = foreground(world.profile, SERVICE, workers)
    with served as service, Callers(service.port, prefix=prefix, pause=pause) as load:
        service.wait(lambda: len(load.answers) > 100, "a hundred answers")
        yield service, load


@dataclass(frozen=True, kw_only=True)
class Swaps:
    """``longest``: seconds after a swap at which a question was sent that was still answered as before, at most."""

    account: Account
    swaps: int
    longest: float
    unsettled: int
    refused_by: int
    workers: int


def swaps(world: FireWorld, count: int) -> Swaps:
    """So many changes of who answers, by turns a promotion and three steps of a rollout; then a version that is broken.

    After each, it is worked out for every question which version has to answer it.
    """
    longest, unsettled, number = 0.0, 0, 0
    with under_load(world, WORKERS, "swap") as (service, load):
        champion, other = "1", "2"
        while number < count:
            for step in range(min(4, count - number)):
                if step == 0:
                    champion, other = other, champion
                    world.tracking.promote(MODEL, int(champion))
                    split = Split(by=_BY)
                else:
                    split = _step(world, champion, step, number)
                number += 1
                took = _settled(load, champion, split)
                longest, unsettled = max(longest, took or 0.0), unsettled + (took is None)
        world.tracking.promote(MODEL, world.broken)
        told = f"version {world.broken} refused, version {champion} stays"
        until(lambda: service.log.read_text().count(told) >= WORKERS, _SWAP_SECONDS)
        refused = service.log.read_text().count(told)
        before = time.monotonic()
        until(lambda: len(load.since(before)) > _SETTLED_ANSWERS, _SWAP_SECONDS)
        stays = {answer.version for answer in load.since(before)}
        world.tracking.promote(MODEL, int(champion))
    if stays - {champion, "3"}:
        raise PlatformError(f"after a broken version was refused, versions {sorted(stays)} answered")
    found = account(world, load)
    return Swaps(account=found, swaps=number, longest=longest, unsettled=unsettled, refused_by=refused, workers=WORKERS)


def _step(world: FireWorld, champion: str, step: int, number: int) -> Split:
    """A rollout of version 3 begins with half of the questions, goes on with a fifth, and is taken back."""
    steps: Sequence[tuple[float, Phase]] = ((0.5, "canary"), (0.2, "canary"), (0.0, "rolled_back"))
    share, phase = steps[step - 1]
    now = Clock.wall()
    name = number - step

    def to(held: Rollout | None) -> Rollout:
        if held is not None and held.number == name:
            return replace(held, phase=phase, share=share)
        return Rollout(
            number=name,
            change=0,
            model=MODEL,
            champion=champion,
            canary="3",
            phase="canary",
            step=0,
            share=share,
            begun=now,
            since=now,
            reason="drill",
            resting=True,
        )

    stands = world.rollout.change(to)
    assert stands is not None
    return Split(by=_BY, share=share, salt=stands.salt)


def _settled(load: Callers, champion: str, split: Split) -> float | None:
    """Seconds until nothing was answered as before; None: that did not come to an end."""
    began = time.monotonic()
    deadline = began + _SWAP_SECONDS

    def as_before(answer: Answer) -> bool:
        wanted = "3" if split.variant({"ask": answer.name}) == CANARY else champion
        return answer.version != wanted

    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = time.monotonic()
        new = load.since(now - _SETTLED_SECONDS)
        if now - began > _SETTLED_SECONDS and len(new) >= _SETTLED_ANSWERS and not any(map(as_before, new)):
            old = [answer.sent for answer in load.since(began) if as_before(answer)]
            return max(old, default=began) - began
    return None


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """``slowest``: seconds that a question took at most."""

    account: Account
    ended: int
    replaced: int
    slowest: float


def restarts(world: FireWorld, ended: int, replaced: int, *, workers: int) -> Restarts:
    """Workers end on SIGTERM and others are started by the parent; then all are replaced one by one, on SIGHUP."""
    with under_load(world, workers, f"end{workers}-") as (service, load):
        for _ in range(ended):
            worker = _one_of(service, random.Random(ended), set())
            os.kill(worker, signal.SIGTERM)
            _stands_again(service, worker, workers)
        for number in range(replaced):
            service.process.send_signal(signal.SIGHUP)
            service.wait(lambda wanted=number + 1: service.lines("was replaced") >= wanted, "other workers")  # type: ignore[misc]
        _more(service, load)
    slowest = max(answer.took for answer in load.answers)
    return Restarts(account=account(world, load), ended=ended, replaced=replaced, slowest=slowest)


@dataclass(frozen=True, kw_only=True)
class Kills:
    """``torn``: files of the log that end in a record cut off by a kill."""

    account: Account
    kills: int
    torn: int


def kills(world: FireWorld, count: int, *, tell: Callable[[int], object] = lambda _: None) -> Kills:
    """Workers are killed with -9, one after the other, and others are started by the parent."""
    chance, killed = random.Random(count), set[int]()
    with under_load(world, WORKERS, "kill", pause=0.002) as (service, load):
        for number in range(count):
            worker = _one_of(service, chance, killed)
            time.sleep(chance.random() * 0.2)
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)  # it may still be seen for a moment
            tell(number + 1)
        _stands_again(service, worker, WORKERS)
        _more(service, load)
    return Kills(account=account(world, load), kills=count, torn=world.log.read_predictions(SERVICE).torn)


def _one_of(service: Foreground, chance: random.Random, but: Collection[int]) -> int:
    """A worker that has answered for a while."""

    def grown() -> Sequence[int]:
        now = time.monotonic()
        answering = service.answering().items()
        return [worker for worker, since in answering if now - since > _GROWN_SECONDS and worker not in but]

    service.wait(lambda: bool(grown()), "a worker that answers for a while")
    return chance.choice(grown())


def _stands_again(service: Foreground, worker: int, workers: int) -> None:
    service.wait(
        lambda: worker not in service.workers() and len(service.answering()) >= workers, "another worker that answers"
    )


def _more(service: Foreground, load: Callers) -> None:
    before = len(load.answers)
    service.wait(lambda: len(load.answers) > before + 200, "more answers")
