"""What every trained model can do, and how it lies in a folder: plain files, never a pickle."""

import hashlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import HAPPENS_AT, ModelRefused, TooFewLabels
from ml_platform.training.contributions import Contributions
from ml_platform.training.encoding import Encoding, Floats, Value

SCHEMA_FILE = "schema.json"
BLOCK = 128  # rows of a matrix product, always as many
STOPPING_SHARE = 0.15  # of the training part's time span, its newest: where training stops getting better
STOPPING_GAP = timedelta(days=1)  # rows this close share their weather and the delays they saw


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """A trained binary classifier with the encoding of its inputs.

    facts: what training found (rounds, losses, threads, versions of libraries).
    importances: input -> share (0..1) of the model's use of it, by the estimator's own measure.
    curves: name -> value after each step, where training watched something; kept in the tracking store alone.
    """

    estimator: ClassVar[str]
    file: ClassVar[str]
    encoding: Encoding
    facts: Mapping[str, Any]
    importances: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def predict(self, rows: pl.DataFrame) -> Floats:
        """P(label = 1) for each row of a frame that holds the inputs."""
        return self.predict_matrix(self.encoding.frame_matrix(rows))

    def predict_rows(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """The same from mappings of input to value; bit for bit the answers of ``predict``."""
        return self.predict_matrix(self.encoding.matrix(rows))

    def predict_row(self, row: Sequence[Value]) -> float:
        """The same of one row, its values in the order of the inputs; for a service, whose rows come one by one.

        Raises:
            ModelRefused: it holds something that is no number.
        """
        return float(self.predict_matrix(self.encoding.ordered_matrix([row]))[0])

    def predict_ordered(self, rows: Sequence[Sequence[Value]]) -> list[float]:
        """The same of several rows, whichever way is quicker."""
        found: list[float] = self.predict_matrix(self.encoding.ordered_matrix(rows)).tolist()
        return found

    def matrix(self, rows: Sequence[Mapping[str, Value]]) -> Floats:
        """The encoded input, float64 of shape (rows, inputs)."""
        return self.encoding.matrix(rows)

    @abstractmethod
    def predict_matrix(self, matrix: Floats) -> Floats:
        """P(label = 1) for each encoded row; a row's answer does not depend on its neighbours."""

    def predict_quantity(self, matrix: Floats) -> Floats | None:
        """The truth's amount, in its unit, for each encoded row; None for a model that learned none."""
        return None

    def weights(self) -> Floats:
        """Every learned number that answers are summed up from (weights, leaf values); empty where none are known."""
        return np.empty(0)

    @abstractmethod
    def contributions(self, row: Floats) -> Contributions:
        """What each input added to the answer to one encoded row of shape (inputs,).

        Raises:
            NoContributions: the family has none; says why.
        """

    @abstractmethod
    def _write(self, path: Path) -> None:
        """Write the estimator's own file."""

    def digests(self) -> dict[str, str]:
        """Digests, by name, of all that decides its answers: those of two models that are the same to the bit agree."""
        return {"inputs": text_digest(json.dumps(self.encoding.as_json())), **self._digests()}

    def _digests(self) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as draft:
            self._write(Path(draft) / self.file)
            return {self.file: _digest(Path(draft) / self.file)}

    def save(self, folder: Path) -> Path:
        """Write the estimator's file and ``schema.json`` into the folder, made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._write(folder / self.file)
        stored = {
            "estimator": self.estimator,
            "sha256": {self.file: _digest(folder / self.file)},
            "content": self._digests(),
            "encoding": self.encoding.as_json(),
            "facts": dict(self.facts),
            "importances": dict(self.importances),
        }
        (folder / SCHEMA_FILE).write_text(json.dumps(stored, indent=1))
        return folder


def read_schema(folder: Path) -> dict[str, Any]:
    """The folder's ``schema.json``, after a look whether the files beside it are the ones that were saved.

    Raises:
        ModelRefused: a file is not there, or not what ``save`` wrote.
    """
    try:
        stored = json.loads((folder / SCHEMA_FILE).read_text())
        # LightGBM ends the process on a truncated file, so no file is opened by its library before this look.
        changed = [name for name, digest in stored["sha256"].items() if _digest(folder / name) != digest]
        found = {
            "estimator": stored["estimator"],
            "encoding": Encoding.from_json(stored["encoding"]),
            "facts": stored["facts"],
            "importances": stored["importances"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(
            f"{folder} holds no model that this platform wrote ({error!r}); train the model again, or name the "
            f"folder of a registered version"
        ) from error
    if changed:
        raise ModelRefused(
            f"{folder}: {', '.join(changed)} is not the file that was saved (its SHA-256 differs); "
            f"restore the folder or train the model again"
        )
    return found


def stored_digests(folder: Path) -> dict[str, str]:
    """``Model.digests`` of the model as it was saved; a loaded one need not be written with the same bytes again.

    Raises:
        ModelRefused: the folder holds no model, or not the files that were saved.
    """
    encoding: Encoding = read_schema(folder)["encoding"]
    stored = json.loads((folder / SCHEMA_FILE).read_text())
    return {"inputs": text_digest(json.dumps(encoding.as_json())), **stored.get("content", stored["sha256"])}


def in_blocks(matrix: Floats, answer: Callable[[Floats], Floats]) -> Floats:
    """``answer`` of ``BLOCK`` rows at a time, the last ones padded: matrix products of other shapes give other bits.

    So a row's answer does not depend on how many are asked with it. matrix: (rows, inputs), at least one row.
    """
    padded = np.zeros((-(-len(matrix) // BLOCK) * BLOCK, matrix.shape[1]))
    padded[: len(matrix)] = matrix
    blocks = [answer(padded[start : start + BLOCK]) for start in range(0, len(padded), BLOCK)]
    return np.concatenate(blocks)[: len(matrix)]


def text_digest(text: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stopping_split(rows: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to fit on, and the newest ones to stop on, with a gap in time between them.

    Raises:
        TooFewLabels: either part has fewer than two classes.
    """
    if rows.is_empty():
        raise TooFewLabels("there are no labelled rows to train on")
    moments: list[datetime] = rows[HAPPENS_AT].sort().to_list()
    first, last = moments[0], moments[-1]
    stop_from = last - (last - first) * STOPPING_SHARE
    numbered = rows.with_row_index("row")
    fit = numbered.filter(pl.col(HAPPENS_AT) < stop_from - STOPPING_GAP)
    stop = numbered.filter(pl.col(HAPPENS_AT) >= stop_from)
    for part, name in ((fit, "to fit on"), (stop, "to stop on")):
        if part["label"].n_unique() < 2:
            raise TooFewLabels(
                f"of {rows.height} labelled rows from {first} to {last}, the {part.height} {name} hold fewer than two "
                f"classes; a model needs both: take a longer train_window"
            )
    return fit["row"].cast(pl.Int64).to_numpy(), stop["row"].cast(pl.Int64).to_numpy()
