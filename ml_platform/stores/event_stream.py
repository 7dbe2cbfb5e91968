"""Events on their way: a Redis stream of raw rows, read by a group of consumers, and what could not be applied.

A message is one row of one table, as JSON. It stays in the stream until it was applied: who takes it and is killed
leaves it to the others. So it arrives at least once, which is enough where a second delivery changes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

from ml_platform.spec import StoreUnavailable
from ml_platform.stores.redis_wire import RedisWire, Word, called, packed

GROUP = "live"
_PATIENCE = timedelta(seconds=5)  # for each answer; waiting for messages must end before
_LONGEST_WAIT = timedelta(seconds=1)
_LETTERS_AT_ONCE = 1000
_LETTERS_A_SCRIPT = 100  # Redis answers nobody else meanwhile
_ASIDE_KEPT = 100_000  # about; the oldest go first, or bad senders would fill the memory

# KEYS: the stream, the dead letters. ARGV: the group, how many dead letters are kept, how many there are now, of each
# its id, table, row and reason; then the ids of what was applied. A message that somebody else finished is left alone.
_FINISH = """
local function finished(id)
  local own = redis.call('XACK', KEYS[1], ARGV[1], id)
  redis.call('XDEL', KEYS[1], id)
  return own == 1
end
local bad = tonumber(ARGV[3])
for at = 4, 4 * bad, 4 do
  if finished(ARGV[at]) then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*',
               'table', ARGV[at + 1], 'row', ARGV[at + 2], 'reason', ARGV[at + 3], 'id', ARGV[at])
  end
end
for at = 4 * bad + 4, #ARGV do finished(ARGV[at]) end
"""


# KEYS: the dead letters, the stream. ARGV: ids of dead letters. One that somebody else sent again is left alone.
_AGAIN = """
local sent = 0
for _, id in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], id, id)
  if #found == 1 then
    local held = {}
    for at = 1, #found[1][2], 2 do held[found[1][2][at]] = found[1][2][at + 1] end
    redis.call('XADD', KEYS[2], '*', 'table', held['table'], 'row', held['row'])
    redis.call('XDEL', KEYS[1], id)
    sent = sent + 1
  end
end
return sent
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A row as it was sent; ``id`` is its place in the stream."""

    id: bytes
    table: str
    row: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that could not be applied, and why; ``id`` is its place among the dead letters."""

    id: bytes
    table: str
    row: bytes
    reason: str


