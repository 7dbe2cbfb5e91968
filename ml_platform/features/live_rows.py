"""What the live windows need of raw rows, for all views of a table in one evaluation.

A delivery is often a handful of rows, for which each further evaluation costs more than its work; who knows of more to
come evaluates them together and applies them in parts.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import polars as pl

from ml_platform.spec import KNOWN_AT, Active, FeatureView

_Row = tuple[Any, ...]


@dataclass(frozen=True)
class Needs:
    """The expressions of one view over its source's rows, in one flat list, and where each group of them stands."""

    view: FeatureView
    columns: tuple[str, ...]
    actives: tuple[Active, ...]
    expressions: list[pl.Expr] = field(default_factory=list)
    groups: list[slice] = field(default_factory=list)
    forms: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Groups: entity, key, moment, columns, whether the row counts; then key and opening of each ``Active``."""
        groups = [
            [self._column(name) for name in self.view.entity_names],
            [self._column(name) for name in self.view.key],
            [self._moment(self.view.time)],
            [self._column(name) for name in self.columns],
            [] if self.view.where is None else [self.view.where],
        ]
        for active in self.actives:
            groups += [[self._column(name) for name in active.key], [self._moment(active.opened_at)]]
        for group in groups:
            self.groups.append(slice(len(self.expressions), len(self.expressions) + len(group)))
            self.expressions.extend(group)
        # Views of one table ask for much the same (its key, its moment): what is written alike is evaluated once.
        self.forms.extend(expr.meta.serialize() for expr in self.expressions)

    def _column(self, name: str) -> pl.Expr:
        return self.view.derive.get(name, pl.col(name))

    def _moment(self, name: str) -> pl.Expr:
        return pl.max_horizontal(self._column(name), KNOWN_AT).dt.epoch("us")

    @property
    def alone(self) -> bool:
        """Whether its condition reads derived columns, so that these must be made first."""
        return self.view.where is not None and bool(set(self.view.where.meta.root_names()) & set(self.view.derive))


@dataclass(frozen=True)
class Counted:
    """One view's rows that count: per row its place among all, entity, key, moment (unix microseconds) and values.

    opened: for each ``Active`` of the view the fact's key and the moment of its opening.
    """

    places: list[int]
    entities: list[_Row]
    keys: list[_Row]
    moments: list[int]
    values: list[_Row]
    opened: list[list[tuple[_Row, int]]]

    def part(self, first: int, end: int) -> "Counted":
        """Those of the rows at the places [first, end)."""
        some = slice(bisect_left(self.places, first), bisect_left(self.places, end))
        return Counted(
            places=self.places[some],
            entities=self.entities[some],
            keys=self.keys[some],
            moments=self.moments[some],
            values=self.values[some],
            opened=[facts[some] for facts in self.opened],
        )

    def chosen(self, kept: Sequence[int]) -> "Counted":
        """The kept ones of these rows, by number."""
        return Counted(
            places=[self.places[n] for n in kept],
            entities=[self.entities[n] for n in kept],
            keys=[self.keys[n] for n in kept],
            moments=[self.moments[n] for n in kept],
            values=[self.values[n] for n in kept],
            opened=[[facts[n] for n in kept] for facts in self.opened],
        )


def counted(needs: Sequence[Needs], rows: pl.DataFrame) -> list[Counted]:
    """What each view needs of its source's rows, in the order of ``needs``."""
    different = {
        form: expr for one in needs if not one.alone for form, expr in zip(one.forms, one.expressions, strict=True)
    }
    found = dict(zip(different, _lists(rows, list(different.values())), strict=True))
    return [
        _counted(
            one,
            list(_lists(rows.with_columns(**one.view.derive), one.expressions))
            if one.alone
            else [found[form] for form in one.forms],
            rows.height,
        )
        for one in needs
    ]


def key_rows(rows: pl.DataFrame, key: Sequence[str]) -> list[_Row]:
    """The key of each row, times as integers."""
    return list(zip(*_lists(rows, [pl.col(name) for name in key]), strict=True))


@lru_cache(maxsize=1 << 14)
def ordered(key: _Row) -> str:
    """A text that sorts as the key does; made once for all views of a delivery."""
    return "\x00".join(part if isinstance(part, str) else f"{int(part) + 2**63:020}" for part in key)


def _lists(rows: pl.DataFrame, expressions: Sequence[pl.Expr]) -> Iterator[list[Any]]:
    named = [expr.alias(str(n)) for n, expr in enumerate(expressions)]
    for column in rows.select(named).get_columns() if named else []:
        yield (column.to_physical() if column.dtype.is_temporal() else column).to_list()


def _counted(needs: Needs, lists: list[list[Any]], height: int) -> Counted:
    entities, keys, (moments,), values, condition, *actives = [lists[group] for group in needs.groups]
    by_row = _rows(entities, height)
    holds = condition[0] if condition else [True] * height
    kept = [n for n in range(height) if holds[n] and None not in by_row[n]]
    key_by_row, values_by_row = _rows(keys, height), _rows(values, height)
    opened = []
    for fact, (opening,) in zip(actives[::2], actives[1::2], strict=True):
        facts = _rows(fact, height)
        opened.append([(facts[n], opening[n]) for n in kept])
    return Counted(
        places=kept,
        entities=[by_row[n] for n in kept],
        keys=[key_by_row[n] for n in kept],
        moments=[moments[n] for n in kept],
        values=[values_by_row[n] for n in kept],
        opened=opened,
    )


def _rows(columns: list[list[Any]], height: int) -> list[_Row]:
    return list(zip(*columns, strict=True)) if columns else [()] * height
