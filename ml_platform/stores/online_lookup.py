"""How Redis is asked for some fields of many hashes: each by its name, or all that a hash has where that is cheaper.

Redis keeps a small hash as one list and looks for each field from the list's start: k of n fields cost it about k n / 2
comparisons, while all n cost n copies on both sides of the wire, some of them in vain. Measured (Redis 7.0, decoding
included) the second is a twelfth cheaper for 32 of 34 fields and takes half for 64 of 64, but a twentieth dearer for 16
of 17: so whole hashes are read where n is below k^2 / 24. The answers are the same.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from ml_platform.stores.feast_bytes import hash_field, moment_field
from ml_platform.stores.online_decode import Reply
from ml_platform.stores.redis_wire import bulk

Question = tuple[bool, list[bytes]]  # whether whole hashes are asked for, and the commands as Redis reads them

_NAMES_KEPT = 256  # orders of fields; as many as there are orders in which views were published to an entity


class Lookup:
    """Asks for these fields; what answers have shown decides how the next question is put. Threads may share it."""

    def __init__(self, fields: Sequence[tuple[str, str | None]], suffix: bytes) -> None:
        """``fields``: view and feature, or view and None for its event time; ``suffix``: of every key."""
        self._names = [moment_field(view) if name is None else hash_field(view, name) for view, name in fields]
        named = b"".join(map(bulk, self._names))
        self._suffix = suffix
        self._some = (b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2), suffix + b"\r\n" + named)
        self._all = (b"*2\r\n$7\r\nHGETALL\r\n$", suffix + b"\r\n")
        self._most = len(fields) ** 2 // 24  # fields of a hash that is read whole
        self._whole = False
        self._picks: dict[tuple[bytes, ...], Callable[[Sequence[Any]], Reply]] = {}
        self._last: tuple[list[bytes], Callable[[Sequence[Any]], Reply]] | None = None

    def question(self, keys: Sequence[bytes]) -> Question:
        """What is to be asked for these keys; each command has one answer."""
        whole, more = self._whole, len(self._suffix)
        head, tail = self._all if whole else self._some
        commands = [b"%b%d\r\n%b%b" % (head, len(key) + more, key, tail) for key in keys]
        if not whole and keys and self._most >= len(self._names):  # how many it has decides about the next question
            commands.append(b"*2\r\n$4\r\nHLEN\r\n$%d\r\n%b%b\r\n" % (len(keys[0]) + more, keys[0], self._suffix))
        return whole, commands

    def replies(self, question: Question, answers: list[Any]) -> list[Reply]:
        """The fields of each key, in order, from the answers to the commands."""
        if not question[0]:
            if answers and isinstance(answers[-1], int):
                self._whole = 0 < answers.pop() <= self._most
            return answers
        found: list[Reply] = []
        for answer in answers:
            names = answer[::2]
            last = self._last
            if last is None or names != last[0]:
                last = self._last = (names, self._pick(names))
            found.append(last[1](answer))
        if max(map(len, answers), default=0) > 2 * self._most:
            self._whole = False
        return found

    def _pick(self, names: list[bytes]) -> Callable[[Sequence[Any]], Reply]:
        """What takes our fields from an answer with these names in this order; a field that is not there is None."""
        known = self._picks.get(tuple(names))
        if known is None:
            place = {name: 2 * n + 1 for n, name in enumerate(names)}
            take = itemgetter(*(place.get(name, -1) for name in self._names))
            known = take if all(name in place for name in self._names) else lambda answer: take([*answer, None])
            if len(self._picks) >= _NAMES_KEPT:
                self._picks.clear()
            self._picks[tuple(names)] = known
        return known
