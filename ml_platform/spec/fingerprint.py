"""A declaration's content as a short text: the same in every process, another when anything in it changes."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

import polars as pl

NOT_CONTENT = {"content": False}  # metadata of a dataclass field that leaves the fingerprint as it is


def fingerprint(*declarations: Any) -> str:
    """16 hexadecimal digits over declarations (dataclasses, mappings, sequences, expressions, functions by name)."""
    plain = json.dumps([_plain(thing) for thing in declarations], sort_keys=True)
    return sha256(plain.encode()).hexdigest()[:16]


def _plain(thing: Any) -> Any:
    if isinstance(thing, pl.Expr):
        return thing.meta.serialize(format="json")  # its repr holds a memory address
    if is_dataclass(thing) and not isinstance(thing, type):
        content = [field.name for field in fields(thing) if field.metadata.get("content", True)]
        return [type(thing).__name__, {name: _plain(getattr(thing, name)) for name in content}]
    if isinstance(thing, Mapping):
        return {str(key): _plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_plain(value) for value in thing]
    if callable(thing):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__name__)}"
    return thing if isinstance(thing, str | int | float | bool | None) else str(thing)
