"""One prediction as it was logged, looked up by its id: in the lake first, then in the service's own log."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.spec import NotExplained, Project, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import Forgotten
from ml_platform.stores.prediction_log import PredictionLog


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What was answered, and where that stands.

    entities: the row as it was sent. features: name -> raw value before encoding, None is missing.
    asked_at, as_of: platform time of the question and of the features; answered_at: wall time.
    """

    prediction_id: str
    service: str
    found_in: str
    model: str
    version: int
    probability: float
    asked_at: datetime
    as_of: datetime
    answered_at: datetime
    entities: Mapping[str, Any]
    features: Mapping[str, float | None]


def answered(
    project: Project,
    lake: Lake,
    log: PredictionLog,
    forgotten: Forgotten,
    prediction_id: str,
    service: str | None = None,
) -> Answered:
    """The prediction under this id; of several answers under one id the first. service: by all of them, if None.

    Raises:
        UnknownName: there is no such service.
        NotExplained: the id is unknown, was forgotten, or several services answered under it.
    """
    if service is not None and service not in project.services:
        raise UnknownName("service", service, project.services)
    asked = [service] if service else list(project.services)
    keys = {project.models[project.services[name].model].task.key for name in asked}
    if any(forgotten.holds(key, prediction_id) for key in keys):
        raise NotExplained(f"{prediction_id} was forgotten, and the prediction with it: nothing of it is kept")
    found = [one for name in asked for one in _of_service(lake, log, name, prediction_id)]
    if len(found) > 1:
        names = " and ".join(one.service for one in found)
        raise NotExplained(f"{prediction_id} was answered by {names}; say which with --service")
    if not found:
        raise NotExplained(_unknown(lake, log, forgotten, asked, prediction_id))
    return found[0]


def _of_service(lake: Lake, log: PredictionLog, service: str, prediction_id: str) -> Iterator[Answered]:
    table = f"predictions/{service}"
    if lake.exists(table):
        version = lake.version(table)
        rows = lake.scan(table, version=version).filter(pl.col("prediction_id") == prediction_id).collect()
        if rows.height:
            yield _answered(rows, f"{table}, version {version}")
            return
    rows = log.find(service, prediction_id)
    if rows.height:
        yield _answered(rows, f"{log.folder}/{table}")


def _answered(rows: pl.DataFrame, found_in: str) -> Answered:
    row = rows.sort("answered_at").row(0, named=True)
    names, values = row["feature_names"] or [], row["features"] or []
    return Answered(
        prediction_id=row["prediction_id"],
        service=row["service"],
        found_in=found_in,
        model=row["model"],
        version=int(row["model_version"]),
        probability=row["probability"],
        asked_at=row["asked_at"],
        as_of=row["as_of"],
        answered_at=row["answered_at"],
        entities=json.loads(row["entities"] or "{}"),
        features=dict(zip(names, values, strict=False)),
    )


def _unknown(lake: Lake, log: PredictionLog, forgotten: Forgotten, services: Sequence[str], prediction_id: str) -> str:
    places: list[str] = []
    for service in services:
        table = f"predictions/{service}"
        in_lake = sorted(lake.days(table)) if lake.exists(table) else []
        places.append(f"the table {table} ({_span(in_lake)})")
        places.append(f"the log {log.folder / table} ({_span(log.days('predictions', service))})")
    gone = "; what was asked about a forgotten entity is gone, too" if forgotten.entities else ""
    return (
        f"there is no prediction {prediction_id!r} in {' and '.join(places)}{gone}; an id is the key of the row that "
        f"was sent, as the answer repeats it"
    )


def _span(days: Sequence[Any]) -> str:
    return f"asked from {days[0]} to {days[-1]}" if days else "nothing yet"
