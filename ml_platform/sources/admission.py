"""Rows that hold what was forgotten do not come in again: they are left out before anything else looks at them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from ml_platform.spec import Project, SourceTable
from ml_platform.spec.entities import Recognised, holds, recognised, text_of
from ml_platform.stores.forgotten import Forgotten

Admit = Callable[[SourceTable, pl.DataFrame], pl.DataFrame]


def everything(table: SourceTable, rows: pl.DataFrame) -> pl.DataFrame:
    """Nothing was ever forgotten."""
    return rows


@dataclass(frozen=True)
class Admission:
    """``Admit`` by the record of a state folder; where it is empty it costs nothing."""

    project: Project
    record: Forgotten
    _recognised: dict[str, Recognised] = field(default_factory=dict, repr=False)

    def __call__(self, table: SourceTable, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that hold nothing forgotten, in their order; each different value is hashed once."""
        names = self.record.entities
        if not names or rows.is_empty():
            return rows
        conditions = [
            holds((expression,), forgotten)
            for name, expressions in self._by(table).items()
            if name in names
            for expression in expressions
            if (forgotten := self.record.among(name, rows.select(text_of(expression)).to_series().unique()))
        ]
        return rows.filter(~pl.any_horizontal(conditions)) if conditions else rows

    def _by(self, table: SourceTable) -> Recognised:
        if table.name not in self._recognised:
            self._recognised[table.name] = recognised(self.project, table.name)
        return self._recognised[table.name]
