"""The production's online store: Redis in Feast's own layout, published newest-wins by a script inside Redis.

An entity is one hash. A feature stands in it under four bytes of a hash of view and name, a view's event time under
``_ts:<view>``; Feast knows these. ``_stamp:<view>`` beside them, which Feast leaves alone, holds the row's event and
creation time, so that of two rows with the same event time the later published wins.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any

import polars as pl

from ml_platform.spec import FeatureView
from ml_platform.stores.exchange import Exchange
from ml_platform.stores.feast_bytes import encode_moment, hash_field, moment_field
from ml_platform.stores.online_batch import Publication, publication
from ml_platform.stores.online_decode import Reply
from ml_platform.stores.online_lookup import Lookup, Question
from ml_platform.stores.online_plan import Fetch, Group, Packer, PlannedReads
from ml_platform.stores.redis_line import RedisLine
from ml_platform.stores.redis_wire import RedisWire, bulk, packed, sha_of

_PATIENCE = timedelta(seconds=2)  # a request that waits for features longer is lost anyway
_ROWS_A_SCRIPT = 32  # Redis answers nobody else meanwhile: about half a millisecond
_ROWS_ENCODED = 1024  # at one go, while Redis works on those before
_SWEPT_A_SCRIPT = 500

# Microseconds of a protobuf Timestamp. Lua's numbers are exact up to 2^53, so the 64 bits are taken in two parts.
_MICROS = """
local function micros(bytes)
  local at, found = 1, {[8] = 0, [16] = 0}
  while at <= #bytes do
    local tag, low, high, weight, n = string.byte(bytes, at), 0, 0, 1, 0
    repeat
      at = at + 1
      local byte = string.byte(bytes, at)
      if n == 7 then weight = 1 end
      if n < 7 then low = low + byte % 128 * weight else high = high + byte % 128 * weight end
      weight = weight * 128
      n = n + 1
    until byte < 128
    if high >= 16384 then high = high - 32768 end
    found[tag] = high * 562949953421312 + low
    at = at + 1
  end
  return found[8] * 1000000 + math.floor(found[16] / 1000)
end
"""

# KEYS: the entities, then the index of ages. ARGV: the view's fields of event time and stamp, creation time, whether an
# index is kept, number of features, their fields; then of each entity event time (protobuf, microseconds) and values.
_PUBLISH = (
    _MICROS
    + """
