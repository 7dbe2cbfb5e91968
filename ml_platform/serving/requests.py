"""What the service accepts: strict reading of rows, times and labels; every refusal names row and field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.spec import RequestRefused, Task, View
from ml_platform.spec.calendar import day_start
from ml_platform.spec.request_views import request_fields
from ml_platform.stores.forgotten import Forgotten
from ml_platform.stores.prediction_log import Truth

Row = dict[str, str | int | float | None]
LONGEST = 256  # characters; a longer key or id is no entity of ours but somebody's mistake
INT64 = 2**63
LARGEST = 1e300  # a number beyond is somebody's mistake, and sums of a few stay finite
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)  # else a mistake of units
_CLOCK_SKEW = timedelta(days=1)  # a sender's clock may be wrong, and a label's time zone, too; more is nonsense


ANY_KEY = "key"  # of an entity that no view joins on
_PYTHON: Mapping[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "text"),
    "int64": ((int,), "a whole number"),
    ANY_KEY: ((str, int), "text or a whole number"),
    "float64": ((float, int), "a number"),
    "bool": ((bool,), "true or false"),
    "timestamp": ((str,), "text with an ISO 8601 time"),
}


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """What a row must hold: exactly these fields, of these types (``RequestType``); the key is never null."""

    key: str
    types: Mapping[str, str]
    max_rows: int


def row_rules(task: Task, views: Sequence[View], max_rows: int) -> RowRules:
    """The fields are the task's entities, of the types that the views join on, and what request views read."""
    declared = {entity.name: entity.dtype for view in views for entity in view.entities}
    types = {name: declared.get(name, ANY_KEY) for name in task.entities} | request_fields(views)
    return RowRules(key=task.key, types=types, max_rows=max_rows)


def check_rows(rows: Sequence[Mapping[str, Any]], rules: RowRules) -> list[Row]:
    """The rows as they are, if they hold what they must.

    Raises:
        RequestRefused: none or too many, a field missing, unknown or of a wrong type, a key null or twice.
    """
    check_count("rows", len(rows), rules.max_rows)
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows):
        _check_row(number, row, rules)
        first = seen.setdefault(row[rules.key], number)
        if first != number:
            raise RequestRefused(
                f"row {number}, field {rules.key!r}: the same value as row {first}; send each row once"
            )
    return [dict(row) for row in rows]


def _check_row(number: int, row: Mapping[str, Any], rules: RowRules) -> None:
    if row.keys() != rules.types.keys():
        missing, unknown = sorted(rules.types.keys() - row.keys()), sorted(row.keys() - rules.types.keys())
        wrong = [f"missing {', '.join(missing)}"] if missing else []
        wrong += [f"unknown {', '.join(name[:40] for name in unknown)}"] if unknown else []
        raise RequestRefused(f"row {number}: {'; '.join(wrong)}; the fields are {', '.join(rules.types)}")
    for name, wanted in rules.types.items():
        _check_value(f"row {number}, field {name!r}", row[name], wanted, nullable=name != rules.key)


def _check_value(where: str, value: Any, wanted: str, *, nullable: bool) -> None:
    if value is None:
        if not nullable:
            raise RequestRefused(f"{where}: is null, but it names the prediction")
        return
    kinds, named = _PYTHON[wanted]
    if type(value) not in kinds:  # a Boolean is a whole number for Python, but not for us
        raise RequestRefused(f"{where}: {str(value)[:40]!r} is not {named}")
    if type(value) is int and not -INT64 <= value < INT64:
        raise RequestRefused(f"{where}: {str(value)[:40]} does not fit into 64 bits")
    if type(value) is float and not abs(value) <= LARGEST:  # NaN is not smaller, either
        raise RequestRefused(f"{where}: {value!r} is not a number of at most {LARGEST:g}")
    if type(value) is str and not 0 < len(value) <= LONGEST:
        raise RequestRefused(f"{where}: has {len(value)} characters; 1 to {LONGEST} are allowed")
    if wanted == "timestamp":
        check_moment(value, where, EARLIEST, LATEST)


def refuse_forgotten(rows: Sequence[Row], forgotten: Forgotten) -> None:
    """An answer is logged with its question, which would bring back what was forgotten.

    Raises:
        RequestRefused: a row names it.
    """
    for name in forgotten.entities if rows else ():
        for number, row in enumerate(rows):
            if row.get(name) is not None and forgotten.holds(name, str(row[name])):
                raise RequestRefused(f"row {number}, field {name!r}: was forgotten here, and is not asked about")


def check_moment(text: str, where: str, earliest: datetime, latest: datetime) -> datetime:
    """An ISO moment with a zone in [earliest, latest], as UTC.

    Raises:
        RequestRefused: it is not a moment, has no zone, or lies outside.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestRefused(f"{where}: {text[:40]!r} is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        raise RequestRefused(f"{where}: {text!r} has no time zone; write an offset, as in 2013-04-01T12:00:00+00:00")
    if not earliest <= moment <= latest:
        raise RequestRefused(f"{where}: {text!r} lies outside {earliest.isoformat()} to {latest.isoformat()}")
    return moment.astimezone(UTC)


def plausible(starts: Any, timezone: str, now: datetime) -> tuple[datetime, datetime]:
    """The times a request may name: from the project's first day to a day from now (replayed times are past ones)."""
    return day_start(starts, timezone), now + _CLOCK_SKEW


def check_labels(
    labels: Sequence[tuple[Any, Any, str]], earliest: datetime, latest: datetime, max_rows: int
) -> list[Truth]:
    """(prediction id, value, known at) as truths; a null value says that there is no truth.

    Raises:
        RequestRefused: none or too many, an id that is no text, a value that is no whole number, a bad time.
    """
    check_count("labels", len(labels), max_rows)
    truths = []
    for number, (prediction_id, value, known_at) in enumerate(labels):
        _check_value(f"label {number}, field 'prediction_id'", prediction_id, "string", nullable=False)
        _check_value(f"label {number}, field 'value'", value, "int64", nullable=True)
        moment = check_moment(known_at, f"label {number}, field 'known_at'", earliest, latest)
        truths.append(Truth(prediction_id=prediction_id, value=value, known_at=moment))
    return truths


def check_count(what: str, count: int, most: int) -> None:
    """Between one and ``most``.

    Raises:
        RequestRefused: none, or too many.
    """
    if count == 0:
        raise RequestRefused(f"{what}: is empty; send at least one")
    if count > most:
        raise RequestRefused(f"{what}: {count} are too many; send at most {most} at once")
