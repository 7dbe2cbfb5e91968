"""Reading an online store by a plan: what is asked is worked out once, each read decodes only that.

The plan knows nothing of where the bytes come from: a store hands it one reply an entity, in Feast's bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

from ml_platform.spec import DeclarationError, FeatureView, UnknownName
from ml_platform.stores.feast_bytes import (
    KeyValue,
    Value,
    decode_doubles,
    decode_moment,
    decode_value,
    entity_key_encoder,
    micros,
)

Reply = list[bytes | None]  # a group's fields of one entity, in the group's order
Fetch = Callable[[Sequence[Sequence[bytes]]], Sequence[Reply]]  # keys by group -> replies, one after the other
Decoded = tuple[tuple[Value, ...], tuple["Status", ...]]
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
        order = sorted(range(count), key=lambda n: kinds[features[n]] != "float64")  # floats first: decoded at one go
        self.view = view
        self.fields = tuple(features[n] for n in order)
        self.start, self.end = start, start + count
        self._floats = sum(kinds[feature] == "float64" for feature in features)
        self._back = None if order == sorted(order) else itemgetter(*(order.index(n) for n in range(count)))
        self._keep = None if view.online_for is None else view.online_for // timedelta(microseconds=1)
        empty = view.empty()
        self._missing: tuple[Value, ...] = tuple(empty[name] if fill else None for name in self.fields)
        present, not_found, expired = (
            (status,) * count for status in (Status.PRESENT, Status.NOT_FOUND, Status.EXPIRED)
        )
        missing = self._missing if self._back is None else self._back(self._missing)
        self._present = present
        self._not_found, self._expired = (missing, not_found), (missing, expired)
        self.no_key: Decoded = ((None,) * count, not_found)

    def decode(self, replies: Sequence[Reply], at: int | None) -> list[Decoded]:
        """Values and statuses of each entity in the order asked for; ``at`` in microseconds since 1970.

        Raises:
            ValueError: something else than int64 or double values stands there.
        """
        moments = [reply[self.end] for reply in replies]
        too_old = None if self._keep is None or at is None else at - self._keep
        if None not in moments and (too_old is None or min(map(decode_moment, moments)) >= too_old):
            return self._values(replies)
        found: list[Decoded | None] = [
            self._not_found
            if moment is None
            else self._expired
            if too_old is not None and decode_moment(moment) < too_old
            else None
            for moment in moments
        ]
        alive = iter(self._values([reply for reply, missing in zip(replies, found, strict=True) if missing is None]))
        return [missing or next(alive) for missing in found]

    def _values(self, replies: Sequence[Reply]) -> list[Decoded]:
        """All of these entities are there and young enough; single values may be null or not there."""
        start, middle, end, floats = self.start, self.start + self._floats, self.end, self._floats
        if not replies:
            return []
        encoded = list(chain.from_iterable([reply[start:middle] for reply in replies]))
        numbers = decode_doubles(encoded)
        values = [
            (*numbers[n * floats : (n + 1) * floats], *[_decode(whole) for whole in reply[middle:end]])
            for n, reply in enumerate(replies)
        ]
        statuses = [self._present] * len(replies)
        for n, reply in enumerate(replies):
            if not all(reply[start:end]):
                values[n], statuses[n] = self._with_gaps(values[n], reply[start:end])
        if self._back is not None:
            values = [self._back(row) for row in values]
            statuses = [row if row is self._present else self._back(row) for row in statuses]
        return list(zip(values, statuses, strict=True))

    def _with_gaps(self, values: tuple[Value, ...], fields: Reply) -> Decoded:
        row, statuses = list(values), list(self._present)
        for n, field in enumerate(fields):
            if field is None:
                row[n], statuses[n] = self._missing[n], Status.NOT_FOUND
            elif not field:
                row[n], statuses[n] = None, Status.NULL
        return tuple(row), tuple(statuses)


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
            decoded = part.decode(replies[start : start + len(keys)], moment)
            decoded.append(part.no_key)  # what -1 points to
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
