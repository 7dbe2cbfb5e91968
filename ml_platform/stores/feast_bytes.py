"""Feast's byte layout of entity keys (serialization version 3), values and moments, without importing Feast.

Source: feast 0.67 ``key_encoding_utils.serialize_entity_key``, ``online_stores.helpers._mmh3``, ``feast.types.Value``;
protobuf's ``Timestamp``. Tests compare the bytes.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import mmh3
import numpy as np
import polars as pl

STRING_TYPE, INT64_TYPE = 2, 4  # feast.types.ValueType
DOUBLE_TAG = 0x29  # field number << 3 | wire type, of feast.types.Value
DOUBLE_SIZE = 9  # bytes of a double value: the tag and eight more
_INT64_TAG = 0x20
_SECONDS_TAG, _NANOS_TAG = 0x08, 0x10  # of google.protobuf.Timestamp

ZERO_DOUBLE = b"\x29" + bytes(8)
_DOUBLE = struct.Struct("<Bd")
_STRING_HEAD = struct.Struct("<II")
_INT64_KEY = struct.Struct("<IIq")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

KeyValue = str | int
Value = float | int | None


def micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware moment."""
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache
def entity_key_encoder(names: tuple[str, ...]) -> Callable[[Sequence[KeyValue]], bytes]:
    """A function from key values, in the order of ``names``, to Feast's bytes; the fixed part is made once."""
    order = sorted(range(len(names)), key=lambda n: names[n])
    head = struct.pack("<I", len(names))
    for n in order:
        encoded = names[n].encode()
        head += _STRING_HEAD.pack(STRING_TYPE, len(encoded)) + encoded

    def encode(values: Sequence[KeyValue]) -> bytes:
        return head + b"".join([_key_value(values[n]) for n in order])

    def encode_one(values: Sequence[KeyValue]) -> bytes:
        return head + _key_value(values[0])

    return encode_one if len(names) == 1 else encode


def _key_value(value: KeyValue) -> bytes:
    if isinstance(value, str):
        encoded = value.encode()
        return _STRING_HEAD.pack(STRING_TYPE, len(encoded)) + encoded
    return _INT64_KEY.pack(INT64_TYPE, 8, value)


def key_parts(encoded: bytes) -> tuple[dict[str, str], bytes] | None:
    """What an entity key names (name -> value as text) and the bytes that follow it; None if it is no such key."""
    try:
        (count,) = struct.unpack_from("<I", encoded)
        at, names, values = 4, list[str](), list[str]()
        for kept in (names, values):
            for _ in range(count):
                kind, size = _STRING_HEAD.unpack_from(encoded, at)
                at += _STRING_HEAD.size
                part = encoded[at : at + size]
                if len(part) < size or kind not in (STRING_TYPE, INT64_TYPE) or (kept is names and kind != STRING_TYPE):
                    return None
                kept.append(part.decode() if kind == STRING_TYPE else str(int.from_bytes(part, "little", signed=True)))
                at += size
    except (struct.error, UnicodeDecodeError):
        return None
    return (dict(zip(names, values, strict=True)), encoded[at:]) if count else None


def hash_field(view: str, feature: str) -> bytes:
    """The field of a Redis hash under which Feast keeps a feature: four bytes of a murmur3 hash."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def moment_field(view: str) -> bytes:
    """The field of a Redis hash under which Feast keeps a view's event time."""
    return f"_ts:{view}".encode()


def encode_value(value: Value) -> bytes:
    """A protobuf ``Value``: integers as int64, floats as double, None as the empty message."""
    if value is None:
        return b""
    if isinstance(value, float):
        return _DOUBLE.pack(DOUBLE_TAG, value)
    return bytes([_INT64_TAG]) + _varint(value)


