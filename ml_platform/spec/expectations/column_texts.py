"""Every text of one column is as expected: patterns, lengths, and whether it can be read as something.

A pattern is looked for anywhere in the text, as Python's ``re.search`` does. One that Rust's regular expressions lack
(look-around, back references) is looked for by Python, many times slower.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import polars as pl

from ml_platform.spec.expectations.base import Schema, bounds, within
from ml_platform.spec.expectations.column_values import ValueByValue


def _text(value: pl.Expr, column: str, schema: Schema) -> pl.Expr:
    return value if schema[column] == pl.String else value.cast(pl.String)


_LEAP_DAY = datetime(2020, 2, 29, tzinfo=UTC)
# What one of the engines lacks or reads otherwise: an end of text within a pattern, nested classes, possessive repeats.
_READ_OTHERWISE = re.compile(r"\$(?!$)|\(\?[a-zA-Z]*m|\[\^?\]|\[[^\]]*\[|&&|--|~~|[*+?}]\+|\{,")


@lru_cache(maxsize=1024)
def _for_polars(pattern: str) -> str | None:
    """The pattern as Polars' engine reads it in the same way; ``None`` if it cannot."""
    if _READ_OTHERWISE.search(pattern):
        return None
    if pattern.endswith("$"):  # Python's end of text lies before a last line break, too
        if re.search(r"(?:^|[^\\])(?:\\\\)*\\\$$", pattern) is None:
            pattern = pattern[:-1] + r"\n?\z"
    elif pattern.endswith(r"\Z"):
        pattern = pattern[:-2] + r"\z"
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError:
        return None
    return pattern


def found_in(text: pl.Expr, pattern: str) -> pl.Expr:
    """Whether the pattern occurs in the text, as ``re.search`` finds it."""
    quick = _for_polars(pattern)
    if quick is not None:
        return text.str.contains(quick)
    compiled = re.compile(pattern)
    return each_different(text, lambda value: compiled.search(value) is not None)


def each_different(text: pl.Expr, holds: Callable[[str], bool]) -> pl.Expr:
    """A question that only Python answers, asked once of every different text."""

    def ask(series: pl.Series) -> pl.Series:
        different = series.unique().drop_nulls()
        good = [value for value in different.to_list() if holds(value)]
        return series.is_in(pl.Series(good, dtype=pl.String).implode())

    return text.map_batches(ask, return_dtype=pl.Boolean, is_elementwise=True)


def like(pattern: str, escape: str | None = None) -> str:
    """SQL's LIKE as a regular expression: ``%`` is any text, ``_`` any one character."""
    made, place = [], 0
    while place < len(pattern):
        sign = pattern[place]
        if escape and sign == escape and place + 1 < len(pattern):
            place += 1
            made.append(re.escape(pattern[place]))
        else:
            made.append({"%": "(?s:.*)", "_": "(?s:.)"}.get(sign, re.escape(sign)))
        place += 1
    return rf"\A{''.join(made)}\Z"


@dataclass(frozen=True, kw_only=True)
class ColumnTexts(ValueByValue):
    """About texts; a value that is none is looked at as it is written."""

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether the text is as expected."""
        return self.reads_well(_text(value, self.column, schema))

    @abstractmethod
    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether a text is as expected; null where it is null."""


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValueLengthsToBeBetween(ColumnTexts):
    """The text has between min_value and max_value characters; a strict bound is not part of it."""

    min_value: int | None = None
    max_value: int | None = None
    strict_min: bool = False
    strict_max: bool = False

    def check(self) -> None:
        """There is a bound."""
        super().check()
        if self.min_value is None and self.max_value is None:
            self.refuse("it needs min_value or max_value")

    def default_name(self) -> str:
        """With both bounds."""
        return f"{self.column}_length_between_{bounds(self.min_value, self.max_value)}"

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is as long."""
        return within(text.str.len_chars(), self.min_value, self.max_value, self.strict_min, self.strict_max)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValueLengthsToEqual(ColumnTexts):
    """The text has so many characters."""

    value: float

    def default_name(self) -> str:
        """With the length."""
        return f"{self.column}_length_{self.value:g}"

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is as long."""
        return text.str.len_chars() == self.value


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchRegex(ColumnTexts):
    """The pattern occurs in the text."""

    regex: str

    def check(self) -> None:
        """Python reads the pattern."""
        super().check()
        _compiled(self, [self.regex])

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it does."""
        return found_in(text, self.regex)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotMatchRegex(ColumnTexts):
    """The pattern does not occur in the text."""

    regex: str

    def check(self) -> None:
        """Python reads the pattern."""
        super().check()
        _compiled(self, [self.regex])

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it does not."""
        return ~found_in(text, self.regex)


