"""Who else works on an installation, by what Dagster's own state says: daemons that live, runs that go on."""

import tempfile
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._time import get_current_timestamp

from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.runs import CLOCK_TAG

_LIVES_SECONDS = 60  # a daemon says every 30 s that it is there


def at_work(dagster_home: Path, postgres_url: str | None, *, replayed: bool) -> list[str]:
    """Sentences that name each; none where there is no state yet. Runs of a replay's driver are not among them: it
    holds the state folder's lock while it lives. ``replayed``: whether time is."""
    if postgres_url:
        with tempfile.TemporaryDirectory() as folder:
            write_dagster_yaml(Path(folder), replayed=False, postgres_url=postgres_url)
            return _at_work(Path(folder))
    if not (dagster_home / "dagster.yaml").exists():
        return []
    write_dagster_yaml(dagster_home, replayed=replayed)  # that of a folder which was moved names another place
    return _at_work(dagster_home)


def _at_work(home: Path) -> list[str]:
    with open_instance(home) as instance:
        return [*_daemons(instance), *_runs(instance)]


def _daemons(instance: dg.DagsterInstance) -> list[str]:
    ages = [get_current_timestamp() - beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
    lately = [age for age in ages if age < _LIVES_SECONDS]
    if not lately:
        return []
    return [f"a Dagster daemon ({min(lately):.0f} s ago it was there; {_LIVES_SECONDS} s after its end this is over)"]


def _runs(instance: dg.DagsterInstance) -> list[str]:
    unfinished = dg.RunsFilter(statuses=sorted(IN_PROGRESS_RUN_STATUSES, key=lambda status: status.value))
    runs = [run for run in instance.get_runs(unfinished) if CLOCK_TAG not in run.tags]
    return [
        f"Dagster's run {run.run_id} ({run.status.value.lower()}; end it in the UI if nothing runs it)" for run in runs
    ]
