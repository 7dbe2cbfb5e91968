"""Under a real daemon, too: what reads a refused column waits, the rest goes on, and after the mend it is made."""

import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation import ticks
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform_tests.test_daemon import SECONDS, at_rest, daemon, load, noon_zone

SMALL = """
    from datetime import date
    from pathlib import Path

    import dagster as dg
    from ml_platform.automation import conditions as when
    from ml_platform.automation.gates import REFUSED, reads
    from ml_platform.automation.partitions import daily
    from ml_platform.automation.sensors import automation_sensor
    from ml_platform.spec import Project

    here = Path(__file__).parent
    first, timezone = (here / "days").read_text().split()
    starts = date.fromisoformat(first)
    days = daily(Project(name="live", features="f", timezone=timezone, starts=starts, ready_from=starts,
                         serves_from=starts, replay_until=starts))
    RAW = dg.AssetKey(["raw", "reports"])

    @dg.asset(key=RAW, partitions_def=days, automation_condition=when.each_day(),
              check_specs=[dg.AssetCheckSpec("columns", asset=RAW)])
    def reports(context):
        bad = {"temp": [context.partition_key]} if (here / "hot").exists() else {}
        yield dg.MaterializeResult()
        yield dg.AssetCheckResult(passed=not bad, check_name="columns", metadata={REFUSED: dg.MetadataValue.json(bad)})

    def view(name, column):
        @dg.asset(key=["features", name], deps=[RAW], partitions_def=days, automation_condition=when.each_day(),
                  metadata=reads([f"raw/reports.{column}"]))
        def made(context):
            assert column != "temp" or not (here / "hot").exists(), "it reads a refused column"

        return made

    defs = dg.Definitions(assets=[reports, view("heat", "temp"), view("wind", "gust")], sensors=[automation_sensor()],
                          executor=dg.in_process_executor)
"""


def wait_until(what: Callable[[], bool], alive: Callable[[], object], log: Path) -> None:
    until = time.monotonic() + SECONDS
    while not what():
        assert alive() is None, log.read_text()[-4000:]
        assert time.monotonic() < until, log.read_text()[-4000:]
        time.sleep(0.5)


@pytest.mark.long
def test_under_the_daemon_only_what_reads_the_column_waits(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    module, live, log = tmp_path / "small.py", tmp_path / "live", tmp_path / "daemon.log"
    module.write_text(textwrap.dedent(SMALL))
    yesterday = (now + timedelta(hours=12 - now.hour) - timedelta(days=1)).date().isoformat()
    (tmp_path / "days").write_text(f"{yesterday} {noon_zone(now)}")
    (tmp_path / "hot").touch()
    raw, heat, wind = (
        dg.AssetKey(["raw", "reports"]),
        dg.AssetKey(["features", "heat"]),
        dg.AssetKey(["features", "wind"]),
    )
    write_dagster_yaml(live, replayed=False)
    with open_instance(live) as instance, daemon(live, module, log) as process:

        def made(key: dg.AssetKey) -> bool:
            return yesterday in instance.get_materialized_partitions(key)

        wait_until(lambda: made(raw) and made(wind) and at_rest(instance), process.poll, log)
        time.sleep(12)  # two more looks of the sensor
        assert not made(heat)
        assert len(instance.get_runs()) == 1
        (tmp_path / "hot").unlink()
        mended = ticks.materialize(load(module).defs, instance, [raw], at=now, day=yesterday)
        assert mended.succeeded
        wait_until(lambda: made(heat) and at_rest(instance), process.poll, log)
