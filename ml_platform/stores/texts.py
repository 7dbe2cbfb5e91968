"""Finding and replacing what names an entity in texts that nobody reads by columns: pages, logs, events, tags.

A value that can be told from other words (``N784JB``) is looked for by itself, as a whole word, also as JSON and HTML
write it. One that cannot (``A``, ``703``, ``late``) would be found everywhere, and replacing it would break what it
stands in: it is looked for where its entity's name is beside it (``line=A``, ``"line": "A"``).
"""

import html
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import polars as pl

_SHORTEST = 5  # characters of a value that is looked for by itself
_A_DATE = r"\d{4}-\d\d-\d\d([T ].*)?"
_WORD = r"(?<![A-Za-z0-9])(?:{})(?![A-Za-z0-9])"


def can_be_told(text: str, names: Collection[str]) -> bool:
    """Whether a value stands out in any text: no number, no date, no plain word, none of the house's own names."""
    if len(text) < _SHORTEST or text in names or re.fullmatch(r"[A-Za-z_]+", text):
        return False
    if re.fullmatch(_A_DATE, text):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def written(text: str) -> tuple[str, ...]:
    """A value as it stands in plain text, in JSON (also within a text within JSON), in HTML and in an address."""
    once = json.dumps(text)[1:-1]
    kept = json.dumps(text, ensure_ascii=False)[1:-1]
    forms = (text, once, kept, json.dumps(once)[1:-1], json.dumps(kept, ensure_ascii=False)[1:-1])
    return tuple(dict.fromkeys([*forms, html.escape(text), quote(text), quote(text, safe="")]))


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to look for, and what stands in its place afterwards.

    entity, text: the value. ids: what else names it (the predictions about it). names: the house's own names.
    token: letters, digits and hyphens alone, so that no text is broken by it.
    """

    entity: str
    text: str
    ids: frozenset[str]
    names: frozenset[str]
    token: str

    @cached_property
    def told(self) -> bool:
        """Whether the value is looked for by itself."""
        return can_be_told(self.text, self.names)

    @cached_property
    def _plain(self) -> list[str]:
        """All forms that are looked for by themselves."""
        values = [text for text in (self.text, *sorted(self.ids)) if can_be_told(text, self.names)]
        return list(dict.fromkeys(form for text in values for form in written(text)))

    @cached_property
    def _named(self) -> Sequence[tuple[re.Pattern[str], str]]:
        """The value beside its entity's name, after what is group 1, and what replaces it: in JSON a bare number is
        null then."""
        name, value = re.escape(self.entity), "|".join(map(re.escape, written(self.text)))
        ends = r"(?![A-Za-z0-9.])"
        return (
            (re.compile(rf"(\b{name}=)(?:{value}){ends}"), self.token),
            (re.compile(rf"""(\b{name}\\*["']\s*:\s*\\*["'])(?:{value}){ends}"""), self.token),
            (re.compile(rf"""(\b{name}\\*["']\s*:\s*)(?:{value}){ends}"""), "null"),
        )

    def _said_in(self, text: str) -> bool:
        return any(form in text for form in written(self.text))

    @cached_property
    def _in_bytes(self) -> re.Pattern[bytes] | None:
        """The value as a word of its own, or after its length, as binary formats write it before what comes next."""
        if not self.told:
            return None
        forms = [form.encode() for form in written(self.text)]
        words = [rb"(?<![A-Za-z0-9])" + re.escape(form) + rb"(?![A-Za-z0-9])" for form in forms]
        size = len(forms[0])
        heads = [size.to_bytes(4, "little"), bytes([size & 0xFF]), bytes([0xA0 | size & 0x1F])]
        return re.compile(b"|".join([*words, *(re.escape(head + forms[0]) for head in heads)]))

    def in_bytes(self, content: bytes) -> bool:
        """Whether content of any kind holds the value; never, if it cannot be told."""
        return self._in_bytes is not None and self._in_bytes.search(content) is not None

    def within_bytes(self, content: bytes) -> bool:
        """The same, also where it is part of a longer word: for what has no order any more, such as free pages."""
        return self.told and any(form.encode() in content for form in written(self.text))

    def found(self, texts: Sequence[str]) -> list[bool]:
        """Of each text whether it names what is looked for."""
        return [new != old for old, new in zip(texts, self.replaced(texts), strict=True)]

    def replaced(self, texts: Sequence[str]) -> list[str]:
        """The texts with the token where a name stood."""
        held = self._candidates(texts)
        return [self._replaced(text, forms) for text, forms in zip(texts, held, strict=True)]

    def _candidates(self, texts: Sequence[str]) -> list[list[str]]:
        """Which forms stand in each text, as words or within them; one pass over a text, however many there are."""
        if not self._plain:
            return [[] for _ in texts]
        series = pl.Series(texts, dtype=pl.String)
        found: list[list[str]] = [[] for _ in texts]
        rows = series.str.contains_any(self._plain).arg_true()
        for row, forms in zip(rows, series.gather(rows).str.extract_many(self._plain, overlapping=True), strict=True):
            found[row] = sorted(set(forms), key=len, reverse=True)
        return found

    def _replaced(self, text: str, forms: Iterable[str]) -> str:
        for pattern, instead in self._named if self.entity in text and self._said_in(text) else ():
            text = pattern.sub(rf"\g<1>{instead}", text)
        alternatives = "|".join(map(re.escape, forms))
        return re.sub(_WORD.format(alternatives), self.token, text) if alternatives else text
