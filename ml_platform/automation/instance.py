"""Dagster's own state: the settings file of an installation, and opening it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from ml_platform.automation import storage


def write_dagster_yaml(
    dagster_home: Path, *, replayed: bool, postgres_url: str | None = None, s3_bucket: str | None = None
) -> Path:
    """Write ``dagster.yaml`` under ``dagster_home`` and return its path; the same settings give the same file.

    replayed: freshness is judged by the replay's driver, so Dagster's daemon for it (wall clock) is off; nor are the
        logs of steps captured.
    postgres_url: ``postgresql://...``; without it everything lies in SQLite files in this folder.
    s3_bucket: where the logs of steps go; without it they lie in this folder.
    """
    settings: dict[str, Any] = {
        "telemetry": {"enabled": False},
        "freshness": {"enabled": not replayed},
        "python_logs": {"python_log_level": "INFO"},
        **(_postgres(postgres_url) if postgres_url else _sqlite(dagster_home)),
    }
    if replayed:
        # The driver's runs share a terminal with its progress display: capturing would take both output streams.
        settings["compute_logs"] = {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        }
    elif s3_bucket:
        settings["compute_logs"] = {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": "S3ComputeLogManager",
            "config": {"bucket": s3_bucket, "prefix": "dagster/compute_logs"},
        }
    dagster_home.mkdir(parents=True, exist_ok=True)
    path = dagster_home / "dagster.yaml"
    text = "# Written by the platform; JSON is YAML, too.\n" + json.dumps(settings, indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(path)
    return path


def open_instance(dagster_home: Path) -> dg.DagsterInstance:
    """The instance of a folder that ``write_dagster_yaml`` prepared; a context manager."""
    return dg.DagsterInstance.from_config(str(dagster_home))


def _postgres(url: str) -> dict[str, Any]:
    # SQLAlchemy 2.1 must be told the driver that is installed.
    scheme, rest = url.split("://", 1)
    return {"storage": {"postgres": {"postgres_url": f"{scheme.split('+')[0]}+psycopg2://{rest}"}}}


def _sqlite(home: Path) -> dict[str, Any]:
    place = {"module": storage.__name__, "class": storage.SqliteStorage.__name__, "config": {"base_dir": str(home)}}
    # Two runs at once are what one small machine carries; looking every second keeps an event close to its run.
    queue = {"max_concurrent_runs": 2, "dequeue_interval_seconds": 1}
    return {"storage": {"custom": place}, "run_queue": queue}
