"""From a source into the lake: read the days asked for, apply the contract, write good and quarantined rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml_platform.sources.admission import Admit, everything
from ml_platform.sources.columns import Refusal, conformed, excused_by, marks_of, refused_columns, without, write_marks
from ml_platform.sources.contract import Validated, judge
from ml_platform.sources.observe import Finding
from ml_platform.spec import KNOWN_AT, ContractBroken, SourceTable, Verdict
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.spec.expectations import Around, ExpectInvariantToHold
from ml_platform.spec.expectations.base import PART
from ml_platform.spec.verdict import State
from ml_platform.stores.delta import PARTITION, Lake

_ORIGIN_OF_TIME = datetime(1, 1, 2, tzinfo=UTC)  # a reference table is read from here on; day 1 has no local time
_TICK = timedelta(microseconds=1)  # known_at <= now is known_at < now + one tick: columns are in microseconds
IN_INTERVAL = "known_at_in_the_interval_asked_for"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the source gave for some days, judged; nothing of it is written yet.

    good, quarantined: the rows with their local day ``known_date`` (a reference table has none).
    rows_read: rows that the source gave, counted before the contract. rows_forgotten: those among them that were left
        out because they hold what was forgotten.
    empty_days: days that gave no row although the table may not be empty.
    contract: all rules in one verdict; ``rules`` holds each, ``findings`` what each found.
    refusal: why the batch must not be used, or ``None``.
    refused: columns that must not be used, though the batch may: ``good`` and ``quarantined`` hold nothing of them.
    undeclared: columns that the source gave though nobody declared them; they are left out.
    """

    good: pl.DataFrame
    quarantined: pl.DataFrame
    rows_read: int
    rows_forgotten: int
    empty_days: tuple[date, ...]
    contract: Verdict
    rules: Mapping[str, Verdict]
    findings: Mapping[str, Finding]
    refusal: str | None
    refused: tuple[Refusal, ...] = ()
    undeclared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ingested(Batch):
    """A batch that lies in the lake; ``raw_version`` is the version of ``raw/<name>`` that it made."""

    raw_version: int


def raw_name(table: SourceTable) -> str:
    """Where the good rows lie in the lake."""
    return f"raw/{table.name}"


def quarantine_name(table: SourceTable) -> str:
    """Where the rows lie that broke a rule, with the rule's name as ``reason``."""
    return f"quarantine/{table.name}"


def read_references(table: SourceTable, lake: Lake) -> dict[str, pl.DataFrame]:
    """The raw tables that the rules refer to, by name.

    Raises:
        MissingHistory: one of them was never written.
    """
    names = dict.fromkeys(rule.references[1] for rule in table.rules if rule.references)
    return {name: lake.read(f"raw/{name}") for name in names}


def read_before(table: SourceTable, lake: Lake, first_day: date) -> pl.DataFrame | None:
    """The rows of the days before that the rules look back at, with the columns that they read and their day."""
    back = max((rule.looks_back_days for rule in table.rules), default=0)
    if not back or not table.partitioned or not lake.exists(raw_name(table)):
        return None
    names = dict.fromkeys([KNOWN_AT, *(name for rule in table.rules if rule.looks_back_days for name in rule.reads)])
    rows = lake.read(raw_name(table), first=first_day - timedelta(days=back), last=first_day - timedelta(days=1))
    order = [name for name in table.key if name in names]
    return rows.select(*names, pl.col(PARTITION).alias(PART)).sort(PART, KNOWN_AT, *order)


def fetch(
    table: SourceTable,
    first_day: date,
    last_day: date,
    now: datetime,
    timezone: str,
    references: Mapping[str, pl.DataFrame],
    *,
    after: datetime | None = None,
    admit: Admit = everything,
    before: pl.DataFrame | None = None,
    whole: bool = False,
) -> Batch:
    """Read the local days [first_day, last_day] as far as they are known at ``now``, and judge them.

    A reference table is read whole, whatever the days. ``references`` are the raw tables that rules refer to.
    ``after`` leaves out what was known at that moment already; ``admit`` what was forgotten, before the contract.
    ``whole``: rules about a day as a whole are judged, too, of the days that are over, and columns may be refused;
    ``before`` are the earlier rows that such rules look back at. Otherwise the rows are on their way into live windows,
    where a row is an event that is judged alone: a bad one is set aside, and nothing is refused of those beside it.

    Raises:
        SourceError: the source could not be read, or columns without which there are no rows changed.
    """
    days = days_between(first_day, last_day) if table.partitioned else None
    start, end = _interval(table, first_day, last_day, now, timezone)
    start = max(start, after + _TICK) if after else start
    rows, refused, undeclared = conformed(table, table.read(start, end), days or [None])
    guarded = replace(table, rules=(_inside(start, end), *table.rules))
    local_day = _local_day(first_day, last_day, timezone) if days else None
    admitted = admit(table, rows)
    admitted = admitted.sort(KNOWN_AT, *table.key, maintain_order=True)  # as they are judged
    around = Around(before=before, ends=_ends(days, now, timezone)) if whole else None
    excused = excused_by(guarded, refused)
    found = judge(guarded, admitted, references, batch=local_day, around=around, excused=excused)
    asked = found
    if whole and (more := refused_columns(guarded, admitted, found.findings, local_day)):
        refused += more
        masked, excused = without(table, admitted, refused, local_day), excused_by(guarded, refused)
        found = judge(guarded, masked, references, batch=local_day, around=around, excused=excused)
    empty = _empty_days(table, rows, local_day, days, now, timezone)
    return Batch(
        good=_dated(found.good, local_day),
        quarantined=_dated(found.quarantined, local_day),
        rows_read=rows.height,
        rows_forgotten=rows.height - admitted.height,
        empty_days=empty,
        contract=_summary(table, found, rows.height, empty, _notes(refused, undeclared)),
        rules=asked.verdicts,
        findings=asked.findings,
        refusal=found.refusal,
        refused=tuple(refused),
        undeclared=tuple(undeclared),
    )


