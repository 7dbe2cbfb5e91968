"""The body of a line as it is stored: each field sealed by a salt of its own, so that one can be taken out for good.

The digest of a line covers the seals, not the values. A field that is taken out leaves its seal and takes its salt
along: the line keeps its digest, no other field can be changed on that occasion, and nobody can try values until one
fits. A body without salts is one from before; its digest covers its text, and nothing can be taken out of it.
"""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

SALTS = "salts"  # the field beside the others: name -> salt; of one that was taken out, its seal
TAKEN_OUT = "(redacted: it named an entity that was forgotten)"  # what readers find in its place
_SALT_BYTES = 16
_ENCODER = json.JSONEncoder(sort_keys=True)  # made once: `json.dumps` makes one each time, which is half of its work


def sealed(body: Mapping[str, Any]) -> str:
    """A new body as it is stored.

    Raises:
        ValueError: a field has the name under which the salts stand.
    """
    if SALTS in body:
        raise ValueError(f"no field of a ledger line may be called {SALTS!r}: the salts of the others stand there")
    return _written({**body, SALTS: {name: secrets.token_hex(_SALT_BYTES) for name in body}})


def digested(text: str) -> str | Sequence[Sequence[str]]:
    """What the digest of a line covers: the seals by name, or of a body from before (or none at all) the text."""
    return examined(text)[0]


def examined(text: str) -> tuple[str | Sequence[Sequence[str]], tuple[str, ...]]:
    """``digested`` and ``taken_out``, of which a look at all lines needs both."""
    parts = _parts(text)
    if parts is None:
        return text, ()
    told, salts = parts
    seals = [[name, _seal(salt, name, told[name]) if name in told else salt] for name, salt in sorted(salts.items())]
    return seals, tuple(name for name, _ in seals if name not in told)


def opened(text: str) -> dict[str, Any]:
    """The fields as they are read; what was taken out is said to be so.

    Raises:
        ValueError: it is no JSON.
    """
    return read(text)[0]


def read(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``opened``, and the names of the fields that are gone; no seal is computed, so a thousand lines are soon read.

    Raises:
        ValueError: it is no JSON.
    """
    parts = _parts(text)
    if parts is None:
        return dict(json.loads(text)), ()
    told, salts = parts
    return {**dict.fromkeys(salts, TAKEN_OUT), **told}, tuple(sorted(salts.keys() - told.keys()))


def taken_out(text: str) -> tuple[str, ...]:
    """The names of the fields that are gone."""
    return read(text)[1]


def fields(text: str) -> Mapping[str, str]:
    """Name -> JSON of each field that can be taken out, with its name; none of a body from before."""
    parts = _parts(text)
    return {} if parts is None else {name: json.dumps({name: value}) for name, value in parts[0].items()}


def without(text: str, names: Collection[str]) -> str:
    """The body after these fields were taken out."""
    parts = _parts(text)
    if parts is None or not parts[0].keys() >= set(names):
        raise ValueError(f"the fields {sorted(names)} cannot be taken out of {sorted(json.loads(text))}")
    told, salts = parts
    seals = {name: _seal(salts[name], name, told[name]) for name in names}
    kept = {name: value for name, value in told.items() if name not in seals}
    return _written({**kept, SALTS: {**salts, **seals}})


def _seal(salt: str, name: str, value: Any) -> str:
    return sha256(_written([salt, name, value]).encode()).hexdigest()


def _written(thing: Any) -> str:
    return _ENCODER.encode(thing)


def _parts(text: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The fields that stand, and all salts; None unless it is written as ``sealed`` and ``without`` do."""
    try:
        body = json.loads(text)
    except ValueError:
        return None
    if not isinstance(body, dict) or _written(body) != text:
        return None
    salts = body.pop(SALTS, None)
    if not isinstance(salts, dict) or not body.keys() <= salts.keys():
        return None
    return (body, salts) if all(isinstance(salt, str) for salt in salts.values()) else None
