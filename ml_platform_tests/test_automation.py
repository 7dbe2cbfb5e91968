"""When things happen: the named conditions and the driver of replayed ticks, on a small graph of the real shape."""

import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.automation import conditions as when
from ml_platform.automation import ticks
from ml_platform.automation.freshness import judge, warn_after, with_policies
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.partitions import daily, days_of, last_closed
from ml_platform.automation.runs import CLOCK_TAG, INTERRUPTED_TAG, abandon_runs
from ml_platform.automation.sensors import automation_sensor
from ml_platform.spec import DeclarationError, Project, StateError
from ml_platform.spec.calendar import day_of, day_start, days_between

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

    @dg.asset(key=SERVICE, deps=[EVALUATION], automation_condition=when.after_upstream())
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


DECIDED = Counter([(DECISION, None), (ALARM, None)])
TRAINED = Counter((key, None) for key in CHAIN)


# -- days ---------------------------------------------------------------------------------------------------------


def test_a_new_day_asks_for_the_whole_daily_chain_at_once_and_then_the_decision(replay: Replay) -> None:
    at = day_start(date(2013, 3, 6), NEW_YORK)
    first, _ = ticks.evaluate(replay.definitions, replay.instance, at, None)
    assert Counter(first) == of_day("2013-03-05", DAILY)
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result) == of_day("2013-03-05", DAILY) + DECIDED
    assert [run.partition for run in result.runs] == ["2013-03-05", None]
    assert all(run.succeeded for run in result.runs)


def test_nothing_more_is_asked_for_at_the_same_moment_or_with_a_lost_cursor(replay: Replay) -> None:
    assert replay.midnight_after(BOOTSTRAPPED).requested == []  # right after the bootstrap
    replay.midnight_after(date(2013, 3, 5))
    assert replay.midnight_after(date(2013, 3, 5)).requested == []
    replay.cursor = None
    assert replay.midnight_after(date(2013, 3, 5)).requested == []


def test_after_three_days_down_the_days_are_caught_up_in_order(replay: Replay) -> None:
    days = ["2013-03-05", "2013-03-06", "2013-03-07"]
    # One day an evaluation: the daemon would start the runs of several days at once.
    first, _ = ticks.evaluate(replay.definitions, replay.instance, day_start(date(2013, 3, 8), NEW_YORK), None)
    assert Counter(first) == of_day(days[0], DAILY)
    result = replay.midnight_after(date(2013, 3, 7))
    assert asked(result) == sum((of_day(day, DAILY) for day in days), DECIDED)
    assert [day for name, day in replay.world.made if name == "trips"] == days
    assert [run.partition for run in result.runs] == [*days, None]


def test_days_before_the_last_week_are_left_alone(replay: Replay) -> None:
    result = replay.midnight_after(date(2013, 3, 20))
    assert sorted({day for _, day in result.requested if day}) == [f"2013-03-{day}" for day in range(14, 21)]


def test_a_failed_upstream_blocks_and_is_tried_again_on_the_next_day(replay: Replay) -> None:
    replay.world.failing = {"trips"}
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result) == of_day("2013-03-05", DAILY)
    (failure,) = [failure for run in result.runs for failure in run.failures]
    assert failure.step == "raw__trips"
    assert "meant to fail" in failure.message
    assert replay.world.made == []
    assert replay.midnight_after(date(2013, 3, 5)).requested == []

    replay.world.failing = set()
    result = replay.midnight_after(date(2013, 3, 6))
    assert asked(result) == of_day("2013-03-05", DAILY) + of_day("2013-03-06", DAILY) + DECIDED
    assert replay.world.made[0] == ("trips", "2013-03-05")


def test_a_failed_day_does_not_hold_up_the_next(replay: Replay) -> None:
    replay.world.failing = {"trips 2013-03-05"}
    replay.midnight_after(date(2013, 3, 5))
    result = replay.midnight_after(date(2013, 3, 6))
    assert ("batch", "2013-03-06") in replay.world.made
    assert Counter(result.requested)[RAW, "2013-03-05"] == 1