class EventStream:
    """The project's stream on one Redis server; safe with many senders and many consumers."""

    def __init__(self, url: str, project: str) -> None:
        """Nothing is connected to before it is used; ``url`` as in ``RedisWire``."""
        self._wire = RedisWire(url, _PATIENCE)
        self.stream, self.dead = f"events:{project}", f"events:{project}:dead"

    def send(self, table: str, rows: Sequence[bytes]) -> None:
        """Append rows, each a JSON object.

        Raises:
            StoreUnavailable: Redis is away; some may have been sent: sending all again changes nothing.
        """
        self._wire.stream(packed("XADD", self.stream, "*", "table", table, "row", row) for row in rows)

    def take(self, consumer: str, most: int, wait: timedelta = _LONGEST_WAIT) -> list[Message]:
        """New messages for this consumer, at most so many; an empty list after ``wait`` (at most a second).

        Raises:
            StoreUnavailable: Redis is away.
        """
        milliseconds = max(min(wait, _LONGEST_WAIT) // timedelta(milliseconds=1), 1)
        return self._read(consumer, most, ">", ("BLOCK", milliseconds))

    def taken(self, consumer: str, most: int) -> list[Message]:
        """Those that this consumer took before and did not finish.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._read(consumer, most, "0", ())

    def claim(self, consumer: str, most: int, idle: timedelta) -> list[Message]:
        """Take over what others took longer than ``idle`` ago and did not finish: they were killed.

        Raises:
            StoreUnavailable: Redis is away.
        """
        milliseconds = idle // timedelta(milliseconds=1)
        command = ("XAUTOCLAIM", self.stream, GROUP, consumer, milliseconds, "0-0", "COUNT", most, "JUSTID")
        ((_, claimed, _),) = self._grouped(command)
        return self.taken(consumer, most) if claimed else []

    def finish(self, applied: Sequence[Message], aside: Sequence[tuple[Message, str]]) -> None:
        """These are done: take them out of the stream, those of ``aside`` with their reasons into the dead letters.

        Raises:
            StoreUnavailable: Redis is away; they are delivered again.
        """
        words: list[Word] = [GROUP, _ASIDE_KEPT, len(aside)]
        for message, reason in aside:
            words += (message.id, message.table.encode(errors="replace"), message.row, reason.encode(errors="replace"))
        words += (message.id for message in applied)
        self._wire.stream([called(_FINISH, (self.stream, self.dead), words)], _FINISH)

    def leave(self, consumer: str) -> None:
        """Forget a consumer that has finished all it took.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if not self.taken(consumer, 1):
            self._grouped(("XGROUP", "DELCONSUMER", self.stream, GROUP, consumer))

    def waiting(self) -> int:
        """How many messages were not applied yet.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return int(self._wire.ask(packed("XLEN", self.stream), 1)[0])

    def dead_letters(self) -> Iterator[DeadLetter]:
        """What was set aside, the newest first; what comes meanwhile is left out.

        Raises:
            StoreUnavailable: Redis is away.
        """
        before = "+"
        while True:
            (found,) = self._wire.ask(packed("XREVRANGE", self.dead, before, "-", "COUNT", _LETTERS_AT_ONCE), 1)
            if not found:
                return
            for place, listed in found:
                held = _fields(listed)
                yield DeadLetter(place, _text(held[b"table"]), held[b"row"], _text(held[b"reason"]))
            before = f"({_text(found[-1][0])}"

    def send_again(self, letters: Iterable[DeadLetter]) -> int:
        """Move dead letters to the end of the stream, each wholly or not at all; returns how many were still there.

        Raises:
            StoreUnavailable: Redis is away; some may have been moved: those are not sent twice when it is repeated.
        """
        ids, sent = iter([letter.id for letter in letters]), 0
        while some := list(islice(ids, _LETTERS_A_SCRIPT)):
            sent += sum(self._wire.stream([called(_AGAIN, (self.dead, self.stream), some)], _AGAIN))
        return sent

    def _read(self, consumer: str, most: int, after: str, wait: tuple[Word, ...]) -> list[Message]:
        command = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", most, *wait, "STREAMS", self.stream, after)
        (reply,) = self._grouped(command)
        # What is no message of ours has no table, and is refused by whoever applies it.
        return [
            Message(place, _text(held.get(b"table", b"")), held.get(b"row", b""))
            for _, messages in reply or ()
            for place, held in ((place, _fields(listed)) for place, listed in messages)
        ]

    def _grouped(self, command: Sequence[Word]) -> list[Any]:
        """The reply; the group is made where it is not there yet, from the first message on."""
        try:
            return self._wire.ask(packed(*command), 1)
        except StoreUnavailable as error:
            if not _is(error, "NOGROUP"):
                raise
        try:
            self._wire.ask(packed("XGROUP", "CREATE", self.stream, GROUP, "0", "MKSTREAM"), 1)
        except StoreUnavailable as error:
            if not _is(error, "BUSYGROUP"):
                raise  # another consumer may have made it meanwhile
        return self._wire.ask(packed(*command), 1)


def _is(error: StoreUnavailable, code: str) -> bool:
    """Whether it is this that Redis said."""
    return str(error.__cause__).startswith(code)


def _fields(listed: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """Of a message that was deleted meanwhile nothing is left."""
    return dict(zip(listed[::2], listed[1::2], strict=True)) if listed else {}


def _text(encoded: bytes) -> str:
    return encoded.decode(errors="replace")
