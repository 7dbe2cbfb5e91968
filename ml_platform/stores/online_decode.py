"""Decoding what an online store holds of an entity: all its views at one go, where no value is missing."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import IntEnum
from operator import itemgetter
from typing import Generic, TypeVar

from ml_platform.spec import DeclarationError, FeatureView, UnknownName
from ml_platform.stores.feast_bytes import ZERO_DOUBLE, Value, decode_moment, decode_value, doubles_decoder

Reply = Sequence[bytes | None]  # what stands in an entity's fields, in the order of ``Decoder.fields``
Decoded = tuple[tuple[Value, ...], tuple["Status", ...]]
Limits = Sequence[tuple[int, int]]  # where an event time stands, and what it may not be before

Known = TypeVar("Known")
_KEPT = 65536


class _Known(dict[bytes, Known], Generic[Known]):
    """What was decoded before, as counts and event times repeat; a dictionary answers sooner than ``lru_cache``."""

    def __init__(self, decode: Callable[[bytes], Known]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, encoded: bytes) -> Known:
        if len(self) >= _KEPT:
            self.clear()
        found = self[encoded] = self._decode(encoded)
        return found


_values = _Known(decode_value)
_moments = _Known(decode_moment)
_value = _values.__getitem__


class Status(IntEnum):
    """What is known of a value; the numbers are Feast's ``FieldStatus``."""

    PRESENT = 1
    NULL = 2
    NOT_FOUND = 3
    EXPIRED = 4


class Part:
    """What is asked of one view, and what it answers where nothing is stored."""

    def __init__(self, view: FeatureView, features: Sequence[str], fill: bool) -> None:
        """``fill``: answer with the view's empty values instead of None.

        Raises:
            UnknownName: the view has no such feature.
            DeclarationError: a feature is asked for twice, or none at all.
        """
        kinds = view.schema()
        for feature in features:
            if feature not in kinds:
                raise UnknownName(f"feature of {view.name}", feature, kinds)
        if not features or len(set(features)) < len(features):
            raise DeclarationError(f"{view.name} is asked for {list(features)}; name each feature wanted once")
        empty = view.empty()
        self.view = view
        self.features = tuple(features)
        self.floats = frozenset(feature for feature in features if kinds[feature] == "float64")
        self.missing: dict[str, Value] = {feature: empty[feature] if fill else None for feature in features}
        self.keep = None if view.online_for is None else view.online_for // timedelta(microseconds=1)


class Decoder:
    """Decodes the replies of views that share their entities.

    fields: what a reply holds: view and feature, floats before others so that they are decoded together; then each
        view's event time, which has no feature's name.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """``parts``: in the order in which their values are wanted."""
        wanted = [(part, feature) for part in parts for feature in part.features]
        floats = dict.fromkeys((part.view.name, feature) for part, feature in wanted if feature in part.floats)
        others = dict.fromkeys((part.view.name, feature) for part, feature in wanted if feature not in part.floats)
        moments = dict.fromkeys((part.view.name, None) for part in parts)
        self.fields: tuple[tuple[str, str | None], ...] = (*floats, *others, *moments)
        self._floats, self._end = len(floats), len(floats) + len(others)
        self._doubles = doubles_decoder(len(floats))
        place = {field: n for n, field in enumerate(self.fields)}
        order = [place[part.view.name, feature] for part, feature in wanted]
        self._back = None if order == list(range(self._end)) else itemgetter(*order)
        self._keep = [(place[part.view.name, None], part.keep) for part in parts if part.keep is not None]
        self._views = [
            (place[part.view.name, None], [place[part.view.name, feature] for feature in part.features])
            for part in parts
        ]
        self._missing = {place[part.view.name, feature]: part.missing[feature] for part, feature in wanted}
        self._present = (Status.PRESENT,) * len(order)
        self.no_key: Decoded = ((None,) * len(order), (Status.NOT_FOUND,) * len(order))

    def decode(self, replies: Sequence[Reply], at: int | None) -> list[Decoded]:
        """Values and statuses of each entity in the order wanted; ``at`` in microseconds since 1970.

        Raises:
            ValueError: something else than int64 or double values stands there.
        """
        limits = [] if at is None else [(place, at - keep) for place, keep in self._keep]
        floats, end, doubles, back, present = self._floats, self._end, self._doubles, self._back, self._present
        found: list[Decoded] = []
        for reply in replies:
            if not all(reply) or (limits and self._too_old(reply, limits)):
                found.append(self._with_gaps(reply, limits))
                continue
            values = doubles(reply[:floats]) + tuple(map(_value, reply[floats:end]))  # type: ignore[arg-type]
            found.append((values if back is None else back(values), present))
        return found

    def _too_old(self, reply: Reply, limits: Limits) -> list[int]:
        """Which event times are."""
        return [place for place, oldest in limits if _moments[reply[place] or b""] < oldest]

    def _with_gaps(self, reply: Reply, limits: Limits) -> Decoded:
        floats, end = self._floats, self._end
        doubles = self._doubles([field or ZERO_DOUBLE for field in reply[:floats]])
        values: list[Value] = [*doubles, *[_value(field or b"") for field in reply[floats:end]]]
        statuses = [Status.PRESENT] * end
        for n in [n for n, field in enumerate(reply[:end]) if not field]:
            values[n], statuses[n] = (self._missing[n], Status.NOT_FOUND) if reply[n] is None else (None, Status.NULL)
        old = self._too_old(reply, limits)
        if old or None in reply[end:]:
            for place, features in self._views:
                if reply[place] is None or place in old:
                    status = Status.NOT_FOUND if reply[place] is None else Status.EXPIRED
                    for n in features:
                        values[n], statuses[n] = self._missing[n], status
        if self._back is None:
            return tuple(values), tuple(statuses)
        return self._back(values), self._back(statuses)