def test_what_failed_in_the_middle_is_made_again_when_its_upstream_is_repaired_by_hand(replay: Replay) -> None:
    replay.world.failing = {"delays"}
    replay.midnight_after(date(2013, 3, 5))
    replay.world.failing = set()
    at = day_start(date(2013, 3, 6), NEW_YORK) + timedelta(hours=2)
    ticks.materialize(replay.definitions, replay.instance, [RAW], at=at, day="2013-03-05")
    result = replay.tick(at + timedelta(minutes=1))
    assert asked(result) == of_day("2013-03-05", [FEATURES, PERFORMANCE, BATCH]) + DECIDED


def test_a_failed_blocking_check_blocks_its_day_and_a_good_day_does_not_clear_it(replay: Replay) -> None:
    replay.world.bad_days = {"2013-03-05"}
    replay.midnight_after(date(2013, 3, 5))
    assert [name for name, _ in replay.world.made] == ["trips"]
    replay.midnight_after(date(2013, 3, 6))
    assert ("delays", "2013-03-06") in replay.world.made
    assert ("delays", "2013-03-05") not in replay.world.made
    replay.midnight_after(date(2013, 3, 7))
    assert ("delays", "2013-03-05") not in replay.world.made
    # Repaired by hand, the day goes on by itself.
    replay.world.bad_days = set()
    at = day_start(date(2013, 3, 8), NEW_YORK) + timedelta(hours=2)
    ticks.materialize(replay.definitions, replay.instance, [RAW], at=at, day="2013-03-05")
    assert asked(replay.tick(at)) == of_day("2013-03-05", [FEATURES, PERFORMANCE, BATCH]) + DECIDED


def test_a_correction_travels_down_its_day(replay: Replay) -> None:
    replay.midnight_after(date(2013, 3, 5))
    at = day_start(date(2013, 3, 6), NEW_YORK) + timedelta(hours=2)
    ticks.materialize(replay.definitions, replay.instance, [RAW], at=at, day="2013-03-03")
    result = replay.tick(at)
    assert asked(result) == of_day("2013-03-03", [FEATURES, PERFORMANCE, BATCH]) + DECIDED
    assert replay.tick(at).requested == []


def test_a_daily_asset_that_looks_back_follows_the_days_it_looks_at(tmp_path: Path) -> None:
    days = daily(PROJECT)
    back = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)

    @dg.asset(partitions_def=days, automation_condition=when.each_day())
    def source() -> None: ...

    looked_at = [dg.AssetDep(source, partition_mapping=back)]

    @dg.asset(partitions_def=days, deps=looked_at, automation_condition=when.each_day())
    def window() -> None: ...

    definitions = dg.Definitions(assets=[source, window])
    write_dagster_yaml(tmp_path, replayed=True)
    with open_instance(tmp_path) as instance:
        at = day_start(date(2013, 1, 4), NEW_YORK)
        first = ticks.tick(definitions, instance, at, None)
        assert Counter(first.requested) == Counter(
            (dg.AssetKey(name), f"2013-01-0{day}") for name in ("source", "window") for day in (1, 2, 3)
        )
        ticks.materialize(definitions, instance, [source.key], at=at, day="2013-01-01")
        again = ticks.tick(definitions, instance, at, first.cursor)
        assert again.requested == [(window.key, "2013-01-01"), (window.key, "2013-01-02")]


def test_a_wiped_asset_counts_as_never_made(replay: Replay) -> None:
    replay.instance.wipe_assets([BATCH])
    result = replay.midnight_after(BOOTSTRAPPED)
    assert asked(result) == Counter((BATCH, f"{day}") for day in days_between(date(2013, 2, 26), BOOTSTRAPPED))
    assert replay.midnight_after(BOOTSTRAPPED).requested == []


# -- alarm --------------------------------------------------------------------------------------------------------


