"""Telling Dagster what was made outside its runs, so that lineage knows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import dagster as dg

from ml_platform import asset_keys

Report = Callable[[str, Sequence[date], Mapping[str, int]], None]


@contextmanager
def reporter(dagster_home: Path, *, replayed: bool) -> Iterator[Report]:
    """A function that records a materialization of a feature view's days (none: unpartitioned), without a run.

    It records nothing where there is no instance, and nothing on a replayed state: an event without a run carries the
    wall clock, and the replay's conditions and freshness would take it for what happened years after its days.
    """
    if replayed or not (dagster_home / "dagster.yaml").exists():
        yield lambda _view, _days, _told: None
        return
    from ml_platform.automation.instance import open_instance  # loads the storage: a second, where there is one

    with open_instance(dagster_home) as instance:

        def report(view: str, days: Sequence[date], told: Mapping[str, int]) -> None:
            partitions: list[str | None] = [str(day) for day in days]
            for partition in partitions or [None]:
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        asset_keys.features(view), description="backfill", partition=partition, metadata=told
                    )
                )

        yield report


def alarm(dagster_home: Path, key: dg.AssetKey, told: Mapping[str, str | int]) -> bool:
    """Record that an alarm is raised, without a run; whether there is an instance to record it in.

    Only where time is live, as above.
    """
    if not (dagster_home / "dagster.yaml").exists():
        return False
    from ml_platform.automation.instance import open_instance

    with open_instance(dagster_home) as instance:
        raised = dg.AssetMaterialization(key, description="asked for by a person", metadata=dict(told))
        instance.report_runless_asset_event(raised)
    return True
