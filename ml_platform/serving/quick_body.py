"""Bodies of ``/predict`` read at one go into rows that are known to be right; whatever is not takes the exact way.

It accepts less than ``requests.check_rows`` or as much, never more and never anything else: so whoever is refused here
is asked about again there, where the sentence of the refusal is made.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple

from ml_platform.serving.requests import (
    ANY_KEY,
    EARLIEST,
    INT64,
    LARGEST,
    LATEST,
    LONGEST,
    Row,
    RowRules,
    check_moment,
)
from ml_platform.spec import RequestRefused

_Int = Annotated[int, msgspec.Meta(ge=-INT64, le=INT64 - 1)]
_Float = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
_TYPES: Mapping[str, Any] = {
    "string": _Text,
    "int64": _Int,
    ANY_KEY: _Text | _Int,
    "float64": _Int | _Float,
    "bool": bool,
    "timestamp": _Text,
}


class BodyReader:
    """Reads bodies by some rules, compiled once."""

    def __init__(self, rules: RowRules) -> None:
        """``rules``: what a row must hold."""
        self.rules = rules
        self._names = tuple(rules.types)
        self._times = [name for name, wanted in rules.types.items() if wanted == "timestamp"]
        # A field may have any name, an attribute may not.
        attributes = {f"f{place}": name for place, name in enumerate(self._names)}
        fields = [
            (attribute, _TYPES[rules.types[name]] if name == rules.key else _TYPES[rules.types[name]] | None)
            for attribute, name in attributes.items()
        ]
        row = msgspec.defstruct("Row", fields, rename=attributes, forbid_unknown_fields=True)
        rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=rules.max_rows)]  # type: ignore[valid-type]
        body = msgspec.defstruct("Body", [("rows", rows), ("asked_at", str | None, None)], forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(body).decode

    def read(self, body: bytes) -> tuple[list[Row], str | None] | None:
        """The rows and ``asked_at`` as it was sent; None where the exact way has to judge.

        What rows say of forgotten entities and whether ``asked_at`` is a moment is not looked at.
        """
        try:
            found: Any = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        rows: list[Row] = [dict(zip(self._names, astuple(row), strict=True)) for row in found.rows]
        if len(rows) > 1 and len({row[self.rules.key] for row in rows}) < len(rows):
            return None
        if self._times and not self._moments(rows):
            return None
        return rows, found.asked_at

    def _moments(self, rows: list[Row]) -> bool:
        try:
            for row in rows:
                for name in self._times:
                    if row[name] is not None:
                        check_moment(str(row[name]), name, EARLIEST, LATEST)
        except RequestRefused:
            return False
        return True
