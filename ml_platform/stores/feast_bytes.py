"""Feast's byte layout of entity keys (serialization version 3) and values, without importing Feast.

Source: feast 0.67 ``key_encoding_utils.serialize_entity_key`` and ``feast.types.Value``; a test compares the bytes.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

STRING_TYPE, INT64_TYPE = 2, 4  # feast.types.ValueType
_STRING_TAG, _INT64_TAG, _DOUBLE_TAG = 0x12, 0x20, 0x29  # field number << 3 | wire type, of feast.types.Value

KeyValue = str | int
Value = float | int | None


@lru_cache
def entity_key_encoder(names: tuple[str, ...]) -> Callable[[Sequence[KeyValue]], bytes]:
    """A function from key values, in the order of ``names``, to Feast's bytes; the fixed part is made once."""
    order = sorted(range(len(names)), key=lambda n: names[n])
    head = struct.pack("<I", len(names))
    for n in order:
        encoded = names[n].encode()
        head += struct.pack("<II", STRING_TYPE, len(encoded)) + encoded

    def encode(values: Sequence[KeyValue]) -> bytes:
        return head + b"".join(_key_value(values[n]) for n in order)

    return encode


def _key_value(value: KeyValue) -> bytes:
    if isinstance(value, str):
        encoded = value.encode()
        return struct.pack("<II", STRING_TYPE, len(encoded)) + encoded
    return struct.pack("<IIq", INT64_TYPE, 8, value)


def encode_value(value: Value) -> bytes:
    """A protobuf ``Value``: integers as int64, floats as double, None as the empty message."""
    if value is None:
        return b""
    if isinstance(value, float):
        return struct.pack("<Bd", _DOUBLE_TAG, value)
    rest = value & 0xFFFFFFFFFFFFFFFF
    varint = bytearray([_INT64_TAG])
    while rest > 0x7F:
        varint.append(rest & 0x7F | 0x80)
        rest >>= 7
    varint.append(rest)
    return bytes(varint)


def decode_value(encoded: bytes) -> Value:
    """The inverse of ``encode_value``.

    Raises:
        ValueError: the bytes hold another type of value.
    """
    if not encoded:
        return None
    if encoded[0] == _DOUBLE_TAG:
        number: float = struct.unpack_from("<d", encoded, 1)[0]
        return number
    if encoded[0] != _INT64_TAG:
        raise ValueError(f"neither an int64 nor a double value: tag {encoded[0]:#x}")
    value = 0
    for position, byte in enumerate(encoded[1:]):
        value |= (byte & 0x7F) << 7 * position
    return value - (1 << 64) if value >= 1 << 63 else value
