"""What a version would answer, computed a month of questions at a time, when somebody asks, and kept."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.decisions.backtest_history import History
from ml_platform.spec import HAPPENS_AT
from ml_platform.training.model import Model

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A model's probabilities for the history's questions. folder: what is kept lies there, found by its content."""

    model: Model
    history: History
    folder: Path
    _months: dict[int, Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, rows: pl.Series) -> Floats:
        """The answers to these questions, by their row (places in ``history.questions``)."""
        places, starts = rows.to_numpy(), self.history.months
        month = np.searchsorted(starts, places, side="right") - 1
        found = np.empty(places.size)
        for number in np.unique(month):
            own = month == number
            found[own] = self._month(int(number))[places[own] - starts[number]]
        return found

    def _month(self, number: int) -> Floats:
        if number not in self._months:
            self._months[number] = self._kept(number)
        return self._months[number]

    def _kept(self, number: int) -> Floats:
        starts = [*self.history.months.tolist(), self.history.questions.height]
        rows = self.history.questions[starts[number] : starts[number + 1]]
        moments = rows[HAPPENS_AT]
        path = self.folder / f"answers-{self.history.digest(moments.item(0), moments.item(-1))[:24]}.npy"
        if path.exists():
            return np.asarray(np.load(path), dtype=np.float64)
        found = self.model.predict(rows)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as target:
            np.save(target, found)
        draft.replace(path)
        return found
