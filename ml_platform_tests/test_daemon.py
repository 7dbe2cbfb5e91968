"""A real Dagster daemon on live, today-dated data asks for what the driver of replayed ticks asks for."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.test_utils import freeze_time

from ml_platform.automation import ticks
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.runs import CLOCK_TAG

SECONDS = 150  # a run is a process of its own, and loading Dagster takes seconds on a busy machine
SMALL = """
    import sys
    from datetime import date
    from pathlib import Path

    import dagster as dg
    from ml_platform.automation import conditions as when
    from ml_platform.automation.freshness import with_policies
    from ml_platform.automation.partitions import daily, days_of
    from ml_platform.automation.sensors import automation_sensor
    from ml_platform.spec import Project

    first, timezone = (Path(__file__).parent / "days").read_text().split()
    starts = date.fromisoformat(first)
    days = daily(Project(name="live", features="f", timezone=timezone, starts=starts, ready_from=starts,
                         serves_from=starts, replay_until=starts))
    last = dg.LastPartitionMapping()

    @dg.asset(automation_condition=when.each_day(), metadata={"fresh_within_hours": 1})
    def reference(): ...

    @dg.asset(partitions_def=days, automation_condition=when.each_day())
    def raw(context):
        assert len(days_of(context)) == 1

    @dg.asset_check(asset=raw, blocking=True)
    def contract():
        return dg.AssetCheckResult(passed=True)

    @dg.asset(partitions_def=days, deps=[raw, reference], automation_condition=when.each_day())
    def features(): ...

    follow = {"deps": [dg.AssetDep(features, partition_mapping=last)], "automation_condition": when.follows_days()}

    @dg.multi_asset(specs=[dg.AssetSpec("decision", **follow), dg.AssetSpec("alarm", skippable=True, **follow)])
    def decide(context):
        yield dg.MaterializeResult(asset_key="decision")
        if context.instance.get_latest_materialization_event(dg.AssetKey("training_set")) is None:
            yield dg.MaterializeResult(asset_key="alarm")

    table = dg.AssetDep(features, partition_mapping=last)

    @dg.asset(deps=["alarm", table], automation_condition=when.on_alarm(dg.AssetKey("alarm")))
    def training_set(): ...

    @dg.asset(deps=[training_set, table], automation_condition=when.after_upstream())
    def model(): ...

    @dg.asset(deps=[model], automation_condition=when.after_upstream())
    def service(): ...

    defs = with_policies(dg.Definitions(
        assets=[reference, raw, features, decide, training_set, model, service], asset_checks=[contract],
        sensors=[automation_sensor()], executor=dg.in_process_executor,
    ))
"""


def noon_zone(now: datetime) -> str:
    """A timezone in which it is about noon, so that no day closes during the test."""
    ahead = 12 - now.hour
    return f"Etc/GMT{'-' if ahead >= 0 else '+'}{abs(ahead)}"


def load(path: Path) -> ModuleType:
    """The definitions file as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("live_small", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def daemon(home: Path, definitions: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster-daemon run` as a process group of its own, stopped by its id."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-f", str(definitions)]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "FRESHNESS_DAEMON_INTERVAL_SECONDS": "2"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=home, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def asked_for(instance: dg.DagsterInstance) -> Counter[tuple[dg.AssetKey, str | None]]:
    """What the runs of the daemon (they carry no replayed moment) were to make."""
    return Counter(
        (key, run.tags.get("dagster/partition"))
        for run in instance.get_runs()
        if CLOCK_TAG not in run.tags
        for key in run.asset_selection or ()
    )


def at_rest(instance: dg.DagsterInstance) -> bool:
    """Whether all runs have ended."""
    return all(run.is_finished for run in instance.get_runs())


def quiet_ticks(instance: dg.DagsterInstance) -> int:
    """How many evaluations in a row, up to now, asked for nothing."""
    states = [state for state in instance.all_instigator_state() if state.instigator_data]
    ran = [tick for state in states for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)]
    ran.sort(key=lambda tick: -tick.timestamp)
    done = [tick for tick in ran if tick.is_completed]
    assert not [tick.error for tick in ran if tick.is_failure]
    return next((at for at, tick in enumerate(done) if tick.run_ids), len(done))


def test_the_daemon_asks_for_what_the_replays_driver_asks_for(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    module = tmp_path / "small.py"
    module.write_text(textwrap.dedent(SMALL))
    yesterday = (now + timedelta(hours=12 - now.hour) - timedelta(days=1)).date()
    (tmp_path / "days").write_text(f"{yesterday} {noon_zone(now)}")
    definitions = load(module).defs
    reference = dg.AssetKey("reference")

    # The reference table was made two hours ago and may be one hour old: nothing but its freshness asks for it.
    driven, live = tmp_path / "driven", tmp_path / "live"
    write_dagster_yaml(driven, replayed=True)
    with open_instance(driven) as instance, freeze_time(now - timedelta(hours=2)):
        assert ticks.materialize(definitions, instance, [reference], at=now - timedelta(hours=2)).succeeded
    shutil.copytree(driven, live)
    write_dagster_yaml(driven, replayed=True)
    write_dagster_yaml(live, replayed=False)

    with open_instance(driven) as instance:
        wanted = Counter(ticks.tick(definitions, instance, now, None).requested)
    day = yesterday.isoformat()
    names = [("reference", None), ("raw", day), ("features", day)]
    names += [(name, None) for name in ("decision", "alarm", "training_set", "model", "service")]
    assert wanted == Counter((dg.AssetKey(name), partition) for name, partition in names)

    log = tmp_path / "daemon.log"
    with open_instance(live) as instance, daemon(live, module, log) as process:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            assert process.poll() is None, log.read_text()[-4000:]
            if asked_for(instance) >= wanted and at_rest(instance) and quiet_ticks(instance) >= 2:
                break
            time.sleep(0.5)
        assert asked_for(instance) == wanted, log.read_text()[-4000:]
        assert all(run.is_success for run in instance.get_runs())
        states = instance.get_freshness_state_records([reference])
        assert states[reference].freshness_state is FreshnessState.PASS
