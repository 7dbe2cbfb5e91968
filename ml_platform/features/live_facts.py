"""What live windows remember of a table's facts: by its key each, the versions of it that were delivered.

A row that is the only one of its key costs this memory and nothing else. Once there are two, the windows need all of
them, whichever came first: to know where the earlier one counts, and from when on it does not any more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from ml_platform.features.live_rows import Counted, ordered
from ml_platform.spec import KNOWN_AT
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.tiles import Change

_Row = tuple[Any, ...]


def facts_log(table: str) -> str:
    """The name of the log that remembers a table's facts."""
    return f"facts/{table}"


# A record: until when it is asked for (unix microseconds), then the columns and each different row, as they arrived.
_HEAD = 8
_record_from = msgspec.msgpack.Decoder(tuple[tuple[str, ...], list[_Row]])
_to_bytes = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Facts:
    """Rows of a table as they are remembered: of each its fact, its values and until when windows reach it."""

    table: str
    schema: pl.Schema
    keys: list[str | None]
    rows: list[_Row]
    until: list[int]

    @classmethod
    def of(cls, table: str, key: Sequence[str], rows: pl.DataFrame, counted: Iterable[Counted], reach: int) -> "Facts":
        """counted: what the views make of them; reach: for how long after its last moment a row is asked for."""
        kept = rows.drop(PARTITION, strict=False)
        columns = [column.to_physical() if column.dtype.is_temporal() else column for column in kept.get_columns()]
        listed = list(zip(*(column.to_list() for column in columns), strict=True))
        places = [kept.columns.index(name) for name in key]
        keys = [tuple(row[place] for place in places) for row in listed]
        last: list[int] = rows[KNOWN_AT].dt.epoch("us").to_list()
        for one in counted:
            for moments in (one.moments, *([moment for _, moment in opened] for opened in one.opened)):
                for place, moment in zip(one.places, moments, strict=True):
                    if moment > last[place]:
                        last[place] = moment
        return cls(
            table=table,
            schema=kept.schema,
            keys=[None if None in one else ordered(one) for one in keys],
            rows=listed,
            until=[moment + reach for moment in last],
        )

    def part(self, first: int, end: int) -> "Facts":
        """Those of the rows at the places [first, end)."""
        some = slice(first, end)
        return Facts(self.table, self.schema, self.keys[some], self.rows[some], self.until[some])

    def remembering(self) -> "dict[str, Remembering]":
        """The change of each fact's record."""
        columns, log, found = tuple(self.schema), facts_log(self.table), dict[str, Remembering]()
        for key, row, until in zip(self.keys, self.rows, self.until, strict=True):
            if key is None:
                continue
            if key in found:
                found[key].add(row, until)
            else:
                found[key] = Remembering(log, key, columns, row, until)
        return found

    def frame(self, versions: "Iterable[Remembering]") -> pl.DataFrame:
        """All rows of these facts, as they came."""
        rows = [dict(zip(one.columns, row, strict=True)) for one in versions for row in one.versions]
        physical = {name: pl.Series(dtype=dtype).to_physical().dtype for name, dtype in self.schema.items()}
        return pl.DataFrame(rows, schema=physical, orient="row").cast(dict(self.schema))  # type: ignore[arg-type]


class Remembering:
    """A change of one fact's record; ``versions`` are its rows, once the change was made."""

    __slots__ = ("columns", "key", "log", "new", "until", "versions")

    def __init__(self, log: str, key: str, columns: tuple[str, ...], row: _Row, until: int) -> None:
        self.log, self.key, self.columns, self.until = log, key, columns, until
        self.new = [row]
        self.versions = self.new

    def add(self, row: _Row, until: int) -> None:
        """Another row of the same delivery."""
        self.until = max(until, self.until)
        if row not in self.new:
            self.new.append(row)

    def change(self) -> Change:
        """See ``Change``."""
        return Change(self.log, self.key.encode(), 0, self.until, self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        body, until = _to_bytes((self.columns, self.new)), self.until
        self.versions = self.new
        if held is not None:
            before = int.from_bytes(held[:_HEAD], signed=True)
            if held[_HEAD:] != body:  # mostly it is the one row that is known, delivered again
                body = self._added(held[_HEAD:])
            if held[_HEAD:] == body and before >= until:
                return None
            until = max(before, until)
        return b"", until.to_bytes(_HEAD, signed=True) + body

    def _added(self, held: bytes) -> bytes:
        columns, rows = _record_from.decode(held)
        if columns != self.columns:  # the table has other columns now
            named = (dict(zip(columns, row, strict=True)) for row in rows)
            rows = [tuple(row.get(name) for name in self.columns) for row in named]
        more = [row for row in self.new if row not in rows]
        self.versions = [*rows, *more]
        return _to_bytes((self.columns, self.versions)) if more else held


@dataclass(frozen=True)
class Version:
    """One row of a fact in one view: its place in ``Counted``, its name among the view's events, and when it ends.

    ends: when the next version became known, unix microseconds; None for the newest.
    """

    place: int
    name: str
    ends: int | None


def versions(facts: Sequence[Remembering], known: Sequence[int], found: Counted) -> list[Version]:
    """The rows of these facts (one after the other) that count in a view, each with its end.

    known: of each row when it became known. The first one that arrived bears the fact's key as its name, so that it is
    the event that it was while it was alone.
    """
    place_of = {place: n for n, place in enumerate(found.places)}
    listed: list[Version] = []
    first = 0
    for fact in facts:
        numbers = range(first, first + len(fact.versions))
        first = numbers.stop
        order = sorted(numbers, key=lambda n: (known[n], _contents(found, place_of.get(n))))
        for n, following in zip(order, [*order[1:], None], strict=True):
            if n in place_of:
                name = fact.key if n == numbers.start else f"{fact.key}\x00{n - numbers.start}"
                listed.append(Version(place_of[n], name, None if following is None else known[following]))
    return listed


def _contents(found: Counted, place: int | None) -> list[tuple[bool, Any]]:
    """Orders rows known at the same moment as ``corrections.contents`` does."""
    if place is None:
        return []
    made = [*found.entities[place], found.moments[place], *found.values[place]]
    for opened in found.opened:
        fact, moment = opened[place]
        made += [*fact, moment]
    return [(value is not None, value) for value in made]
