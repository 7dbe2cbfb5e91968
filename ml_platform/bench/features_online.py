"""The online store on Redis beside Feast's own client: reads of 1 and 20 entities, and publishing.

Run it: ``python -m ml_platform.bench.features_online``. Every arm does the same work on the same Redis: the same
entities are looked up, and columns of plain Python values come out. Answers are compared before anything is timed.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import click
import polars as pl

from ml_platform.bench.arms import machine
from ml_platform.bench.features_online_arms import (
    NOW,
    Answer,
    Feast,
    Rows,
    contents,
    forget,
    silence,
    table,
    view,
)
from ml_platform.bench.features_online_floor import Floor
from ml_platform.spec import Entity
from ml_platform.stores.online_decode import Status
from ml_platform.stores.online_plan import Plan
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform.stores.redis_wire import RedisWire, packed

URL = "redis://127.0.0.1:6379/13"
ENTITIES = 4000
UNKNOWN = 10**9  # no such entity
SEED = 20260101
_PATIENCE = timedelta(seconds=30)
_CALLS = {1: 2000, 20: 400}  # of each arm, by number of entities
_CHECKED = 20  # questions whose answers are compared first
_BLOCK = 10  # calls of one arm after the other
_PUBLISHED = 3  # times that each publishing arm is run
BARS = {"1": 4.0, "20": 8.0, "publish": 8.0}  # at least so many times Feast's rate

_USER = Entity(name="user", dtype="int64")
_SHOP = Entity(name="shop", dtype="int64")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of doing the same: median wall seconds of a call (or of a row), and CPU seconds of this process."""

    name: str
    seconds: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours is the first arm; ``ratio`` is how many times the rate of the quickest other arm that gives every answer."""

    subject: str
    bar: float | None
    arms: tuple[Arm, ...]

    def ratio(self, arm: Arm) -> float:
        """How many times the rate of this arm ours is."""
        return arm.seconds / self.arms[0].seconds

    def lines(self) -> Iterator[str]:
        """A line an arm."""
        bar = f" (bar: {self.bar:g} times)" if self.bar else ""
        yield f"{self.subject}{bar}"
        for arm in self.arms:
            yield (
                f"  {arm.name:44}{1 / arm.seconds:12,.0f}/s{arm.seconds * 1e6:11,.1f} us"
                f"{arm.cpu * 1e6:11,.1f} us CPU{self.ratio(arm):8.1f} x"
            )


LAYOUTS = {
    "two views of one entity": (view("spending", _USER), view("visits", _USER)),
    "two views, each of its own entity": (view("spending", _USER), view("sales", _SHOP)),
}


def same(plan: Plan, arms: Mapping[str, Callable[[Rows], Answer]], asked: Sequence[Rows]) -> None:
    """Compare the values of every answer.

    Raises:
        AssertionError: an answer differs.
    """
    names = [feature for _, feature in plan.features]
    for rows in asked:
        expected = dict(zip(names, map(list, zip(*plan.read(rows, NOW).values, strict=True)), strict=True))
        for name, arm in arms.items():
            answer = arm(rows)
            assert {feature: list(answer[feature]) for feature in names} == expected, f"{name} differs for {rows}"


def check(feast: Feast, plan: Plan, arms: Mapping[str, Callable[[Rows], Answer]], asked: Sequence[Rows]) -> str:
    """Compare values, then statuses; returns a sentence about where Feast's statuses say less.

    Raises:
        AssertionError: an answer differs.
    """
    same(plan, arms, asked)
    names = [feature for _, feature in plan.features]
    entities = list(asked[0][0])
    unknown = [dict.fromkeys(entities, UNKNOWN), *asked[0]]
    found = plan.read([*asked[-1], *unknown], NOW)
    theirs, values = feast.statuses([*asked[-1], *unknown]), feast.as_it_comes([*asked[-1], *unknown])
    less: dict[Status, int] = {}
    for n, name in enumerate(names):
        for row, said in enumerate(theirs[name]):
            status = found.statuses[row][n]
            assert found.values[row][n] == values[name][row]
            assert (status == Status.PRESENT) == (values[name][row] is not None)
            assert status == Status.PRESENT or said in (status, Status.PRESENT)
            if said != status:
                less[status] = less.get(status, 0) + 1
    expired = plan.read(asked[0], NOW + timedelta(days=2))
    assert {status for row in expired.statuses for status in row} == {Status.EXPIRED}
    counts = ", ".join(f"{count} that are {status.name}" for status, count in sorted(less.items()))
    return f"answers equal; Feast calls PRESENT also {counts or 'nothing else'}, and knows no EXPIRED"


def timed(plan: Plan, theirs: Mapping[str, Callable[[Rows], object]], asked: Sequence[Rows]) -> tuple[Arm, ...]:
    """Each arm called with each question, by turns in blocks: ours as a plan answers, Feast's up to its dictionary.

    The floors between them answer nothing: they say how much of the time is the server's and the network's.

    In blocks, as no service calls both: what one leaves in the processor's caches is not of use to the other.
    """
    arms: dict[str, Callable[[Rows], object]] = {"ours": lambda rows: plan.read(rows, NOW), **theirs}
    wall: dict[str, list[float]] = {name: [] for name in arms}
    cpu = dict.fromkeys(arms, 0.0)
    order = list(arms)
    for start in range(0, len(asked), _BLOCK):
        order.append(order.pop(0))  # so that none always comes after the same other
        for name in order:
            arm, seconds, spent = arms[name], wall[name], time.process_time()
            for rows in asked[start : start + _BLOCK]:
                began = time.perf_counter()
                arm(rows)
                seconds.append(time.perf_counter() - began)
            cpu[name] += time.process_time() - spent
    return tuple(Arm(name=name, seconds=median(wall[name]), cpu=cpu[name] / len(asked)) for name in arms)


def reads(folder: Path, url: str, project: str, echo: Callable[[str], None]) -> Iterator[Comparison]:
    """One and twenty entities, in both layouts."""
    chance = random.Random(SEED)
    for number, (layout, views) in enumerate(LAYOUTS.items()):
        name = f"{project}_{number}"
        store = RedisOnlineStore(url, name)
        for each in views:
            frame = table(each, ENTITIES, SEED)
            frame.write_parquet(folder / f"{each.name}.parquet")
            store.publish(each, frame, NOW)
        entities = dict.fromkeys(each.entity_names[0] for each in views)
        feast = Feast(folder, url, name, views, vectors=len(entities) == 1)
        plan = store.plan([(each, tuple(each.schema())) for each in views])
        arms = {"Feast as it comes": feast.as_it_comes, "Feast at its best": feast.at_its_best}
        for count, calls in _CALLS.items():
            asked = [
                [{entity: chance.randrange(ENTITIES) for entity in entities} for _ in range(count)]
                for _ in range(calls)
            ]
            echo(f"{layout}, {count}: {check(feast, plan, arms, asked[:_CHECKED])}")
            floor = Floor(url, name, views)
            measured = timed(plan, {**arms, **floor.arms(asked)}, asked)
            floor.close()
            yield Comparison(subject=f"{layout}, {count} a call", bar=BARS[str(count)], arms=measured)
        if feast.precomputed is not None:
            yield from _vectors(feast, plan, chance)


def _vectors(feast: Feast, plan: Plan, chance: random.Random) -> Iterator[Comparison]:
    """Last, since the vectors lie in the same hashes and make every read of them slower."""
    feast.store.precompute_feature_service("both_precomputed")
    arms = {"Feast from vectors made beforehand": feast.from_vectors}
    for count, calls in _CALLS.items():
        asked = [[{"user": chance.randrange(ENTITIES)} for _ in range(count)] for _ in range(calls)]
        same(plan, arms, asked[:_CHECKED])
        yield Comparison(
            subject=f"two views of one entity, {count} a call, known entities only",
            bar=None,
            arms=timed(plan, arms, asked),
        )


def publishing(folder: Path, url: str, project: str) -> Comparison:
    """One view from its parquet file into Redis, where nothing stands yet; the figures are of one row."""
    spending = view("spending", _USER)
    path = folder / "spending.parquet"
    table(spending, ENTITIES, SEED).write_parquet(path)
    wire = RedisWire(url, _PATIENCE)

    def publish(name: str) -> None:
        RedisOnlineStore(url, name).publish(spending, pl.read_parquet(path), NOW)

    feasts = {
        "Feast": Feast(folder, url, f"{project}_a", [spending], vectors=False),
        "quick": Feast(folder, url, f"{project}_b", [spending], vectors=False, skip_dedup=True),
    }

    def materialize(which: str) -> Callable[[str], None]:
        store = feasts[which].store
        return lambda _: store.materialize(NOW - timedelta(days=1), NOW, feature_views=["spending"])

    def write(which: str) -> Callable[[str], None]:
        store = feasts[which].store
        return lambda _: store.write_to_online_store("spending", pl.read_parquet(path).to_pandas())

    arms: dict[str, tuple[str, Callable[[str], None]]] = {
        "ours": (f"{project}_c", publish),
        "feast materialize": (f"{project}_a", materialize("Feast")),
        "feast materialize, skip_dedup (unsafe)": (f"{project}_b", materialize("quick")),
        "write_to_online_store": (f"{project}_a", write("Feast")),
        "write_to_online_store, skip_dedup (unsafe)": (f"{project}_b", write("quick")),
    }
    wall: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    expected: dict[bytes, dict[bytes, bytes]] | None = None
    for _ in range(_PUBLISHED):
        for name, (where, act) in arms.items():
            forget(wire, where)
            with silence():
                began, spent = time.perf_counter(), time.process_time()
                act(where)
                cpu[name].append(time.process_time() - spent)
                wall[name].append(time.perf_counter() - began)
            stands = contents(wire, where)
            expected = expected or stands
            assert stands == expected, f"{name} left something else in Redis"
    measured = tuple(
        Arm(name=name, seconds=median(wall[name]) / ENTITIES, cpu=median(cpu[name]) / ENTITIES) for name in arms
    )
    return Comparison(subject=f"publish {ENTITIES:,} rows of 15 features, by row", bar=BARS["publish"], arms=measured)


def where(wire: RedisWire) -> str:
    """Where this was measured."""
    said = wire.ask(packed("INFO", "server"), 1)[0].decode()
    redis = next(line.split(":")[1] for line in said.split("\r\n") if line.startswith("redis_version:"))
    return f"{machine(['feast', 'redis', 'hiredis'])}, Redis {redis} on the same machine"


def measure(echo: Callable[[str], None], url: str = URL) -> list[Comparison]:
    """Measure everything on the Redis at ``url``, saying what is found; what was written there is removed.

    Raises:
        StoreUnavailable: there is no Redis.
        AssertionError: ours and Feast's answers differ.
    """
    wire = RedisWire(url, _PATIENCE)
    echo(where(wire))
    project = f"bench_{os.getpid()}"
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for comparison in reads(Path(folder), url, project, echo):
                found.append(comparison)
                for line in comparison.lines():
                    echo(line)
            found.append(publishing(Path(folder), url, f"{project}_p"))
            for line in found[-1].lines():
                echo(line)
        finally:
            for suffix in ("_0", "_1", "_p_a", "_p_b", "_p_c"):
                forget(wire, project + suffix)
    return found


@click.command()
@click.option("--redis", "url", default=URL, show_default=True, help="A Redis to measure on; a database of its own.")
def main(url: str) -> None:
    """Measure the online store on Redis beside Feast."""
    measure(click.echo, url)


if __name__ == "__main__":
    main()
