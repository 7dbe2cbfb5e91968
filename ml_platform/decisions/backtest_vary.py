"""Other values for fields of a retraining policy, from words on the command line."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import timedelta
from itertools import product
from typing import Any, get_type_hints

from ml_platform.spec import DeclarationError, RetrainPolicy, UnknownName

_NOT_VARIED = ("name", "description")
_NONE = "none"


def varied(policy: RetrainPolicy, words: Sequence[str]) -> dict[str, RetrainPolicy]:
    """Every combination of ``FIELD=VALUE,VALUE``; a name says what differs. Spans are given in days, ``none`` is None,
    several names stand as A+B.

    Raises:
        UnknownName: the policy has no such field.
        DeclarationError: a value is not of the field's type.
    """
    chosen = [_values(word) for word in words]
    found = {}
    for values in product(*(options for _, options in chosen)):
        given = {field: value for (field, _), value in zip(chosen, values, strict=True)}
        name = " ".join(f"{field}={_shown(value)}" for field, value in given.items())
        found[name] = replace(policy, **given)
    return found if chosen else {}


def _values(word: str) -> tuple[str, list[Any]]:
    name, equals, values = word.partition("=")
    known = [field.name for field in fields(RetrainPolicy) if field.name not in _NOT_VARIED]
    if name not in known:
        raise UnknownName("field of a retraining policy", name, known)
    if not equals or not all(values.split(",")):
        raise DeclarationError(f"{word!r} names no values; write it like {name}=1,2")
    kind = get_type_hints(RetrainPolicy)[name]
    return name, [_value(name, kind, text) for text in values.split(",")]


def _value(name: str, kind: Any, text: str) -> Any:
    """By what the field may hold: a span in days, a whole number, a number, or a word."""
    may = getattr(kind, "__args__", (kind,))
    if Ellipsis in may:
        return () if text == _NONE else tuple(text.split("+"))
    if text == _NONE and type(None) in may:
        return None
    try:
        if timedelta in may:
            return timedelta(days=float(text))
        if bool in may:
            return {"true": True, "false": False}[text]
        if int in may:
            return int(text)
        return float(text) if float in may else text
    except (ValueError, KeyError, OverflowError) as error:
        raise DeclarationError(f"{name}={text} is no value of the field {name}; correct it") from error


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value / timedelta(days=1):g}"
    return _NONE if value is None else f"{value}"
