"""What was done to lines is named: changed, removed, inserted, reordered, cut off; and nothing else is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.stores.ledger_chain import GENESIS, Head, Line, behind, breaks, digest_of

START = datetime(2024, 3, 10, tzinfo=UTC)


def chain(count: int) -> list[Line]:
    lines: list[Line] = []
    last = Head(0, GENESIS)
    for n in range(1, count + 1):
        at = (START + timedelta(hours=n)).isoformat()
        lines.append(behind(last, at, "gate", "late", f"v{n}", f'{{"n": {n}}}'))
        last = Head(n, lines[-1].digest)
    return lines


def head_of(lines: list[Line]) -> Head:
    return Head(lines[-1].number, lines[-1].digest) if lines else Head(0, GENESIS)


def renumbered(lines: list[Line]) -> list[Line]:
    return [line._replace(number=n) for n, line in enumerate(lines, 1)]


def rehashed(line: Line) -> Line:
    return line._replace(digest=digest_of(line.before, line.at, line.kind, line.subject, line.key, line.body))


def named(lines: list[Line], head: Head | None) -> list[tuple[str, int]]:
    return [(found.what, found.number) for found in breaks(lines, head)]


@pytest.mark.parametrize("count", range(4))
def test_what_was_written_is_whole(count: int) -> None:
    lines = chain(count)
    assert named(lines, head_of(lines)) == []
    assert all(after.before == before.digest for before, after in pairwise(lines))


def test_lines_behind_the_note_are_whole_for_their_writer_may_have_been_killed() -> None:
    assert named(chain(5), head_of(chain(3))) == []
    assert named(chain(5), head_of([])) == []


@dataclass(frozen=True)
class Ledger:
    """Lines and one of them."""

    lines: list[Line]
    place: int

    @property
    def number(self) -> int:
        return self.place + 1

    @property
    def is_last(self) -> bool:
        return self.number == len(self.lines)

    def without(self, count: int = 1) -> list[Line]:
        return self.lines[: self.place] + self.lines[self.place + count :]

    def with_one_more(self, before: str) -> list[Line]:
        more = rehashed(self.lines[0]._replace(key="forged", before=before))
        return renumbered([*self.lines[: self.place], more, *self.lines[self.place :]])


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    count = draw(st.integers(1, 9))
    return Ledger(chain(count), draw(st.integers(0, count - 1)))


@given(ledgers(), st.sampled_from(["at", "kind", "subject", "key", "body"]))
def test_a_changed_line_is_named(ledger: Ledger, field: str) -> None:
    lines = list(ledger.lines)
    lines[ledger.place] = lines[ledger.place]._replace(**{field: "other"})
    assert named(lines, head_of(ledger.lines)) == [("changed", ledger.number)]
    lines[ledger.place] = rehashed(lines[ledger.place])  # by somebody who knows how digests are made
    assert named(lines, head_of(ledger.lines)) == [("changed", ledger.number)]


@given(ledgers(), st.integers(1, 3), st.booleans())
def test_a_removed_line_is_named_also_where_the_rest_is_numbered_anew(ledger: Ledger, count: int, anew: bool) -> None:
    lines = ledger.without(count)
    lines = renumbered(lines) if anew else lines
    cut = ledger.place + count >= len(ledger.lines)
    found = breaks(lines, head_of(ledger.lines))
    assert [(one.what, one.number) for one in found] == [("cut off" if cut else "removed", ledger.number)]
    if cut and ledger.place + 1 < len(ledger.lines):
        assert found[0].sentence == f"lines {ledger.number} to {len(ledger.lines)} were cut off at the end"


@given(ledgers(), st.booleans())
def test_an_inserted_line_is_named(ledger: Ledger, knows_how: bool) -> None:
    before = ([GENESIS] + [line.digest for line in ledger.lines])[ledger.place] if knows_how else "f" * 64
    assert named(ledger.with_one_more(before), head_of(ledger.lines)) == [("inserted", ledger.number)]


@given(ledgers())
def test_a_line_behind_the_last_that_does_not_follow_it_was_inserted(ledger: Ledger) -> None:
    forged = rehashed(ledger.lines[0]._replace(number=len(ledger.lines) + 1, key="forged", before="f" * 64))
    assert named([*ledger.lines, forged], head_of(ledger.lines)) == [("inserted", forged.number)]


@given(ledgers(), st.data())
def test_reordered_lines_are_named(ledger: Ledger, data: st.DataObject) -> None:
    other = data.draw(st.integers(0, len(ledger.lines) - 1))
    lines = list(ledger.lines)
    lines[ledger.place], lines[other] = lines[other], lines[ledger.place]
    found = named(renumbered(lines), head_of(ledger.lines))
    assert {what for what, _ in found} == (set() if other == ledger.place else {"reordered"})
    assert [number for _, number in found][:1] == ([] if not found else [min(other, ledger.place) + 1])


@given(ledgers())
def test_a_line_that_got_another_number_is_named(ledger: Ledger) -> None:
    moved = ledger.lines[ledger.place]._replace(number=len(ledger.lines) + 5)
    found = named([*ledger.without(), moved], head_of(ledger.lines))
    assert {what for what, _ in found} == {"reordered"}


def test_lines_that_were_cut_off_are_missed_after_others_were_written() -> None:
    head = head_of(chain(5))
    lines = chain(3)
    lines.append(behind(head_of(lines), START.isoformat(), "gate", "late", "new", "{}"))
    assert named(lines, head) == [("cut off", 5)]
    lines.append(behind(head_of(lines), START.isoformat(), "gate", "late", "newer", "{}"))
    (found,) = breaks(lines, head)
    assert (found.what, found.number) == ("changed", 5)
    assert "it was changed or cut off, and another one written" in found.sentence


@pytest.mark.parametrize("count", [0, 3])
def test_without_the_note_nobody_can_tell_the_end(count: int) -> None:
    assert named(chain(count), None) == [("unknown", count + 1)]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "rehash", "remove", "swap", "copy", "cut", "renumber"]),
        st.integers(0, 8),
        st.integers(0, 8),
    ),
    max_size=4,
)


@settings(max_examples=500)
@given(st.integers(0, 8), EDITS)
def test_nothing_but_what_was_written_is_whole(count: int, edits: list[tuple[str, int, int]]) -> None:
    """Any edits of any lines, by somebody who makes digests of single lines, but not the whole chain anew."""
    original = chain(count)
    lines = list(original)
    for what, one, other in edits:
        if not lines:
            break
        at, to = one % len(lines), other % len(lines)
        if what in ("change", "rehash"):
            changed = lines[at]._replace(body=f'{{"n": {other}}}')
            lines[at] = rehashed(changed) if what == "rehash" else changed
        elif what == "remove":
            del lines[at]
        elif what == "swap":
            lines[at], lines[to] = lines[to], lines[at]
            lines[at], lines[to] = (
                lines[at]._replace(number=lines[to].number),
                lines[to]._replace(number=lines[at].number),
            )
        elif what == "copy":
            lines.insert(at, lines[to])
        elif what == "cut":
            del lines[at:]
        lines = renumbered(lines) if what in ("copy", "renumber") else sorted(lines, key=lambda line: line.number)
    assert (named(lines, head_of(original)) == []) == (lines == original)