def test_an_alarm_travels_to_the_service_exactly_once(replay: Replay) -> None:
    replay.world.alarm = True
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result) == of_day("2013-03-05", DAILY) + DECIDED + TRAINED
    order = [name for name, _ in replay.world.made if name in {"training_set", "model", "evaluation", "service"}]
    assert order == ["training_set", "model", "evaluation", "service"]
    replay.world.alarm = False
    assert asked(replay.midnight_after(date(2013, 3, 6))) == of_day("2013-03-06", DAILY) + DECIDED


def test_without_an_alarm_features_and_decisions_train_nothing(replay: Replay) -> None:
    for day in (date(2013, 3, 5), date(2013, 3, 6)):
        assert not {key for key, _ in replay.midnight_after(day).requested} & set(CHAIN)


def test_an_alarm_during_the_training_it_is_aimed_at_is_not_lost(replay: Replay) -> None:
    replay.world.alarm = True
    replay.world.during_training = [dg.AssetMaterialization(ALARM)]
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result) == of_day("2013-03-05", DAILY) + DECIDED + TRAINED + TRAINED


def test_an_alarm_right_after_a_request_is_not_lost(replay: Replay) -> None:
    """Edge-triggered conditions lose it: it lands on the tick that still sees the target as newly requested."""
    replay.instance.report_runless_asset_event(dg.AssetMaterialization(ALARM))
    at = datetime(2013, 3, 5, 10, tzinfo=UTC)
    wanted, cursor = ticks.evaluate(replay.definitions, replay.instance, at, None)
    assert Counter(wanted) == TRAINED
    ticks.materialize(replay.definitions, replay.instance, CHAIN, at=at)
    replay.instance.report_runless_asset_event(dg.AssetMaterialization(ALARM))
    wanted, cursor = ticks.evaluate(replay.definitions, replay.instance, at + timedelta(seconds=5), cursor)
    assert Counter(wanted) == TRAINED
    ticks.materialize(replay.definitions, replay.instance, CHAIN, at=at)
    wanted, _ = ticks.evaluate(replay.definitions, replay.instance, at + timedelta(seconds=10), cursor)
    assert wanted == []


def test_a_failed_training_is_tried_again_by_the_next_alarm_and_the_next_day(replay: Replay) -> None:
    replay.world.alarm, replay.world.failing = True, {"model"}
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result)[TRAINING, None] == 1
    assert replay.midnight_after(date(2013, 3, 5)).requested == []
    replay.world.alarm, replay.world.failing = False, set()
    result = replay.midnight_after(date(2013, 3, 6))
    # The training set had succeeded; the model and what follows it are made from it.
    assert asked(result) == of_day("2013-03-06", DAILY) + DECIDED + TRAINED - Counter([(TRAINING, None)])


def test_a_new_code_version_trains_once(replay: Replay) -> None:
    replay.definitions = graph(replay.world, code_version="2")
    at = datetime(2013, 3, 5, 10, tzinfo=UTC)
    assert asked(replay.tick(at)) == TRAINED
    assert replay.tick(at).requested == []


# -- interruption -------------------------------------------------------------------------------------------------


def test_what_ctrl_c_cut_off_is_asked_for_again(replay: Replay) -> None:
    make = replay.world.make

    def interrupt(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        if context.asset_key == FEATURES:
            raise KeyboardInterrupt
        return make(context)

    replay.world.make = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        replay.midnight_after(date(2013, 3, 5))
    replay.world.make = make  # type: ignore[method-assign]
    abandon_runs(replay.instance)
    result = replay.midnight_after(date(2013, 3, 5))
    assert asked(result) == of_day("2013-03-05", [FEATURES, PERFORMANCE, BATCH]) + DECIDED


KILLED = """
    import os, sys
    from datetime import datetime
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import test_automation as t
    world = t.World()
    make = world.make
    world.make = lambda context: os._exit(9) if context.asset_key == t.FEATURES else make(context)
    with t.open_instance(Path(sys.argv[2])) as instance:
        t.ticks.tick(t.graph(world), instance, datetime.fromisoformat(sys.argv[3]), None)
"""


def test_what_a_kill_cut_off_is_asked_for_again(replay: Replay) -> None:
    at = day_start(date(2013, 3, 6), NEW_YORK)
    home = replay.instance.root_directory
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(Path(__file__).parent), home]
    assert subprocess.run([*script, at.isoformat()], check=False).returncode == 9
    # The run still counts as going on: nothing is asked for twice while a driver may be working on it.
    assert ticks.evaluate(replay.definitions, replay.instance, at, None)[0] == []
    (left,) = abandon_runs(replay.instance)
    run = replay.instance.get_run_by_id(left)
    assert run is not None
    assert run.tags[INTERRUPTED_TAG] == "true"
    assert run.status is dg.DagsterRunStatus.CANCELED
    assert asked(replay.tick(at)) == of_day("2013-03-05", [FEATURES, PERFORMANCE, BATCH]) + DECIDED
    assert abandon_runs(replay.instance) == []