def _compiled(expectation: ColumnTexts, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            expectation.refuse(f"{pattern!r} is no regular expression ({error})")


def _patterns(text: pl.Expr, patterns: Sequence[str], match_on: str) -> pl.Expr:
    found = [found_in(text, pattern) for pattern in patterns]
    return pl.any_horizontal(found) if match_on == "any" else pl.all_horizontal(found)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchRegexList(ColumnTexts):
    """One of the patterns occurs in the text, or ``all`` of them."""

    regex_list: Sequence[str]
    match_on: str = "any"

    def check(self) -> None:
        """``match_on`` is known."""
        super().check()
        if self.match_on not in ("any", "all") or not self.regex_list:
            self.refuse("match_on is any or all, and regex_list holds a pattern")
        _compiled(self, self.regex_list)

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether they do."""
        return _patterns(text, self.regex_list, self.match_on)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotMatchRegexList(ColumnTexts):
    """None of the patterns occurs in the text."""

    regex_list: Sequence[str]

    def check(self) -> None:
        """There is a pattern."""
        super().check()
        if not self.regex_list:
            self.refuse("regex_list holds no pattern")
        _compiled(self, self.regex_list)

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether none does."""
        return ~_patterns(text, self.regex_list, "any")


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchLikePattern(ColumnTexts):
    """The text is as SQL's LIKE pattern says."""

    like_pattern: str
    escape: str | None = None

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is."""
        return found_in(text, like(self.like_pattern, self.escape))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotMatchLikePattern(ColumnTexts):
    """The text is not as SQL's LIKE pattern says."""

    like_pattern: str
    escape: str | None = None

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is not."""
        return ~found_in(text, like(self.like_pattern, self.escape))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchLikePatternList(ColumnTexts):
    """The text is as one of SQL's LIKE patterns says, or as ``all`` of them."""

    like_pattern_list: Sequence[str]
    match_on: str = "any"
    escape: str | None = None

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is."""
        return _patterns(text, [like(each, self.escape) for each in self.like_pattern_list], self.match_on)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotMatchLikePatternList(ColumnTexts):
    """The text is as none of SQL's LIKE patterns says."""

    like_pattern_list: Sequence[str]
    escape: str | None = None

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is."""
        return ~_patterns(text, [like(each, self.escape) for each in self.like_pattern_list], "any")


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchStrftimeFormat(ColumnTexts):
    """The text can be read as a time by the format, as Python's ``strptime`` reads it."""

    strftime_format: str

    def check(self) -> None:
        """The format can write a time that it reads again."""
        super().check()
        try:
            datetime.strptime(_LEAP_DAY.strftime(self.strftime_format), self.strftime_format)  # noqa: DTZ007
        except ValueError as error:
            self.refuse(f"{self.strftime_format!r} is no format of strptime ({error})")

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it can."""
        return each_different(text, lambda value: _readable(lambda: datetime.strptime(value, self.strftime_format)))  # noqa: DTZ007


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeJsonParseable(ColumnTexts):
    """The text is JSON."""

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is."""
        return each_different(text, lambda value: _readable(lambda: json.loads(value)))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeDateutilParseable(ColumnTexts):
    """The text can be read as a time by ``dateutil``, in whatever way it is written."""

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it can."""
        from dateutil.parser import parse

        return each_different(text, lambda value: _readable(lambda: parse(value)))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToMatchJsonSchema(ColumnTexts):
    """The text is JSON of the shape that a JSON schema says."""

    json_schema: dict[str, Any]

    def reads_well(self, text: pl.Expr) -> pl.Expr:
        """Whether it is; a text that is no JSON is not."""
        from jsonschema import Draft202012Validator
        from jsonschema.validators import validator_for

        kind = validator_for(self.json_schema, default=Draft202012Validator)
        kind.check_schema(self.json_schema)
        shape = kind(self.json_schema)
        return each_different(text, lambda value: _of_shape(value, shape))


def _of_shape(text: str, shape: Any) -> bool:
    try:
        return bool(shape.is_valid(json.loads(text)))
    except ValueError:
        return False


def _readable(read: Callable[[], object]) -> bool:
    try:
        read()
    except (ValueError, OverflowError, RecursionError):
        return False
    return True
