"""Messages taken out of the stream of events and out of its dead letters. No consumer may be at work meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from ml_platform.spec import StoreUnavailable
from ml_platform.stores.event_stream import GROUP
from ml_platform.stores.redis_keys import PATIENCE, rewrite_disk
from ml_platform.stores.redis_wire import RedisWire, called, packed

_AT_ONCE = 500

# KEYS: a stream, a key for its copy. ARGV: ids of messages to leave out. Deleting a message only marks it, and its
# bytes stay until its neighbours go, too: so the others are copied. The groups go; the next consumer makes its own, to
# which every message is delivered, and a second time changes nothing.
_WITHOUT = """
local gone, after = {}, '-'
for _, id in ipairs(ARGV) do gone[id] = true end
redis.call('DEL', KEYS[2])
while true do
  local some = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 500)
  if #some == 0 then break end
  for _, message in ipairs(some) do
    if not gone[message[1]] then redis.call('XADD', KEYS[2], message[1], unpack(message[2])) end
    after = '(' .. message[1]
  end
end
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message, or a dead letter with its reason."""

    id: bytes
    table: str
    row: bytes
    reason: str = ""


class StreamPurge:
    """Of a project's stream on one Redis server."""

    def __init__(self, url: str, project: str) -> None:
        """As ``EventStream``."""
        self._wire = RedisWire(url, PATIENCE)
        self.stream, self.dead = f"events:{project}", f"events:{project}:dead"

    def holding(self, stream: str, chosen: Callable[[Sent], bool]) -> list[bytes]:
        """The ids of the chosen messages in the stream or in the dead letters.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return [message.id for message in self._messages(stream) if chosen(message)]

    def drop(self, stream: str, chosen: Callable[[Sent], bool]) -> None:
        """Remove the chosen messages; the others stay as they are, and those sent meanwhile, too.

        Raises:
            StoreUnavailable: Redis is away.
        """
        ids = self.holding(stream, chosen)
        if ids:
            self._wire.stream([called(_WITHOUT, (stream, f"{stream}:kept"), ids)], _WITHOUT)

    def rewrite_disk(self) -> str | None:
        """See ``redis_keys.rewrite_disk``."""
        return rewrite_disk(self._wire)

    def at_work(self, within: timedelta) -> list[str]:
        """Consumers that asked for messages so lately that they are still there.

        Raises:
            StoreUnavailable: Redis is away.
        """
        try:
            (found,) = self._wire.ask(packed("XINFO", "CONSUMERS", self.stream, GROUP), 1)
        except StoreUnavailable as error:
            if str(error.__cause__).startswith(("ERR no such key", "NOGROUP")):
                return []
            raise
        told = [dict(zip(each[::2], each[1::2], strict=True)) for each in found]
        return [each[b"name"].decode() for each in told if timedelta(milliseconds=each[b"idle"]) < within]

    def _messages(self, stream: str) -> Iterator[Sent]:
        after = "-"
        while True:
            (found,) = self._wire.ask(packed("XRANGE", stream, after, "+", "COUNT", _AT_ONCE), 1)
            if not found:
                return
            for place, listed in found:
                held = dict(zip(listed[::2], listed[1::2], strict=True))
                reason = held.get(b"reason", b"").decode(errors="replace")
                yield Sent(place, held.get(b"table", b"").decode(errors="replace"), held.get(b"row", b""), reason)
            after = f"({found[-1][0].decode()}"