def test_conditions_that_never_rest_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks, "MOST_EVALUATIONS", 3)

    @dg.asset(automation_condition=~dg.AutomationCondition.in_progress())
    def restless() -> None: ...

    write_dagster_yaml(tmp_path, replayed=True)
    with open_instance(tmp_path) as instance, pytest.raises(StateError, match=r"3 evaluations at .* for restless"):
        ticks.tick(dg.Definitions(assets=[restless]), instance, datetime(2013, 1, 1, tzinfo=UTC), None)


# -- freshness ----------------------------------------------------------------------------------------------------


def verdict(replay: Replay, key: dg.AssetKey) -> str:
    return replay.instance.get_freshness_state_records([key])[key].freshness_state.value


def test_a_freshness_verdict_at_the_replays_moment_asks_for_one_attempt(replay: Replay) -> None:
    replay.definitions = graph(replay.world, reference_hours=60)
    # Made on 5 March 09:00 UTC, to be at most 60 hours old: it warns from 7 March 06:00 UTC on.
    assert (REFERENCE, None) not in asked(replay.midnight_after(date(2013, 3, 5)))
    assert verdict(replay, REFERENCE) == "PASS"
    assert (REFERENCE, None) not in asked(replay.midnight_after(date(2013, 3, 6)))
    assert asked(replay.tick(datetime(2013, 3, 7, 6, tzinfo=UTC))) == Counter([(REFERENCE, None)])
    assert verdict(replay, REFERENCE) == "PASS"
    assert replay.tick(datetime(2013, 3, 7, 7, tzinfo=UTC)).requested == []


def test_a_verdict_that_stays_failed_does_not_loop(replay: Replay) -> None:
    replay.definitions = graph(replay.world, reference_hours=60)
    replay.world.failing = {"ref"}
    warned = datetime(2013, 3, 7, 6, tzinfo=UTC)
    assert asked(replay.tick(warned))[REFERENCE, None] == 1
    assert verdict(replay, REFERENCE) == "WARN"
    assert replay.tick(warned + timedelta(hours=2)).requested == []
    failed = datetime(2013, 3, 7, 21, tzinfo=UTC)
    assert asked(replay.tick(failed))[REFERENCE, None] == 1
    assert verdict(replay, REFERENCE) == "FAIL"
    assert (REFERENCE, None) not in asked(replay.tick(failed + timedelta(hours=1)))


def test_a_daily_asset_that_keeps_up_never_warns(replay: Replay) -> None:
    for day in (5, 6, 7):
        replay.midnight_after(date(2013, 3, day))
        assert verdict(replay, RAW) == "PASS"


def test_a_stale_daily_asset_makes_its_last_day_again_and_what_follows(replay: Replay) -> None:
    replay.midnight_after(date(2013, 3, 5))
    late = day_start(date(2013, 3, 6), NEW_YORK) + timedelta(hours=23, minutes=30)
    assert replay.tick(late).requested == []
    # The 26 hours pass while the next day has not been asked for: here, in a project whose data end.
    stale = day_start(date(2013, 3, 6), NEW_YORK) + timedelta(hours=27)
    replay.definitions = graph(replay.world, clock_at=late)
    result = replay.tick(stale)
    assert asked(result)[RAW, "2013-03-05"] == 1
    assert asked(result)[BATCH, "2013-03-05"] == 1
    assert replay.tick(stale).requested == []


