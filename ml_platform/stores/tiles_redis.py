"""The production's store of live windows: tiles of events in Redis, safe with many writers at once.

The tiles of one entity's log are one hash: of tile 7 the field ``e7`` holds the events, ``p7`` what says all about it
as a whole, after eight bytes with the moment until which it is asked for. A sorted set of the hashes by the first such
moment lets ``prune`` find what is out of reach.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.stores.exchange import Exchange
from ml_platform.stores.redis_wire import RedisWire, Word, called, packed
from ml_platform.stores.tiles import Change, Found, SqliteTiles, TileStore, Wanted

_PATIENCE = timedelta(seconds=2)  # a request that waits for features longer is lost anyway
_TILES_A_SCRIPT = 64  # Redis answers nobody else meanwhile: less than a millisecond
_TILES_A_TRIP = 1 << 13  # more would only take memory, here and there
_HEAD = 8  # bytes of ``until`` before a tile's parts
# How long after its last tile's ``until`` a whole hash expires, though nobody prunes it any more. Only where that
# moment still lies ahead: a replay's tiles belong to the past, and its clock is not that of Redis.
_NET_MS = timedelta(days=35) // timedelta(milliseconds=1)

# KEYS: hashes of tiles. ARGV: of each the field.
_READ = """
local found = {}
for n, key in ipairs(KEYS) do found[n] = redis.call('HGET', key, ARGV[n]) end
return found
"""

# KEYS: the index, then hashes of tiles. ARGV: the net in milliseconds, then of each its tile, until, the digest of the
# events that were read ('': there were none), the new parts and events. Returns (place, events as they stand) of those
# that another writer had changed.
_WRITE = """
local net, missed = tonumber(ARGV[1]), {}
local now = redis.call('TIME')[1] * 1000
for n = 2, #KEYS do
  local key, at = KEYS[n], 5 * n - 8
  local tile, till, seen = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local held = redis.call('HGET', key, 'e' .. tile)
  if seen ~= (held and redis.sha1hex(held) or '') then
    missed[#missed + 1] = {n - 2, held}
  else
    local was = held and redis.call('HGET', key, 'p' .. tile)
    if was then till = math.max(till, (struct.unpack('>l', was))) end
    local parts = struct.pack('>l', till) .. ARGV[at + 3]
    redis.call('HSET', key, 'e' .. tile, ARGV[at + 4], 'p' .. tile, parts)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[at + 1], key)
    local ends = math.floor(till / 1000)
    if ends > now and ends + net > redis.call('PEXPIRETIME', key) then redis.call('PEXPIREAT', key, ends + net) end
  end
end
return missed
"""

# KEYS: the index, then hashes. ARGV: the moment. Drops their tiles that nobody asks for after it, and sets the others'
# first such moment anew; a hash that expired leaves the index.
_PRUNE = """
local before = tonumber(ARGV[1])
for n = 2, #KEYS do
  local key, first = KEYS[n], nil
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 1) == 'p' then
      local till = struct.unpack('>l', redis.call('HGET', key, field))
      if till < before then
        redis.call('HDEL', key, field, 'e' .. string.sub(field, 2))
      elseif not first or till < first then
        first = till
      end
    end
  end
  if first then redis.call('ZADD', KEYS[1], string.format('%.0f', first), key) else redis.call('ZREM', KEYS[1], key) end