def ingest(
    table: SourceTable,
    lake: Lake,
    first_day: date,
    last_day: date,
    now: datetime,
    timezone: str,
    *,
    references: Mapping[str, pl.DataFrame] | None = None,
    admit: Admit = everything,
) -> Ingested:
    """Bring the local days [first_day, last_day] into the lake, as far as they are known at ``now``.

    The days are replaced as a whole: doing it again, with a later ``now`` or after a kill, adds and loses nothing.
    A reference table is replaced whole. ``references`` are the tables that rules refer to, if the caller has them at
    hand; otherwise they are read from the lake. ``admit`` leaves out what was forgotten.

    Raises:
        SourceError: the source could not be read, or columns without which there are no rows changed; nothing was
            written.
        ContractBroken: the batch was refused; ``raw`` is as before, the offending rows are in ``quarantine``.
        MissingHistory: a table that a rule refers to was never written.
    """
    days = days_between(first_day, last_day) if table.partitioned else None
    known = references if references is not None else read_references(table, lake)
    before = read_before(table, lake, first_day)
    batch = fetch(table, first_day, last_day, now, timezone, known, admit=admit, before=before, whole=True)
    lake.replace(quarantine_name(table), batch.quarantined, days)
    if batch.refusal:
        raise ContractBroken(
            f"{batch.refusal}. Nothing was written to {raw_name(table)}; {batch.quarantined.height} rows are kept in "
            f"{quarantine_name(table)} with their reasons: mend the source or the contract and materialize again"
        )
    # While raw is exchanged, what was or will be refused is: a reader may meet either state of the rows.
    refused_before = marks_of(lake, table.name, days)
    write_marks(lake, table, [*refused_before, *batch.refused], days)
    version = lake.replace(raw_name(table), batch.good, days)
    if refused_before:
        write_marks(lake, table, batch.refused, days)
    return Ingested(**vars(batch), raw_version=version)


def examined(
    table: SourceTable, lake: Lake, day: date, now: datetime, timezone: str, *, admit: Admit = everything
) -> tuple[pl.DataFrame, Validated]:
    """A day's rows as the source gives them now, in the order in which they were judged, and the judgement.

    Nothing is written. A reference table is examined whole.

    Raises:
        SourceError: the source could not be read, or columns without which there are no rows changed.
        MissingHistory: a table that a rule refers to was never written.
    """
    given, _, _ = conformed(table, table.read(*_interval(table, day, day, now, timezone)), [])
    rows = admit(table, given).sort(KNOWN_AT, *table.key, maintain_order=True)
    days = [day] if table.partitioned else None
    around = Around(before=read_before(table, lake, day), ends=_ends(days, now, timezone))
    local_day = _local_day(day, day, timezone) if days else None
    return rows, judge(table, rows, read_references(table, lake), batch=local_day, around=around)


def nothing_lost(
    table: SourceTable,
    lake: Lake,
    first_day: date,
    last_day: date,
    now: datetime,
    timezone: str,
    *,
    admit: Admit = everything,
) -> Verdict:
    """Whether the source's rows, counted anew, are those in ``raw`` and in ``quarantine`` and the forgotten ones."""
    rows, _, _ = conformed(table, table.read(*_interval(table, first_day, last_day, now, timezone)), [])
    source, forgotten = rows.height, rows.height - admit(table, rows).height
    days = (first_day, last_day) if table.partitioned else (None, None)
    raw, quarantined = (lake.count(name(table), *days) for name in (raw_name, quarantine_name))
    measures = {"rows_source": source, "rows_raw": raw, "rows_quarantined": quarantined, "rows_forgotten": forgotten}
    sentence = f"{source} rows in the source, {raw} in {raw_name(table)}, {quarantined} in {quarantine_name(table)}"
    sentence += f", {forgotten} left out because they hold what was forgotten" if forgotten else ""
    found = raw + quarantined + forgotten
    if source == found:
        return Verdict(state="pass", reason=f"{sentence}: nothing lost, nothing doubled", measures=measures)
    reason = f"{sentence}: {found - source:+d} rows; materialize these days of the table again"
    return Verdict(state="fail", reason=reason, measures=measures)


