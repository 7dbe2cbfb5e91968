"""A model's input as numbers: one float64 row a question, the same whether it comes from a frame or a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import ModelRefused, ModelSpec

Floats = NDArray[np.float64]
Value = float | int | str | None


@dataclass(frozen=True)
class Encoding:
    """The inputs in order: categories as the place of their value in a list learned in training, then numbers.

    A value that training never saw, and a null, are missing (NaN).
    """

    categories: Mapping[str, Sequence[str]]
    numbers: Sequence[str]

    @classmethod
    def learn(cls, spec: ModelSpec, rows: pl.DataFrame) -> "Encoding":
        """From training rows: the task's categorical columns and the features of the spec's views."""
        categories = {name: rows[name].drop_nulls().unique().sort().to_list() for name in spec.task.categorical}
        numbers = [name for name in rows.columns if name.partition("__")[0] in spec.views and "__" in name]
        return cls(categories, numbers)

    @cached_property
    def _codes(self) -> list[tuple[str, dict[Value, float]]]:
        return [(name, {value: float(n) for n, value in enumerate(known)}) for name, known in self.categories.items()]

    @property
    def inputs(self) -> list[str]:
        """Names in the order of the matrix's columns."""
        return [*self.categories, *self.numbers]

    def encoded(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The inputs as float64 columns, missing ones null.

        Raises:
            ModelRefused: the frame lacks inputs.
        """
        self.refuse_missing(rows)
        codes = [
            pl.col(name).replace_strict(list(values), list(range(len(values))), default=None, return_dtype=pl.Float64)
            for name, values in self.categories.items()
        ]
        return rows.select(*codes, pl.col(self.numbers).cast(pl.Float64))

    def frame_matrix(self, rows: pl.DataFrame) -> Floats:
        """(rows, inputs), missing as NaN, row by row in memory."""
        columns = self.encoded(rows).fill_null(float("nan"))
        return np.ascontiguousarray(columns.to_numpy(order="c", writable=True), dtype=np.float64)

    def matrix(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """The same from mappings of input to value, for a few rows and little time.

        Raises:
            ModelRefused: a row lacks an input, or holds something that is no number.
        """
        names = self.inputs
        try:
            ordered = [[row[name] for name in names] for row in rows]
        except KeyError as error:
            self._refuse_missing({error.args[0]})
            raise
        return self.ordered_matrix(ordered)

    def ordered_matrix(self, rows: Sequence[Sequence[Value]]) -> Floats:
        """The same from values in the order of the inputs.

        Raises:
            ModelRefused: a row holds something that is no number, or another number of values.
        """
        try:
            values = [self.codes(row) for row in rows]
            return np.array(values, dtype=np.float64).reshape(len(rows), len(self.inputs))
        except (TypeError, ValueError) as error:
            raise ModelRefused(f"an input of the model is no number ({error}); numbers are {self.numbers}") from error

    def codes(self, row: Sequence[Value]) -> list[Any]:
        """One row of values in the order of the inputs, categories as numbers; None is missing."""
        codes = self._codes
        found = list(row)
        for place, (_, code) in enumerate(codes):
            found[place] = code.get(found[place])
        return found

    def refuse_missing(self, rows: pl.DataFrame) -> None:
        """Look whether a frame holds every input.

        Raises:
            ModelRefused: it lacks some.
        """
        self._refuse_missing(set(self.inputs) - set(rows.columns))

    def _refuse_missing(self, missing: set[str]) -> None:
        if missing:
            raise ModelRefused(
                f"the model was trained with {', '.join(sorted(missing))}, which the rows lack; "
                f"train it again on the features that exist now, or give it those inputs"
            )

    def as_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {"categories": {k: list(v) for k, v in self.categories.items()}, "numbers": list(self.numbers)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Encoding":
        """Back from ``as_json``."""
        return cls(dict(stored["categories"]), list(stored["numbers"]))