def column_encoder(around: Callable[[bytes], bytes] = bytes) -> Callable[[pl.Series], list[bytes]]:
    """A function that does ``encode_value`` for every value of a column; much quicker for floats.

    around: puts something before and after the bytes of a value, that depends on their length alone.
    """
    encode_repeated = lru_cache(maxsize=16384)(lambda value: around(encode_value(value)))  # counts repeat
    pattern, null = around(ZERO_DOUBLE), around(b"")
    number = pattern.index(ZERO_DOUBLE) + 1

    def encode(values: pl.Series) -> list[bytes]:
        if not values.dtype.is_float():
            return [*map(encode_repeated, values.to_list())]
        cells = np.tile(np.frombuffer(pattern, np.uint8), (len(values), 1))
        numbers = values.cast(pl.Float64).to_numpy().astype("<f8", copy=False)  # NaN where it is null
        cells[:, number : number + 8] = numbers.view(np.uint8).reshape(-1, 8)
        encoded: list[bytes] = cells.view(f"V{len(pattern)}").ravel().tolist()
        nulls = np.flatnonzero(np.isnan(numbers))
        if len(nulls) != values.null_count():  # some are NaN themselves; this is slower for a short column
            nulls = np.flatnonzero(values.is_null().to_numpy())
        for n in nulls.tolist():
            encoded[n] = null
        return encoded

    return encode


def decode_value(encoded: bytes) -> Value:
    """The inverse of ``encode_value``.

    Raises:
        ValueError: the bytes hold another type of value.
    """
    if not encoded:
        return None
    if encoded[0] == DOUBLE_TAG:
        number: float = _DOUBLE.unpack(encoded)[1]
        return number
    if encoded[0] != _INT64_TAG:
        raise ValueError(f"neither an int64 nor a double value: tag {encoded[0]:#x}")
    return _signed(encoded, 1)[0]


@lru_cache
def doubles_decoder(count: int) -> Callable[[Sequence[bytes]], tuple[Value, ...]]:
    """``decode_value`` of so many values at one go; quick if they are what they ought to be, doubles.

    None of them may be empty. What it returns raises ValueError where one is neither an int64 nor a double.
    """
    unpack, size, tags = struct.Struct("<" + "xd" * count).unpack, DOUBLE_SIZE * count, bytes([DOUBLE_TAG]) * count

    def decode(encoded: Sequence[bytes]) -> tuple[Value, ...]:
        blob = b"".join(encoded)
        # Every value starts with its tag, and none is empty: so these bytes can only be doubles.
        if len(blob) == size and blob[::DOUBLE_SIZE] == tags:
            return unpack(blob)
        return tuple(map(decode_value, encoded))

    return decode


@lru_cache(maxsize=65536)  # event times stand on a grid, so few are different
def encode_moment(moment: int) -> bytes:
    """A protobuf ``Timestamp`` of microseconds since 1970."""
    seconds, rest = divmod(moment, 1_000_000)
    encoded = bytes([_SECONDS_TAG]) + _varint(seconds) if seconds else b""
    return encoded + (bytes([_NANOS_TAG]) + _varint(rest * 1000) if rest else b"")


@lru_cache(maxsize=65536)
def decode_moment(encoded: bytes) -> int:
    """Microseconds since 1970 of a protobuf ``Timestamp``; what is finer is cut off.

    Raises:
        ValueError: the bytes are no timestamp.
    """
    found = {_SECONDS_TAG: 0, _NANOS_TAG: 0}
    position = 0
    while position < len(encoded):
        tag = encoded[position]
        if tag not in found:
            raise ValueError(f"no timestamp: tag {tag:#x}")
        found[tag], position = _signed(encoded, position + 1)
    return found[_SECONDS_TAG] * 1_000_000 + found[_NANOS_TAG] // 1000


def _varint(value: int) -> bytes:
    rest = value & 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _signed(encoded: bytes, position: int) -> tuple[int, int]:
    """The signed integer that stands at ``position``, and where the next byte is."""
    value = shift = 0
    while True:
        byte = encoded[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value - (1 << 64) if value >= 1 << 63 else value, position
