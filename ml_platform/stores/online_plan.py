"""Reading an online store by a plan: what is asked is worked out once, each read decodes only that.

The plan knows nothing of where the bytes come from: a store hands it one reply an entity, in Feast's bytes.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ml_platform.spec import DeclarationError, FeatureView, UnknownName
from ml_platform.stores.feast_bytes import (
    DOUBLE_SIZE,
    DOUBLE_TAG,
    KeyValue,
    Value,
    decode_moment,
    decode_value,
    entity_key_encoder,
    micros,
)

Reply = list[bytes | None]  # a group's fields of one entity, in the group's order
Fetch = Callable[[Sequence[Sequence[bytes]]], Sequence[Reply]]  # keys by group -> replies, one after the other
Wanted = Sequence[tuple[FeatureView, Sequence[str]]]

_decode = lru_cache(maxsize=65536)(decode_value)  # counts repeat


class Status(IntEnum):
    """What is known of a value; the numbers are Feast's ``FieldStatus``."""

    PRESENT = 1
    NULL = 2
    NOT_FOUND = 3
    EXPIRED = 4


@dataclass(frozen=True, slots=True)
class Found:
    """One tuple of values and one of statuses for each row asked about, in the order of the plan's ``features``."""

    values: list[tuple[Value, ...]]
    statuses: list[tuple[Status, ...]]


class Part:
    """One view in a plan: where its fields stand in a reply, and how they are decoded."""

    def __init__(self, view: FeatureView, features: Sequence[str], start: int, fill: bool) -> None:
        """``start``: where the first field stands; the view's event time follows the last.

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
        count = len(features)
        order = sorted(range(count), key=lambda n: kinds[features[n]] != "float64")  # floats first: one unpack for all
        self.view = view
        self.fields = tuple(features[n] for n in order)
        self.start, self.end = start, start + count
        floats = sum(kinds[feature] == "float64" for feature in features)
        self._middle = start + floats
        self._unpack = struct.Struct("<" + "xd" * floats).unpack
        self._tags, self._size = bytes([DOUBLE_TAG]) * floats, DOUBLE_SIZE * floats
        self._back = None if order == sorted(order) else itemgetter(*(order.index(n) for n in range(count)))
        self._keep = None if view.online_for is None else view.online_for // timedelta(microseconds=1)
        empty = view.empty()
        self.missing: tuple[Value, ...] = tuple(empty[name] if fill else None for name in features)
        self.nothing: tuple[Value, ...] = (None,) * count
        self.present, self.not_found, self.expired = (
            (status,) * count for status in (Status.PRESENT, Status.NOT_FOUND, Status.EXPIRED)
        )

    def decode(self, reply: Reply, at: int | None) -> tuple[tuple[Value, ...], tuple[Status, ...]]:
        """Values and statuses in the order asked for; ``at`` in microseconds since 1970.

        Raises:
            ValueError: something else than int64 or double values stands there.
        """
        moment = reply[self.end]
        if moment is None:
            return self.missing, self.not_found
        if self._keep is not None and at is not None and at - decode_moment(moment) > self._keep:
            return self.missing, self.expired
        try:
            floats = b"".join(reply[self.start : self._middle])  # type: ignore[arg-type]
            rest = tuple([_decode(value) for value in reply[self._middle : self.end]])
        except TypeError:  # a field that is not there: rare, so it is not looked for first
            return self._one_by_one(reply)
        # Every value starts with its tag, so these bytes can only be doubles, and none is missing among them.
        if len(floats) != self._size or floats[::DOUBLE_SIZE] != self._tags or None in rest:
            return self._one_by_one(reply)
        values = self._unpack(floats) + rest
        return (values if self._back is None else self._back(values)), self.present

    def _one_by_one(self, reply: Reply) -> tuple[tuple[Value, ...], tuple[Status, ...]]:
        if self._back is None:
            order: Sequence[int] = range(self.end - self.start)
        else:
            order = self._back(range(self.end - self.start))
        values: list[Value] = []
        statuses: list[Status] = []
        for n in order:
            encoded = reply[self.start + n]
            if encoded is None:
                values.append(self.missing[len(values)])
                statuses.append(Status.NOT_FOUND)
            else:
                values.append(_decode(encoded))
                statuses.append(Status.PRESENT if encoded else Status.NULL)
        return tuple(values), tuple(statuses)


class Group:
    """The views of a plan that share their entities, so that one reply holds them all."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """``names``: the entities, in the order of the first view's declaration."""
        self.names = names
        self.parts: list[Part] = []
        self.width = 0
        self._get = itemgetter(*names)
        self._encode = entity_key_encoder(names)

    def add(self, view: FeatureView, features: Sequence[str], fill: bool) -> Part:
        """A view more in this group's replies."""
        part = Part(view, features, self.width, fill)
        self.parts.append(part)
        self.width = part.end + 1
        return part

    def keys(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[bytes], list[int]]:
        """The different keys of the rows, and for each row which it is; -1 where an entity is None.

        Raises:
            DeclarationError: a row lacks an entity.
        """
        get, encode, single = self._get, self._encode, len(self.names) == 1
        keys: list[bytes] = []
        seen: dict[KeyValue | tuple[KeyValue | None, ...] | None, int] = {}
        places: list[int] = []
        for row in rows:
            try:
                key = get(row)
            except KeyError as error:
                raise DeclarationError(
                    f"row {len(places)} lacks the entity {error}, by which {self.parts[0].view.name} is asked; "
                    f"give it, or None if it is not known (the row has {', '.join(row)})"
                ) from error
            place = seen.get(key)
            if place is None:
                if key is None or (not single and None in key):
                    place = -1
                else:
                    place = len(keys)
                    keys.append(encode((key,) if single else key))
                seen[key] = place
            places.append(place)
        return keys, places


