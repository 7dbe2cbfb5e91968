"""A small graph of the real shape, its state, and what a tick asks for."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation import conditions as when
from ml_platform.automation import ticks
from ml_platform.automation.freshness import with_policies
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.partitions import daily, days_of
from ml_platform.automation.sensors import automation_sensor
from ml_platform.spec import Project
from ml_platform.spec.calendar import day_start

NEW_YORK = "America/New_York"
PROJECT = Project(
    name="small", features="feature_defs", timezone=NEW_YORK, starts=date(2013, 1, 1), ready_from=date(2013, 1, 2),
    serves_from=date(2013, 3, 5), replay_until=date(2013, 3, 20), ends=date(2013, 12, 31),
)  # fmt: skip

RAW, FEATURES, REFERENCE = (
    dg.AssetKey(["raw", "trips"]),
    dg.AssetKey(["features", "delays"]),
    dg.AssetKey(["raw", "ref"]),
)
PERFORMANCE, DECISION, ALARM = (dg.AssetKey(path) for path in (["performance"], ["decision"], ["alarm"]))
TRAINING, MODEL, EVALUATION, SERVICE = (dg.AssetKey(n) for n in ("training_set", "model", "evaluation", "service"))
BATCH = dg.AssetKey("batch")
DAILY = [RAW, FEATURES, PERFORMANCE, BATCH]
CHAIN = [TRAINING, MODEL, EVALUATION, SERVICE]


@dataclass
class World:
    """What the small graph's assets do when they are run, and what they were run for."""

    alarm: bool = False
    failing: set[str] = field(default_factory=set)
    bad_days: set[str] = field(default_factory=set)
    during_training: list[dg.AssetMaterialization] = field(default_factory=list)
    made: list[tuple[str, str | None]] = field(default_factory=list)
    last_seen: str | None = None

    def make(self, context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        name = context.asset_key.path[-1]
        days = (
            [day.isoformat() for day in days_of(context)]
            if context.has_partition_key or context.has_partition_key_range
            else [None]
        )
        if name in self.failing or self.failing & {f"{name} {day}" for day in days}:
            raise RuntimeError(f"{name} is meant to fail")
        self.made += [(name, day) for day in days]
        return dg.MaterializeResult()


def graph(
    world: World, *, clock_at: datetime | None = None, code_version: str = "1", reference_hours: int = 9999
) -> dg.Definitions:
    """raw + reference -> features -> performance -> decision/alarm -> training set -> ... -> service -> batch."""
    days = daily(PROJECT, clock_at)
    newest = dg.LastPartitionMapping()

    @dg.asset(key=REFERENCE, automation_condition=when.each_day(), metadata={"fresh_within_hours": reference_hours})
    def reference(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    @dg.asset(key=RAW, partitions_def=days, automation_condition=when.each_day(), metadata={"fresh_within_hours": 26})
    def raw(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    @dg.asset_check(asset=RAW, blocking=True)
    def contract(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        if "contract" in world.failing:
            raise RuntimeError("contract is meant to fail")
        return dg.AssetCheckResult(passed=context.run.tags.get("dagster/partition") not in world.bad_days)

    @dg.asset(key=FEATURES, partitions_def=days, deps=[RAW, REFERENCE], automation_condition=when.each_day())
    def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    @dg.asset(key=PERFORMANCE, partitions_def=days, deps=[FEATURES], automation_condition=when.each_day())
    def performance(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    follow = {"deps": [dg.AssetDep(PERFORMANCE, partition_mapping=newest)], "automation_condition": when.follows_days()}

    @dg.multi_asset(specs=[dg.AssetSpec(DECISION, **follow), dg.AssetSpec(ALARM, skippable=True, **follow)])
    def decide(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        if "decision" in world.failing:
            raise RuntimeError("decision is meant to fail")
        world.made.append(("decision", None))
        yield dg.MaterializeResult(asset_key=DECISION)
        if world.alarm:
            yield dg.MaterializeResult(asset_key=ALARM)

    table = dg.AssetDep(FEATURES, partition_mapping=newest)

    @dg.asset(key=TRAINING, deps=[table, ALARM], automation_condition=when.on_alarm(ALARM), code_version=code_version)
    def training_set(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        world.last_seen = days.get_last_partition_key()
        for event in world.during_training:
            context.instance.report_runless_asset_event(event)
        world.during_training.clear()
        return world.make(context)

    @dg.asset(key=MODEL, deps=[TRAINING, table], automation_condition=when.after_upstream())
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    @dg.asset(key=EVALUATION, deps=[MODEL, TRAINING], automation_condition=when.after_upstream())
    def evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    look = dg.AssetDep(PERFORMANCE, partition_mapping=newest)

    @dg.asset(key=SERVICE, deps=[EVALUATION, look], automation_condition=when.after_anything())
    def service(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    @dg.asset(key=BATCH, partitions_def=days, deps=[SERVICE, FEATURES], automation_condition=when.each_day())
    def batch(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return world.make(context)

    assets = [reference, raw, features, performance, decide, training_set, model, evaluation, service, batch]
    return with_policies(dg.Definitions(assets=assets, asset_checks=[contract], sensors=[automation_sensor()]))


BOOTSTRAPPED = date(2013, 3, 4)


@dataclass
class Replay:
    """A bootstrapped small graph and its clock."""

    world: World
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    cursor: str | None = None

    def midnight_after(self, day: date) -> ticks.TickResult:
        """The tick just after the day has closed."""
        return self.tick(day_start(day + timedelta(days=1), NEW_YORK) + timedelta(minutes=1))

    def tick(self, at: datetime) -> ticks.TickResult:
        self.world.made.clear()
        result = ticks.tick(self.definitions, self.instance, at, self.cursor)
        self.cursor = result.cursor
        return result


@pytest.fixture(scope="module")
def bootstrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bootstrapped")
    write_dagster_yaml(home, replayed=True)
    definitions = graph(World())
    with open_instance(home) as instance:
        keys = definitions.resolve_asset_graph().toposorted_asset_keys
        at = datetime(2013, 3, 5, 9, tzinfo=UTC)
        runs = ticks.materialize_range(definitions, instance, keys, date(2013, 2, 26), BOOTSTRAPPED, at=at)
        assert [run.failures for run in runs if not run.succeeded] == []
    return home


@pytest.fixture
def replay(bootstrapped: Path, tmp_path: Path) -> Iterator[Replay]:
    home = tmp_path / "dagster"
    shutil.copytree(bootstrapped, home)
    write_dagster_yaml(home, replayed=True)
    world = World()
    with open_instance(home) as instance:
        yield Replay(world, graph(world), instance)


def asked(result: ticks.TickResult) -> Counter[tuple[dg.AssetKey, str | None]]:
    return Counter(result.requested)


def of_day(day: str, keys: list[dg.AssetKey]) -> Counter[tuple[dg.AssetKey, str | None]]:
    return Counter((key, day) for key in keys)


# What follows a new day, once: the decision, its alarm, and the look at what the service serves.
DECIDED = Counter([(DECISION, None), (ALARM, None), (SERVICE, None)])
TRAINED = Counter((key, None) for key in CHAIN)