end
"""

_Any = TypeVar("_Any")
Make = Callable[[bytes | None], tuple[bytes, bytes] | None]


@dataclass
class _Draft:
    """All changes of one tile, and its events as they were read."""

    key: bytes
    tile: int
    until: int
    makes: list[Make]
    held: bytes | None = None

    def made(self) -> tuple[int, tuple[bytes, bytes]] | None:
        """How many of the changes did something, and what they made of the tile."""
        events, new, count = self.held, None, 0
        for make in self.makes:
            found = make(events)
            if found is not None:
                new, events, count = found, found[1], count + 1
        return (count, new) if new is not None else None


class RedisTiles:
    """Tiles on one Redis server (no cluster: its scripts span keys).

    A tile is exchanged only if its events are still those that the change was made from; else the change is made
    again. So writers never wait for each other, and none undoes what another did.
    """

    def __init__(self, url: str, project: str) -> None:
        """``project`` keeps projects apart on one server. Nothing is connected to before it is used."""
        self._wire = RedisWire(url, _PATIENCE)
        self._prefix = f"live:{project}:".encode()
        self._index = f"live:{project}".encode()

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """Everything asked for, in the order asked; one round trip.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if not wanted:
            return []
        question = self.pack(wanted)
        return question.take(self._wire.ask(question.packet, question.count))

    def pack(self, wanted: Sequence[Wanted]) -> Exchange[list[Found]]:
        """The same as a question that is sent by somebody else."""
        asked = [
            packed("HMGET", self._key(one.log, one.entity), *_fields(one.first, one.last, one.opened)) for one in wanted
        ]

        def take(replies: list[Any]) -> list[Found]:
            return [_found(one, values) for one, values in zip(wanted, replies, strict=True)]

        return Exchange(b"".join(asked), len(asked), take)

    def update(self, changes: Sequence[Change]) -> int:
        """Make the changes, each whole or not at all; returns how many changed their tile.

        Two round trips for up to 8,192 tiles, and one more for each time that another writer was quicker.

        Raises:
            StoreUnavailable: Redis is away; some changes may have been made: repeat them all.
        """
        drafts: dict[tuple[bytes, int], _Draft] = {}
        for change in changes:
            key = self._key(change.log, change.entity)
            draft = drafts.get((key, change.tile))
            if draft is None:
                draft = drafts[key, change.tile] = _Draft(key, change.tile, change.until, [])
            draft.until = max(draft.until, change.until)
            draft.makes.append(change.make)
        written = 0
        for pending in _cut(list(drafts.values()), _TILES_A_TRIP):
            self._read_events(pending)
            while pending:
                counts, pending = self._write(pending)
                written += counts
        return written

    def together(self) -> AbstractContextManager[None]:
        """Each update stands for itself."""
        return nullcontext()

    def prune(self, before: int) -> None:
        """Drop the tiles that nobody asks for after ``before`` (unix microseconds).

        Raises:
            StoreUnavailable: Redis is away.
        """
        (keys,) = self._wire.ask(packed("ZRANGEBYSCORE", self._index, "-inf", f"({before}"), 1)
        self._wire.stream((called(_PRUNE, (self._index, *some), (before,)) for some in _cut(keys)), _PRUNE)

    def _read_events(self, drafts: Sequence[_Draft]) -> None:
        calls = (called(_READ, [d.key for d in some], [b"e%d" % d.tile for d in some]) for some in _cut(drafts))
        held = [events for reply in self._wire.stream(calls, _READ) for events in reply]
        for draft, events in zip(drafts, held, strict=True):
            draft.held = events

    def _write(self, drafts: Sequence[_Draft]) -> tuple[int, list[_Draft]]:
        """How many changes were written, and the tiles of which another writer was quicker."""
        parts: list[list[tuple[_Draft, int]]] = []

        def calls() -> Iterator[bytes]:
            for some in _cut(drafts):
                written: list[tuple[_Draft, int]] = []
                words: list[Word] = [_NET_MS]
                for draft in some:
                    found = draft.made()
                    if found is not None:
                        count, (whole, events) = found
                        seen = "" if draft.held is None else sha1(draft.held, usedforsecurity=False).hexdigest()
                        words += (draft.tile, draft.until, seen, whole, events)
                        written.append((draft, count))
                if written:
                    parts.append(written)
                    yield called(_WRITE, [self._index, *(draft.key for draft, _ in written)], words)

        missed, lost = [], 0
        for written, reply in zip(parts, self._wire.stream(calls(), _WRITE), strict=True):
            for n, events in reply:
                draft, count = written[n]
                draft.held = events
                lost += count
                missed.append(draft)
        return sum(count for written in parts for _, count in written) - lost, missed

    def _key(self, log: str, entity: bytes) -> bytes:
        return b"%b%b:%b" % (self._prefix, log.encode(), entity)


def tile_store(redis_url: str | None, path: Path, project: str) -> TileStore:
    """The store of live windows of a profile: on Redis where it has one, else in a SQLite file."""
    return RedisTiles(redis_url, project) if redis_url else SqliteTiles(path)


@lru_cache(maxsize=1 << 12)
def _fields(first: int, last: int, opened: tuple[int, ...]) -> list[bytes]:
    return [b"p%d" % tile for tile in range(first, last + 1)] + [b"e%d" % tile for tile in opened]


def _found(one: Wanted, values: Sequence[bytes | None]) -> Found:
    found, count = Found(), one.last - one.first + 1
    for n, parts in enumerate(values[:count]):
        if parts is not None:
            found.parts[one.first + n] = parts[_HEAD:]
    for tile, events in zip(one.opened, values[count:], strict=True):
        if events is not None:
            found.events[tile] = events
    return found


def _cut(listed: Sequence[_Any], size: int = _TILES_A_SCRIPT) -> list[Sequence[_Any]]:
    return [listed[start : start + size] for start in range(0, len(listed), size)]
