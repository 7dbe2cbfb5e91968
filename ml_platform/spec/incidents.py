"""An incident: what began it, what it did, since when; the same from the first day to the day it ended."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Literal

import polars as pl

IncidentKind = Literal["contract", "schema", "feed", "rows", "nulls", "drift", "code", "unexplained"]
Severity = Literal["page", "warn"]


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One cause with all its symptoms, as it stands at the end of a day.

    id: the same on every day that it lasts; a cause that returns after it was closed is another incident.
    kind: what was found at the cause. ``contract``: a column's rule failed; ``schema``: a column dropped or retyped;
        ``feed``: a table gave nothing; ``rows``: the number of rows; ``nulls``: the share of missing values;
        ``drift``: the values; ``code``: how it is computed changed; ``unexplained``: something drifted and nothing that
        it is made of did.
    severity: ``page`` wants a person now; ``warn`` can wait for the morning.
    family, table, column: the guilty one, as ``spec.lineage.Column`` has it (``column`` is empty where it is the whole
        table or view); its asset's key is (family, table).
    opened_on, last_seen: the first and the newest day on which it was found. closed_on: the first day that was judged
        and on which nothing of it was found any more, ``None`` while it lasts.
    symptoms: what drifted or stands still because of it, as written in ``ml-platform impact``
        (``features/<view>.<feature>``), over all its days, sorted; the cause is not among them.
    sentence: for people, with what, where, since when, and what to look at next.
    """

    id: str
    service: str
    kind: IncidentKind
    severity: Severity
    family: str
    table: str
    column: str
    opened_on: date
    last_seen: date
    closed_on: date | None = None
    symptoms: tuple[str, ...] = ()
    sentence: str

    @property
    def cause(self) -> str:
        """The guilty column or table, as written in ``ml-platform impact``."""
        return f"{self.family}/{self.table}" + (f".{self.column}" if self.column else "")

    @property
    def asset(self) -> str:
        """The guilty asset's key, parts joined by slashes, as its page's address has it."""
        return f"{self.family}/{self.table}"


# The table ``incidents/<service>`` in the lake: each day's partition (``known_date``) holds every incident that is open
# at the end of the day, and those that the day closed. So what began on a day has ``opened_on`` equal to its partition.
SCHEMA: Mapping[str, pl.DataType] = {
    **{name: pl.String() for name in ("id", "service", "kind", "severity", "family", "table", "column")},
    **{name: pl.Date() for name in ("opened_on", "last_seen", "closed_on")},
    "symptoms": pl.List(pl.String),
    "sentence": pl.String(),
}


def incident_rows(incidents: Iterable[Incident]) -> pl.DataFrame:
    """One row an incident, with the columns of ``SCHEMA``."""
    rows = [{**asdict(one), "symptoms": list(one.symptoms)} for one in incidents]
    return pl.DataFrame(rows, schema=dict(SCHEMA))


def incidents_of(rows: pl.DataFrame) -> list[Incident]:
    """The incidents of rows that ``incident_rows`` made; further columns (the partition) are left out."""
    names = [field.name for field in fields(Incident)]
    return [Incident(**{**row, "symptoms": tuple(row["symptoms"])}) for row in rows.select(names).iter_rows(named=True)]