def _interval(
    table: SourceTable, first_day: date, last_day: date, now: datetime, timezone: str
) -> tuple[datetime, datetime]:
    """The half-open UTC interval of ``known_at`` to read: never past ``now``."""
    if not table.partitioned:
        return _ORIGIN_OF_TIME, now + _TICK
    start = day_start(first_day, timezone)
    return start, max(start, min(day_start(last_day + timedelta(days=1), timezone), now + _TICK))


def _ends(days: list[date] | None, now: datetime, timezone: str) -> dict[date, datetime]:
    """When each of the days was over, of those that are."""
    ends = {day: day_start(day + timedelta(days=1), timezone) for day in days or ()}
    return {day: end for day, end in ends.items() if end <= now}


def _inside(start: datetime, end: datetime) -> ExpectInvariantToHold:
    """A reader that hands out rows from outside would put them into a wrong partition, or into the future."""
    lies_there = pl.col(KNOWN_AT).is_between(start, end, closed="left").fill_null(False)
    return ExpectInvariantToHold(name=IN_INTERVAL, holds=lies_there, action="stop")


def _local_day(first_day: date, last_day: date, timezone: str) -> pl.Expr:
    """The row's partition; a refused row without a place in the interval is filed under the first day."""
    day = pl.col(KNOWN_AT).dt.convert_time_zone(timezone).dt.date()
    return pl.when(day.is_between(first_day, last_day)).then(day).otherwise(pl.lit(first_day))


def _dated(rows: pl.DataFrame, local_day: pl.Expr | None) -> pl.DataFrame:
    return rows if local_day is None else rows.with_columns(local_day.alias(PARTITION))


def _empty_days(
    table: SourceTable,
    rows: pl.DataFrame,
    local_day: pl.Expr | None,
    days: list[date] | None,
    now: datetime,
    timezone: str,
) -> tuple[date, ...]:
    if table.may_be_empty or days is None or local_day is None:
        return ()
    filled = set(rows.select(local_day.unique()).to_series())
    return tuple(day for day in days if day not in filled and day_start(day, timezone) <= now)


def _summary(table: SourceTable, found: Validated, rows_read: int, empty: tuple[date, ...], notes: str) -> Verdict:
    measures = {"rows_read": rows_read, "rows_quarantined": found.quarantined.height, "days_empty": len(empty)}
    broken = {name: v.measures["broken"] for name, v in found.verdicts.items() if v.measures.get("broken")}
    if empty or (not table.partitioned and not table.may_be_empty and not rows_read):
        shown = ", ".join(str(day) for day in empty[:5]) + (", ..." if len(empty) > 5 else "")
        where = f"for {len(empty)} of the days asked for ({shown})" if empty else "at all"
        reason = f"the source of {raw_name(table)} gave no rows {where}; look whether its feed stopped"
        return Verdict.unknown(reason, **measures, **broken)
    if not broken:
        which = "all others of its" if notes else f"all {len(found.verdicts)}"
        reason = f"{which} rules hold on {rows_read} rows{notes}"
        return Verdict(state="warn" if notes else "pass", reason=reason, measures=measures)
    aside = [
        name for name in broken if name not in found.findings or found.findings[name].expectation.action == "quarantine"
    ]
    listed = ", ".join(f"{name} ({broken[name]})" for name in aside)
    told = [f"{found.quarantined.height} of {rows_read} rows were set aside in {quarantine_name(table)}: {listed}"]
    others = [name for name in broken if name not in aside]
    reason = "; ".join([*(told if aside else []), *(found.verdicts[name].reason for name in others)]) + notes
    states = {found.verdicts[name].state for name in broken}
    state: State = "fail" if "fail" in states else "warn" if notes or "warn" in states else "pass"
    return Verdict(state=state, reason=reason, measures={**measures, **broken})


def _notes(refused: Sequence[Refusal], undeclared: Sequence[str]) -> str:
    names = ", ".join(dict.fromkeys(one.column for one in refused))
    told = [f"refused, see the check of columns: {names}"] if names else []
    told += [f"undeclared columns were left out: {', '.join(undeclared)}"] if undeclared else []
    return "".join(f"; {one}" for one in told)
