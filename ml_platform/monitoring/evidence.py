"""What was found about every column, table and view on which day, from the tables that the other assets wrote.

Read, not measured: drift verdicts of what was served and of raw columns, numbers of rows, columns that a contract
refused, days that are missing, declarations and model versions that changed. All functions are pure.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import polars as pl

from ml_platform.monitoring.drift import ALL, MISSING, SCORE
from ml_platform.monitoring.root_cause import Finding
from ml_platform.monitoring.sharp import sharp_threshold
from ml_platform.sources.columns import SCHEMA_RULE, Refusal
from ml_platform.spec import SharpRule
from ml_platform.spec.incidents import IncidentKind
from ml_platform.spec.lineage import ALL_COLUMNS, Column
from ml_platform.stores.delta import PARTITION

_FEWEST_DAYS = 7  # of reference, before a number of rows can be unusual
_REFERENCE_DAYS = 28
_BEYOND = 1.5  # times the most, or the least over it: as sharp as the rule about values
Judged = tuple[Column, date]


def moved(rows: pl.DataFrame, node_of: Mapping[str, Column], rule: SharpRule) -> tuple[list[Finding], list[Judged]]:
    """Sharp changes in rows of `drift.COLUMNS` with their day, and what was judged.

    node_of: the ``feature`` of a row -> its node; others are left out, as are rows about a day as a whole. rule: what
        is sharp, whatever the policy that wrote the rows thought.
    """
    kept = rows.filter(pl.col("feature").is_in(list(node_of)), pl.col("of") != SCORE).drop_nulls(
        ["distance", "usual_maximum"]
    )
    limits = sharp_threshold(kept["usual_maximum"].to_numpy(), rule).tolist()
    findings, judged = [], []
    for row, limit in zip(kept.iter_rows(named=True), limits, strict=True):
        node, day = node_of[row["feature"]], row[PARTITION]
        judged.append((node, day))
        if row["distance"] < limit:
            continue
        what = "all features together" if row["feature"] == ALL else f"{row['of']} of {node}"
        numbers = f"{row['distance']:.2f}, usually at most {row['usual_maximum']:.2f}"
        kind: IncidentKind = "nulls" if row["of"] == MISSING else "drift"
        findings.append(Finding(node=node, day=day, kind=kind, sentence=f"{day}: {what} changed sharply ({numbers})"))
    return findings, judged


def row_counts(table: str, counts: Mapping[date, int], days: Iterable[date]) -> tuple[list[Finding], list[Judged]]:
    """Days on which a raw table held far more or fewer rows than on any of the four weeks before.

    counts: the rows of each day, of ``days`` and of those before. With few days before, it is not judged.
    """
    node, findings, judged = Column("raw", table, ""), [], []
    for day in days:
        before = [counts[one] for n in range(1, _REFERENCE_DAYS + 1) if (one := day - timedelta(days=n)) in counts]
        if day not in counts or len(before) < _FEWEST_DAYS:
            continue
        judged.append((node, day))
        least, most = min(before), max(before)
        if not least / _BEYOND <= counts[day] <= most * _BEYOND:
            said = f"{day}: {node} has {counts[day]} rows, on {len(before)} days before between {least} and {most}"
            findings.append(Finding(node=node, day=day, kind="rows", sentence=said))
    return findings, judged


def missing_days(
    table: str, held: Collection[date], broken: Mapping[date, str], days: Sequence[date]
) -> Iterator[Finding]:
    """Days, from the table's first one on, of which it holds nothing: refused as a whole, or its feed gave nothing.

    broken: day -> the rules that its quarantined rows broke.
    """
    node, first = Column("raw", table, ""), min(held, default=date.max)
    for day in (day for day in days if day >= first and day not in held):
        if day in broken:
            said = f"{day}: {node} was refused whole by its contract ({broken[day]})"
            yield Finding(node=node, day=day, kind="contract", sentence=said)
        else:
            said = f"{day}: {node} has no rows: its feed gave nothing, or its batch could not be read"
            yield Finding(node=node, day=day, kind="feed", sentence=said)


def refused(table: str, refusals: Iterable[Refusal], day: date) -> tuple[list[Finding], dict[Column, Column]]:
    """Columns that are refused for days and not mended yet, as found on ``day``.

    Returns:
        The findings, and of columns that the same rule refused all but the first -> the first: they are one cause.
    """
    findings, joined, first = [], dict[Column, Column](), dict[tuple[str, date | None], Column]()
    for one in refusals:
        node = Column("raw", table, "" if one.column == ALL_COLUMNS else one.column)
        leader = first.setdefault((one.rule, one.day), node)
        if leader != node:
            joined[node] = leader
        kind: IncidentKind = "schema" if one.rule == SCHEMA_RULE else "contract"
        findings.append(Finding(node=node, day=day, kind=kind, sentence=f"{one.sentence}, so it is refused"))
    return findings, joined


def changed_code(versions: pl.DataFrame, days: Iterable[date]) -> tuple[list[Finding], list[Judged]]:
    """Views and models whose version is another than on the newest day before on which it is known.

    versions: ``family``, ``table``, ``version`` and the day.
    """
    findings, judged = [], []
    for (family, table), rows in versions.sort(PARTITION).group_by("family", "table", maintain_order=True):
        node = Column(family, table, "")
        known = dict(rows.select(PARTITION, "version").iter_rows())
        for day in (day for day in days if day in known):
            judged.append((node, day))
            before = max((one for one in known if one < day), default=None)
            if before is not None and known[before] != known[day]:
                said = f"{day}: {node} is another than on {before} ({known[before]} before, {known[day]} now)"
                findings.append(Finding(node=node, day=day, kind="code", sentence=said))
    return findings, judged