def test_a_run_by_hand_is_dated_to_the_first_judgement_after_it(replay: Replay) -> None:
    job = replay.definitions.resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(asset_selection=[REFERENCE], instance=replay.instance)
    at = datetime(2013, 3, 8, tzinfo=UTC)
    assert judge(replay.definitions, replay.instance, at) == [RAW]
    assert verdict(replay, REFERENCE) == "PASS"
    record = replay.instance.get_run_by_id(run.run_id)
    assert record is not None
    assert record.tags[CLOCK_TAG] == at.isoformat()


def test_policies_go_to_assets_with_a_deadline_but_never_to_skippable_ones() -> None:
    specs = [
        dg.AssetSpec("a", metadata={"fresh_within_hours": 26}),
        dg.AssetSpec("b", skippable=True, metadata={"fresh_within_hours": 26}),
        dg.AssetSpec("c"),
    ]

    @dg.multi_asset(specs=specs)
    def all_of_them() -> Iterator[dg.MaterializeResult]:
        yield dg.MaterializeResult(asset_key="a")

    nodes = with_policies(dg.Definitions(assets=[all_of_them])).resolve_asset_graph()
    assert nodes.get(dg.AssetKey("a")).freshness_policy == dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=26), warn_window=timedelta(hours=25, minutes=30)
    )
    assert nodes.get(dg.AssetKey("b")).freshness_policy is None
    assert nodes.get(dg.AssetKey("c")).freshness_policy is None


@given(st.timedeltas(min_value=timedelta(minutes=2), max_value=timedelta(days=400)))
def test_a_warning_comes_before_the_failure_and_not_within_a_day_that_is_allowed(deadline: timedelta) -> None:
    warns = warn_after(deadline)
    assert deadline * 0.75 <= warns < deadline
    assert deadline <= timedelta(hours=25, minutes=30) or warns >= timedelta(hours=25, minutes=30)


# -- the calendar -------------------------------------------------------------------------------------------------


def test_no_day_exists_beyond_the_replays_clock(replay: Replay) -> None:
    clock = day_start(date(2013, 3, 7), NEW_YORK) + timedelta(hours=5)
    definition = daily(PROJECT, clock)
    assert definition.get_last_partition_key() == "2013-03-06"  # evaluated by the wall clock, as UI and daemon do
    bounded = graph(replay.world, clock_at=clock)
    wanted, _ = ticks.evaluate(bounded, replay.instance, datetime.now(UTC), None)
    while wanted:
        assert max(day for _, day in wanted if day) <= "2013-03-06"
        for key, day in wanted:
            ticks.materialize(bounded, replay.instance, [key], at=clock, day=day)
        wanted, _ = ticks.evaluate(bounded, replay.instance, datetime.now(UTC), None)
        wanted = [(key, day) for key, day in wanted if day]


def test_days_of_a_project_and_of_its_replay() -> None:
    assert daily(PROJECT).get_last_partition_key() == "2013-12-31"
    assert daily(PROJECT).get_first_partition_key() == "2013-01-01"
    assert daily(PROJECT, datetime(2015, 1, 1, tzinfo=UTC)).get_last_partition_key() == "2013-12-31"
    assert daily(PROJECT, datetime(2013, 1, 1, 12, tzinfo=UTC)).get_partition_keys() == []
    live = Project(**{**PROJECT.__dict__, "ends": None})
    yesterday = day_of(datetime.now(UTC), NEW_YORK) - timedelta(days=1)
    assert daily(live).get_last_partition_key() == yesterday.isoformat()
    with pytest.raises(DeclarationError, match="not days"):
        last_closed(dg.StaticPartitionsDefinition(["a"]), datetime.now(UTC), 7)


