"""When things happen: the named conditions and the driver of replayed ticks, on a small graph of the real shape."""

import subprocess
import sys
import textwrap
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation import conditions as when
from ml_platform.automation import ticks
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.partitions import daily
from ml_platform.automation.runs import INTERRUPTED_TAG, abandon_runs
from ml_platform.spec import StateError
from ml_platform.spec.calendar import day_start, days_between
from ml_platform_tests.automation_world import (
    ALARM,
    BATCH,
    BOOTSTRAPPED,
    CHAIN,
    DAILY,
    DECIDED,
    FEATURES,
    NEW_YORK,
    PERFORMANCE,
    PROJECT,
    RAW,
    SERVICE,
    TRAINED,
    TRAINING,
    Replay,
    asked,
    graph,
    of_day,
)

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
    assert order == ["service", "training_set", "model", "evaluation", "service"]  # first the day's look
    replay.world.alarm = False
    assert asked(replay.midnight_after(date(2013, 3, 6))) == of_day("2013-03-06", DAILY) + DECIDED


def test_without_an_alarm_features_and_decisions_train_nothing(replay: Replay) -> None:
    for day in (date(2013, 3, 5), date(2013, 3, 6)):
        assert not {key for key, _ in replay.midnight_after(day).requested} & set(CHAIN) - {SERVICE}


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
    # The day's look at the service waits for it.
    made_before = Counter([(TRAINING, None), (SERVICE, None)])
    assert asked(result) == of_day("2013-03-06", DAILY) + DECIDED + TRAINED - made_before


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
    import automation_world as t
    from ml_platform.automation import ticks
    from ml_platform.automation.instance import open_instance
    world = t.World()
    make = world.make
    world.make = lambda context: os._exit(9) if context.asset_key == t.FEATURES else make(context)
    with open_instance(Path(sys.argv[2])) as instance:
        ticks.tick(t.graph(world), instance, datetime.fromisoformat(sys.argv[3]), None)
"""


KILLED_AT_AN_EVENT = """
    import os, sys
    from datetime import datetime
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import automation_world as t
    from ml_platform.automation import ticks
    from ml_platform.automation.instance import open_instance
    with open_instance(Path(sys.argv[2])) as instance:
        note = instance.handle_new_event
        def ends(event, **options):
            if event.is_dagster_event and event.dagster_event.event_type_value == sys.argv[4]:
                os._exit(9)
            note(event, **options)
        instance.handle_new_event = ends
        ticks.tick(t.graph(t.World()), instance, datetime.fromisoformat(sys.argv[3]), None)
"""


# Between what a run plans, which counts as tried, and its beginning; between a table and the verdict on it.
@pytest.mark.parametrize("dies_at", ["PIPELINE_START", "ASSET_CHECK_EVALUATION"])
def test_what_was_planned_and_not_judged_is_asked_for(replay: Replay, dies_at: str) -> None:
    at = day_start(date(2013, 3, 6), NEW_YORK)
    code, home = textwrap.dedent(KILLED_AT_AN_EVENT), replay.instance.root_directory
    script = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), home, at.isoformat(), dies_at]
    assert subprocess.run(script, check=False).returncode == 9
    (left,) = abandon_runs(replay.instance)
    run = replay.instance.get_run_by_id(left)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
    assert asked(replay.tick(at)) == of_day("2013-03-05", DAILY) + DECIDED


def test_a_check_that_fails_to_run_is_no_pass_and_is_tried_again_the_next_day(replay: Replay) -> None:
    replay.world.failing.add("contract")
    replay.midnight_after(date(2013, 3, 5))
    replay.world.failing.clear()
    assert [day for name, day in replay.world.made if name == "delays" and day == "2013-03-05"] == []
    at = day_start(date(2013, 3, 6), NEW_YORK)
    assert replay.tick(at + timedelta(hours=2)).requested == []  # nothing twice on the same day
    result = replay.midnight_after(date(2013, 3, 6))
    assert asked(result) == of_day("2013-03-05", DAILY) + of_day("2013-03-06", DAILY) + DECIDED
    assert [run.failures for run in result.runs if run.failures] == []


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