local moment_field, stamp_field, created = ARGV[1], ARGV[2], ARGV[3]
local indexed, width = ARGV[4] == '1', tonumber(ARGV[5])
local made = tonumber(created)
local at, written = 5 + width, 0
local row, ages = {}, {}
for n = 1, width do row[2 * n - 1] = ARGV[5 + n] end
row[2 * width + 1], row[2 * width + 3] = moment_field, stamp_field
for entity = 1, #KEYS - 1 do
  local key, event = KEYS[entity], ARGV[at + 2]
  local stored = redis.call('HGET', key, moment_field)
  local stays = false
  if stored then
    local before, now = micros(stored), tonumber(event)
    stays = now < before
    if now == before then
      local stamp, same = redis.call('HGET', key, stamp_field), event .. ' '
      stays = stamp and string.sub(stamp, 1, #same) == same and tonumber(string.sub(stamp, #same + 1)) > made
    end
  end
  if not stays then
    for n = 1, width do row[2 * n] = ARGV[at + 2 + n] end
    row[2 * width + 2], row[2 * width + 4] = ARGV[at + 1], event .. ' ' .. created
    redis.call('HSET', key, unpack(row))
    written = written + 1
    ages[2 * written - 1], ages[2 * written] = event, key
  end
  at = at + 2 + width
end
if indexed and written > 0 then redis.call('ZADD', KEYS[#KEYS], unpack(ages)) end
return written
"""
)

# KEYS: the index of ages. ARGV: the oldest moment kept, how many at most, the field of event time, the others.
_SWEEP = (
    _MICROS
    + """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, tonumber(ARGV[2]))
local oldest = tonumber(ARGV[1])
for _, key in ipairs(found) do
  local moment = redis.call('HGET', key, ARGV[3])
  if moment and micros(moment) < oldest then redis.call('HDEL', key, unpack(ARGV, 3)) end
  redis.call('ZREM', KEYS[1], key)
end
return #found
"""
)


class RedisOnlineStore(PlannedReads):
    """The online store of production, by Feast's entity key, on one Redis server (no cluster: its scripts span keys).

    Safe to read from several threads and to write from several processes at once: a view's row of an entity is
    exchanged as a whole, and only for one that is as new.
    """

    def __init__(self, url: str, project: str) -> None:
        """``url``: ``redis[s]://[[user]:password@]host[:port][/database]``. ``project``: Feast's project name.

        Nothing is connected to before it is used.

        Raises:
            DeclarationError: the URL is of another form.
        """
        super().__init__()
        self.project = project
        self._url = url
        self._suffix = project.encode()
        self._wire = RedisWire(url, _PATIENCE)

    def index(self, view: str) -> str:
        """The sorted set of a view's entities by event time, kept where values are not kept for good."""
        return f"_ages:{view}:{self.project}"

    def publish(self, view: FeatureView, rows: pl.DataFrame, published_at: datetime) -> int:
        """See ``Online.publish``; after a failure or a kill some entities may have been written: repeat it."""
        new = publication(view, rows, published_at)
        written = 0
        if new.rows.height:
            written = sum(self._wire.stream(self._commands(new), _PUBLISH))
        if new.oldest is not None:
            self._sweep(view, new.oldest)
        return written

    def _commands(self, new: Publication) -> Iterator[bytes]:
        """One script call for every so many rows; put together here, as each value comes packed already."""
        view = new.view
        fields = [hash_field(view.name, feature) for feature in view.schema()]
        head: list[bytes | int] = [
            moment_field(view.name),
            stamp_field(view.name),
            new.created,
            int(new.oldest is not None),
            len(fields),
        ]
        fixed = b"".join([bulk(self.index(view.name).encode()), *map(_argument, head), *map(bulk, fields)])
        suffix, sha = self._suffix, bulk(sha_of(_PUBLISH).encode())
        for batch in new.batches(_ROWS_ENCODED, around=bulk):
            moments = [bulk(encode_moment(moment)) + _argument(moment) for moment in batch.moments]
            for start in range(0, len(batch.keys), _ROWS_A_SCRIPT):
                some = slice(start, start + _ROWS_A_SCRIPT)
                keys = [bulk(key + suffix) for key in batch.keys[some]]
                columns = (column[some] for column in batch.columns.values())
                cells = chain.from_iterable(zip(moments[some], *columns, strict=True))
                count = 3 + len(keys) + 1 + len(head) + len(fields) + len(keys) * (2 + len(fields))
                script = b"*%d\r\n$7\r\nEVALSHA\r\n%b%b" % (count, sha, _argument(len(keys) + 1))
                yield b"".join([script, *keys, fixed, *cells])

    def _sweep(self, view: FeatureView, oldest: int) -> None:
        fields = [moment_field(view.name), stamp_field(view.name), *(hash_field(view.name, f) for f in view.schema())]
        script = packed("EVAL", _SWEEP, 1, self.index(view.name), oldest, _SWEPT_A_SCRIPT, *fields)
        while self._wire.ask(script, 1)[0] == _SWEPT_A_SCRIPT:
            pass

    def _fetcher(self, groups: Sequence[Group]) -> Fetch:
        pack, ask = self._packer(groups), self._wire.ask

        def fetch(asked: Sequence[Sequence[bytes]]) -> Iterable[Sequence[Reply]]:
            exchange = pack(asked)
            return exchange.take(ask(exchange.packet, exchange.count))

        return fetch

    def _packer(self, groups: Sequence[Group]) -> Packer:
        reading = _Reading(groups, self._suffix)

        def pack(asked: Sequence[Sequence[bytes]]) -> Exchange[Iterable[Sequence[Reply]]]:
            questions = reading.questions(asked)
            commands = [command for _, some in questions for command in some]
            return Exchange(b"".join(commands), len(commands), partial(reading.taken_apart, questions))

        return pack

    def line(self) -> RedisLine:
        """See ``PlannedReads``; nothing is connected to before it is used."""
        return RedisLine(self._wire)

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay in their process."""
        return {"url": self._url, "project": self.project}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect anew."""
        self.__init__(**state)  # type: ignore[misc]


class _Reading:
    """What is asked for the groups of a plan, and how the answers are taken."""

    def __init__(self, groups: Sequence[Group], suffix: bytes) -> None:
        self._lookups = [Lookup(group.decoder.fields, suffix) for group in groups]

    def questions(self, asked: Sequence[Sequence[bytes]]) -> list[Question]:
        return [lookup.question(keys) for lookup, keys in zip(self._lookups, asked, strict=True)]

    def replies(self, questions: Sequence[Question], answers: Iterable[list[Any]]) -> Iterator[Sequence[Reply]]:
        for lookup, question, found in zip(self._lookups, questions, answers, strict=True):
            yield lookup.replies(question, found)

    def taken_apart(self, questions: Sequence[Question], answers: list[Any]) -> Iterator[Sequence[Reply]]:
        if len(questions) == 1:
            return self.replies(questions, [answers])
        left = iter(answers)
        return self.replies(questions, (list(islice(left, len(commands))) for _, commands in questions))


def _argument(value: bytes | int) -> bytes:
    return bulk(value if isinstance(value, bytes) else b"%d" % value)


def stamp_field(view: str) -> bytes:
    """The field of a hash under which we keep a view's event and creation time."""
    return f"_stamp:{view}".encode()