@pytest.mark.parametrize(("day", "hours"), [(date(2013, 3, 10), 23), (date(2013, 11, 3), 25), (date(2013, 7, 1), 24)])
def test_a_day_with_a_clock_change_closes_at_its_own_midnight(day: date, hours: int) -> None:
    start, end = day_start(day, NEW_YORK), day_start(day + timedelta(days=1), NEW_YORK)
    assert end - start == timedelta(hours=hours)
    week = [found.isoformat() for found in days_between(day - timedelta(days=6), day)]
    assert last_closed(daily(PROJECT), end, 7) == week
    assert last_closed(daily(PROJECT), end - timedelta(seconds=1), 7)[-1] == week[-2]
    assert day_of(start, NEW_YORK) == day_of(end - timedelta(microseconds=1), NEW_YORK) == day


@pytest.mark.parametrize("changed", [date(2013, 3, 10), date(2013, 11, 3)])
def test_ticks_over_a_clock_change_ask_for_each_day_once(replay: Replay, changed: date) -> None:
    replay.midnight_after(changed - timedelta(days=2))
    for offset in (-1, 0, 1):
        day = changed + timedelta(days=offset)
        result = replay.midnight_after(day)
        assert asked(result) == of_day(day.isoformat(), DAILY) + DECIDED
        assert verdict(replay, RAW) == "PASS"


def test_the_last_partition_inside_a_run_is_the_replays(replay: Replay) -> None:
    replay.instance.report_runless_asset_event(dg.AssetMaterialization(ALARM))
    replay.tick(datetime(2013, 3, 5, 10, tzinfo=UTC))
    assert replay.world.last_seen == "2013-03-04"


def test_a_bootstrap_is_one_run_for_all_days_and_keeps_the_graphs_order(tmp_path: Path) -> None:
    write_dagster_yaml(tmp_path, replayed=True)
    world = World()
    definitions = graph(world)
    with open_instance(tmp_path) as instance:
        keys = definitions.resolve_asset_graph().toposorted_asset_keys
        seen: list[ticks.RunReport] = []
        at = datetime(2013, 3, 5, 9, tzinfo=UTC)
        ticks.materialize_range(definitions, instance, keys, date(2013, 2, 26), BOOTSTRAPPED, at=at, on_run=seen.append)
        groups = [(run.partition, set(run.keys)) for run in seen]
        days = "2013-02-26..2013-03-04"
        # The training set stands behind the alarm, which is skipped without being raised: in one run it would be, too.
        assert groups == [
            (None, {REFERENCE}), (days, {RAW, FEATURES, PERFORMANCE}), (None, {DECISION, ALARM}),
            (None, set(CHAIN)), (days, {BATCH}),
        ]  # fmt: skip
        made = {day.isoformat() for day in days_between(date(2013, 2, 26), BOOTSTRAPPED)}
        assert instance.get_materialized_partitions(BATCH) == made
        world.failing = {"delays"}
        runs = ticks.materialize_range(definitions, instance, keys, date(2013, 2, 26), BOOTSTRAPPED, at=at)
        assert [run.succeeded for run in runs] == [True, False]


# -- settings -----------------------------------------------------------------------------------------------------


def test_settings_of_replayed_and_live_state(tmp_path: Path) -> None:
    path = write_dagster_yaml(tmp_path, replayed=True)
    before = path.stat().st_mtime_ns
    assert write_dagster_yaml(tmp_path, replayed=True).stat().st_mtime_ns == before
    with open_instance(tmp_path) as instance:
        assert not instance.freshness_enabled
        assert not instance.telemetry_enabled
    write_dagster_yaml(tmp_path, replayed=False)
    with open_instance(tmp_path) as instance:
        assert instance.freshness_enabled


def test_settings_of_production(tmp_path: Path) -> None:
    path = write_dagster_yaml(tmp_path, replayed=False, postgres_url="postgresql://u:p@db:5432/dagster", s3_bucket="b")
    settings = yaml.safe_load(path.read_text())
    assert settings["storage"]["postgres"]["postgres_url"] == "postgresql+psycopg2://u:p@db:5432/dagster"
    ref = InstanceRef.from_dir(str(tmp_path))
    assert ref.compute_logs_data.class_name == "S3ComputeLogManager"
    assert ref.event_storage_data.class_name == "PostgresEventLogStorage"
