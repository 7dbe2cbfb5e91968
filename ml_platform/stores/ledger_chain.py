"""The chain of the ledger: every line carries the digest of the line before and its own. Says where it is broken.

It finds what was done to lines that were written. It cannot find who wrote a line, nor a history that somebody made
anew from some line to the end, the note of the head included.

A field may be taken out of a line (``ledger_body.py``) if a later line, a *redaction*, says which one, of which line.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from ml_platform.stores.ledger_body import digested, examined, opened
from ml_platform.stores.ledger_kinds import REDACTION

GENESIS = "0" * 64  # what the first line follows


class Line(NamedTuple):
    """A line as it is stored; ``body`` is JSON, ``before`` and ``digest`` are SHA-256 in hexadecimal digits."""

    number: int
    at: str
    kind: str
    subject: str
    key: str
    body: str
    before: str
    digest: str


class Head(NamedTuple):
    """The line that was written last."""

    number: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Break:
    """Where the chain is not what was written: at which line, what was done there, in words."""

    number: int
    what: Literal["changed", "removed", "inserted", "reordered", "cut off", "taken out", "unknown"]
    sentence: str


def digest_of(before: str, at: str, kind: str, subject: str, key: str, body: str) -> str:
    """Over everything but the number, which the place in the chain gives; of the body over the seals of its fields."""
    return _digest(before, at, kind, subject, key, digested(body))


def _digest(*covered: object) -> str:
    return sha256(json.dumps(covered, ensure_ascii=False).encode()).hexdigest()


def behind(last: Head, at: str, kind: str, subject: str, key: str, body: str) -> Line:
    """The next line."""
    digest = digest_of(last.digest, at, kind, subject, key, body)
    return Line(last.number + 1, at, kind, subject, key, body, last.digest, digest)


def breaks(lines: Sequence[Line], head: Head | None) -> list[Break]:
    """Every break, by line; none means: these are the lines that were written, all of them, in this order.

    lines: all that stand, by number. head: what was noted as the last one, elsewhere; None: the note is gone.
    """
    bodies = [examined(line.body) for line in lines]
    found = [
        Break(number=line.number, what="changed", sentence=f"line {line.number} was changed")
        for line, (body, _) in zip(lines, bodies, strict=True)
        if line.digest != _digest(line.before, line.at, line.kind, line.subject, line.key, body)
    ]
    gone = {line.number: names for line, (_, names) in zip(lines, bodies, strict=True)}
    found += [*_links(lines, head), *_redactions(lines, gone), *_end(lines, head)]
    return sorted(found, key=lambda one: one.number)


def _links(lines: Sequence[Line], head: Head | None) -> Iterator[Break]:
    """The places between two neighbours of which the second does not follow the first."""
    place = {GENESIS: 0, **{line.digest: line.number for line in lines}}
    followed: dict[str, list[int]] = {}
    for line in lines:
        followed.setdefault(line.before, []).append(line.number)
    missing = 0 if head is None or head.digest not in place else head.number - place[head.digest]
    inserted_until = 0
    last = Head(0, GENESIS)
    for line in lines:
        joined = line.before == last.digest
        if (not joined or line.number != last.number + 1) and line.number > inserted_until:
            later = [number for number in followed.get(last.digest, ()) if number > line.number]
            if not joined and later and not _from_elsewhere(line, place, followed):
                inserted_until = later[0]
                yield _inserted(line.number, later[0] - 1)
            else:
                yield _named(last, line, place, followed, head, missing)
        last = Head(line.number, line.digest)


def _redactions(lines: Sequence[Line], missing: Mapping[int, Sequence[str]]) -> Iterator[Break]:
    """Fields that are gone although no redaction says so, and those that stand again although one does."""
    said: dict[tuple[int, str], dict[str, int]] = {}
    for line in lines:
        if line.kind == REDACTION:
            told: dict[str, Any] = opened(line.body) if _is_object(line.body) else {}
            of, names = told.get("line"), told.get("fields")
            if isinstance(of, int) and of < line.number and isinstance(names, list):
                said.setdefault((of, str(told.get("digest"))), {}).update(dict.fromkeys(map(str, names), line.number))
    for line in lines:
        gone, redacted = set(missing[line.number]), said.get((line.number, line.digest), {})
        for name in sorted(gone - redacted.keys()):
            out = f"{name!r} was taken out of line {line.number}, and no redaction says so"
            yield Break(number=line.number, what="taken out", sentence=out)
        for name in sorted(redacted.keys() - gone):
            back = f"line {line.number} says {name!r} again, which line {redacted[name]} says was taken out"
            yield Break(number=line.number, what="changed", sentence=back)


def _is_object(body: str) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _from_elsewhere(line: Line, place: dict[str, int], followed: dict[str, list[int]]) -> bool:
    """Whether it is the one line that follows another one that stands: then it was moved here, and not made up."""
    return line.before in place and len(followed[line.before]) == 1


def _named(
    last: Head, line: Line, place: dict[str, int], followed: dict[str, list[int]], head: Head | None, missing: int
) -> Break:
    before = place.get(line.before)
    if before is not None and len(followed[line.before]) > 1:
        return _forked(last, line, before, head, place)
    if before is not None:
        moved = f"line {line.number} was moved: it was written behind line {before}"
        return Break(number=line.number, what="reordered", sentence=moved)
    if head is not None and head.digest == last.digest:
        return _inserted(line.number, line.number)  # nothing that was written stands behind the noted line
    if line.number > last.number + 1:
        return _removed(last.number + 1, line.number - 1)
    if missing > 0:
        gone = f"behind line {last.number} lines were removed, and those that follow numbered anew"
        return Break(number=last.number + 1, what="removed", sentence=gone)
    if head is not None and head.digest in place:
        anew = f"line {last.number} was changed, and its digest with it"
        return Break(number=last.number, what="changed", sentence=anew)
    either = f"line {last.number} was changed, and its digest with it, or lines behind it were removed"
    return Break(number=last.number, what="changed", sentence=either)


def _forked(last: Head, line: Line, before: int, head: Head | None, place: dict[str, int]) -> Break:
    """Two lines follow the same one; what leads to the noted head was written, the other one not."""
    if head is not None and before < place.get(head.digest, 0) < line.number:
        return _inserted(line.number, line.number)
    return _inserted(before + 1, last.number)


def _removed(first: int, last: int) -> Break:
    return Break(number=first, what="removed", sentence=f"{_span(first, last)} removed")


def _inserted(first: int, last: int) -> Break:
    return Break(number=first, what="inserted", sentence=f"{_span(first, last)} inserted")


def _span(first: int, last: int) -> str:
    return f"line {first} was" if first == last else f"lines {first} to {last} were"


def _end(lines: Sequence[Line], head: Head | None) -> Iterator[Break]:
    """Whether the line that was noted as the last one is there."""
    last = lines[-1].number if lines else 0
    if head is None:
        gone = "the note of the last line is gone or damaged, so that nobody can tell whether lines were cut off"
        yield Break(number=last + 1, what="unknown", sentence=gone)
    elif head.number > last and head.digest not in {line.digest for line in lines}:
        yield Break(number=last + 1, what="cut off", sentence=f"{_span(last + 1, head.number)} cut off at the end")
    elif head.number and head.digest not in {line.digest for line in lines}:
        other = f"line {head.number} is not the one that was noted: it was changed or cut off, and another one written"
        yield Break(number=head.number, what="changed", sentence=other)