class Plan:
    """What to read from which views, worked out once; safe to use from several threads."""

    def __init__(self, wanted: Wanted, fetcher: Callable[[Sequence[Group]], Fetch], *, fill: bool) -> None:
        """``fetcher``: makes the function that fetches for these groups; ``fill``: see ``PlannedReads.plan``."""
        groups: dict[tuple[str, ...], Group] = {}
        for view, _ in wanted:
            groups.setdefault(tuple(sorted(view.entity_names)), Group(view.entity_names))
        self._groups = tuple(groups.values())
        self._parts = [
            (self._groups.index(group), group.add(view, features, fill))
            for view, features in wanted
            for group in [groups[tuple(sorted(view.entity_names))]]
        ]
        self.features = tuple((view.name, feature) for view, features in wanted for feature in features)
        self._fetch = fetcher(self._groups)

    def read(self, rows: Sequence[Mapping[str, Any]], at: datetime | None) -> Found:
        """The values of these entities at a moment, in one round trip.

        rows: entity values by entity name; other keys are left alone, None makes the views of that entity not found.
        at: the moment that a value's age is counted to (aware); None leaves ages out of it. A value older than its
            view's ``online_for`` is missing, and ``EXPIRED``.

        Raises:
            StoreUnavailable: the store cannot be reached.
            DeclarationError: a row lacks an entity.
            ValueError: something stands there that is neither an int64 nor a double.
        """
        if not rows:
            return Found([], [])
        moment = None if at is None else micros(at)
        asked = [group.keys(rows) for group in self._groups]
        replies = self._fetch([keys for keys, _ in asked])
        starts, start = [], 0
        for keys, _ in asked:
            starts.append(start)
            start += len(keys)
        values: list[tuple[Value, ...]] = []
        statuses: list[tuple[Status, ...]] = []
        for number, part in self._parts:
            keys, places = asked[number]
            start = starts[number]
            decode = part.decode
            decoded = [decode(reply, moment) for reply in replies[start : start + len(keys)]]
            decoded.append((part.nothing, part.not_found))  # what -1 points to
            if not values:
                values = [decoded[place][0] for place in places]
                statuses = [decoded[place][1] for place in places]
            else:
                values = [before + decoded[place][0] for before, place in zip(values, places, strict=True)]
                statuses = [before + decoded[place][1] for before, place in zip(statuses, places, strict=True)]
        return Found(values, statuses)


class PlannedReads(ABC):
    """A store that is read by plans; it says how the bytes of a plan's groups are fetched."""

    def __init__(self) -> None:
        self._plans: dict[str, tuple[FeatureView, Plan]] = {}

    @abstractmethod
    def _fetcher(self, groups: Sequence[Group]) -> Fetch:
        """A function that fetches the fields of these groups, for the keys of each."""

    def plan(self, wanted: Wanted, *, fill: bool = False) -> Plan:
        """A plan that reads these features of these views, in this order.

        fill: where nothing is stored or it expired, give the view's empty value (0 where it is counted or summed)
            instead of None; the status says the same.

        Raises:
            UnknownName: a view has no such feature.
            DeclarationError: a feature is asked for twice, or a view for none.
        """
        return Plan(wanted, self._fetcher, fill=fill)

    def read(self, view: FeatureView, keys: Sequence[tuple[KeyValue | None, ...]]) -> list[dict[str, Value]]:
        """For each key (in the order of ``view.entity_names``) its features, whatever their age.

        The view's empty values where nothing is stored; all None where the key is not whole.
        """
        names = tuple(view.schema())
        known = self._plans.get(view.name)
        if known is None or known[0] is not view:
            known = self._plans[view.name] = (view, self.plan([(view, names)], fill=True))
        rows = [dict(zip(view.entity_names, key, strict=True)) for key in keys]
        return [dict(zip(names, values, strict=True)) for values in known[1].read(rows, None).values]
