"""One row through a LightGBM booster by the library's own quick way, which prepares all but the row beforehand.

``Booster.predict`` spends more on putting a call together than on the trees. The answers are the same to the bit; that
is looked at whenever a model is loaded.
"""

import ctypes
import struct
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.spec import ModelRefused

Floats = NDArray[np.float64]
_FLOAT64, _PROBABILITY = 1, 0  # C_API_DTYPE_FLOAT64, C_API_PREDICT_NORMAL
_ALL_TREES, _FROM_THE_FIRST = -1, 0
_NAN = float("nan")
_GOLDEN_ROWS = 64
_MISSING_SHARE = 0.15


@lru_cache(maxsize=1)
def _library() -> ctypes.PyDLL:
    """LightGBM's library, called without letting go of Python's lock: getting it back may take longer than a row."""
    from lightgbm.libpath import _find_lib_path

    library = ctypes.PyDLL(_find_lib_path()[0])
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    library.LGBM_FastConfigFree.argtypes = [ctypes.c_void_p]
    library.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [ctypes.c_void_p] * 4
    return library


class _Prepared:
    """A call that is ready but for its row; of one thread, since the row and the answer lie in it."""

    def __init__(self, booster: Any, width: int) -> None:
        library = _library()
        self.row = ctypes.create_string_buffer(8 * width)
        self._count = ctypes.c_int64(0)
        self._answer = ctypes.c_double(0.0)
        found = ctypes.c_void_p()
        code = library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle,
            ctypes.c_int(_PROBABILITY),
            ctypes.c_int(_FROM_THE_FIRST),
            ctypes.c_int(_ALL_TREES),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(width),
            b"num_threads=1",
            ctypes.byref(found),
        )
        if code:
            raise ModelRefused(f"LightGBM cannot prepare single rows of this model: {library.LGBM_GetLastError()!r}")
        weakref.finalize(self, library.LGBM_FastConfigFree, found.value)
        addresses = (ctypes.addressof(part) for part in (self.row, self._count, self._answer))
        row, count, answer = (ctypes.c_void_p(address) for address in addresses)
        self._booster = booster  # it must outlive what was prepared
        self._call: Callable[[], int] = partial(
            library.LGBM_BoosterPredictForMatSingleRowFast, found, row, count, answer
        )

    def predict(self) -> float:
        if self._call():
            raise ModelRefused(f"LightGBM did not answer a row: {_library().LGBM_GetLastError()!r}")
        return self._answer.value


class SingleRow:
    """P(label = 1) of one encoded row; safe to use from several threads."""

    def __init__(self, booster: Any, width: int) -> None:
        """``booster``: a binary classifier; ``width``: its number of inputs. Nothing is prepared before it is used."""
        self._booster, self._width = booster, width
        self._pack = struct.Struct(f"{width}d").pack_into
        self._local = threading.local()

    def __reduce__(self) -> tuple[type["SingleRow"], tuple[Any, int]]:
        """What was prepared stays in its process."""
        return SingleRow, (self._booster, self._width)

    def __call__(self, row: Sequence[float | None]) -> float:
        """The answer; None is missing.

        Raises:
            TypeError, ValueError: something in the row is no number.
        """
        prepared: _Prepared | None = getattr(self._local, "prepared", None)
        if prepared is None:
            prepared = self._local.prepared = _Prepared(self._booster, self._width)
        try:
            self._pack(prepared.row, 0, *row)
        except struct.error:  # something is missing, or wrong
            if len(row) != self._width:
                raise ValueError(f"{self._width} values are wanted, not {len(row)}") from None
            self._pack(prepared.row, 0, *[_NAN if value is None else float(value) for value in row])
        return prepared.predict()


def golden_rows(booster: Any) -> Floats:
    """Rows that ask as much of the trees as a few can: values around those of training, zeros, and missing ones.

    Always the same for a booster; shape (rows, inputs).
    """
    draw = np.random.default_rng(0)
    infos = booster.dump_model(num_iteration=1)["feature_infos"]  # an input that was always missing has none
    rows = np.stack([_column(infos.get(name, {}), draw) for name in booster.feature_name()], axis=1)
    rows[draw.random(rows.shape) < _MISSING_SHARE] = np.nan
    rows[0], rows[1] = np.nan, 0.0
    return np.ascontiguousarray(rows)


def _column(info: Any, draw: np.random.Generator) -> Floats:
    known = info.get("values") or []
    if known:  # a category: one that is known, or none
        return draw.choice([*map(float, known), -1.0, max(known) + 1.0], _GOLDEN_ROWS)
    low, high = float(info.get("min_value", 0.0)), float(info.get("max_value", 0.0))
    if not np.isfinite([low, high]).all():
        low, high = -1.0, 1.0
    margin = 0.1 * (high - low)
    return draw.uniform(low - margin, high + margin, _GOLDEN_ROWS)


def refuse_differing(booster: Any, single: SingleRow) -> None:
    """Compare the quick way with ``Booster.predict`` on the golden rows.

    Raises:
        ModelRefused: an answer differs in any bit.
    """
    rows = golden_rows(booster)
    expected = np.asarray(booster.predict(rows, validate_features=False, num_threads=1))
    found = np.array([single(row) for row in rows.tolist()])
    if expected.shape != found.shape or (differing := int((expected != found).sum())):
        raise ModelRefused(
            f"LightGBM answers {len(rows)} rows otherwise one by one than together "
            f"({differing if expected.shape == found.shape else 'another number of answers'} differ); "
            f"install the version of LightGBM that the lock names"
        )
