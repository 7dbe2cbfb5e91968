"""Reading an online store by a plan: what is asked is worked out once, each read decodes only that.

The plan knows nothing of where the bytes come from: a store hands it one reply an entity, in Feast's bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ml_platform.spec import DeclarationError, FeatureView
from ml_platform.stores.exchange import Exchange
from ml_platform.stores.feast_bytes import KeyValue, Value, entity_key_encoder, micros
from ml_platform.stores.online_decode import Decoded, Decoder, Part, Reply, Status

if TYPE_CHECKING:  # a serving process of the embedded profile needs no Redis client
    from ml_platform.stores.redis_line import RedisLine

Fetch = Callable[[Sequence[Sequence[bytes]]], Iterable[Sequence[Reply]]]  # keys by group -> replies by group
Wanted = Sequence[tuple[FeatureView, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which keys rows ask for, by group, and for each row which of its group's keys it is (-1: it has none)."""

    keys: list[list[bytes]]
    places: list[list[int]]


# keys by group -> a question whose answers are the replies by group
Packer = Callable[[Sequence[Sequence[bytes]]], Exchange[Iterable[Sequence[Reply]]]]


@dataclass(frozen=True, slots=True)
class Found:
    """One tuple of values and one of statuses for each row asked about, in the order of the plan's ``features``."""

    values: list[tuple[Value, ...]]
    statuses: list[tuple[Status, ...]]


class Group:
    """The views of a plan that share their entities, so that one reply holds them all."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """``parts``: what is asked of each view; the entities come in the order of the first one's declaration."""
        self.names = parts[0].view.entity_names
        self.parts = parts
        self.decoder = Decoder(parts)
        self._get = itemgetter(*self.names)
        self._encode = entity_key_encoder(self.names)

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

    def __init__(self, wanted: Wanted, store: "PlannedReads", *, fill: bool) -> None:
        """``store``: fetches for these groups; ``fill``: see ``PlannedReads.plan``."""
        parts = [Part(view, features, fill) for view, features in wanted]
        shared: dict[tuple[str, ...], list[Part]] = {}
        for part in parts:
            shared.setdefault(tuple(sorted(part.view.entity_names)), []).append(part)
        self._groups = tuple(map(Group, shared.values()))
        self.features = tuple((part.view.name, feature) for part in parts for feature in part.features)
        grouped = [(part, feature) for group in self._groups for part in group.parts for feature in part.features]
        place = {which: n for n, which in enumerate(grouped)}
        order = [place[part, feature] for part in parts for feature in part.features]
        self._order = None if order == sorted(order) else itemgetter(*order)
        self._fetch = store._fetcher(self._groups)
        self.pack = store._packer(self._groups)

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
        asked = self.ask(rows)
        return self.found(asked, self._fetch(asked.keys), at)

    def ask(self, rows: Sequence[Mapping[str, Any]]) -> Asked:
        """The first half of ``read``, for who fetches by himself: ``pack`` says what to send where a server is asked.

        Raises:
            DeclarationError: a row lacks an entity.
        """
        asked = [group.keys(rows) for group in self._groups]
        return Asked([keys for keys, _ in asked], [places for _, places in asked])

    def found(self, asked: Asked, replies: Iterable[Sequence[Reply]], at: datetime | None) -> Found:
        """The second half: the values of at least one row from the replies, which come group by group.

        Raises:
            ValueError: something stands there that is neither an int64 nor a double.
        """
        moment = None if at is None else micros(at)
        rows_of: list[list[Decoded]] = []
        for group, places, some in zip(self._groups, asked.places, replies, strict=True):
            decoded = group.decoder.decode(some, moment)
            decoded.append(group.decoder.no_key)  # what -1 points to
            rows_of.append([decoded[place] for place in places])
        values, statuses = [row[0] for row in rows_of[0]], [row[1] for row in rows_of[0]]
        for more in rows_of[1:]:
            values = [before + row[0] for before, row in zip(values, more, strict=True)]
            statuses = [before + row[1] for before, row in zip(statuses, more, strict=True)]
        if self._order is not None:
            values, statuses = [*map(self._order, values)], [*map(self._order, statuses)]
        return Found(values, statuses)


class PlannedReads(ABC):
    """A store that is read by plans; it says how the bytes of a plan's groups are fetched."""

    def __init__(self) -> None:
        self._plans: dict[str, tuple[FeatureView, Plan]] = {}

    @abstractmethod
    def _fetcher(self, groups: Sequence[Group]) -> Fetch:
        """A function that fetches the fields of these groups, for the keys of each."""

    def _packer(self, groups: Sequence[Group]) -> Packer | None:
        """A function that says what to send instead; None where no server is asked."""
        return None

    def line(self) -> "RedisLine | None":
        """A connection for one event loop, to which ``Plan.pack`` is sent; None where no server is asked."""
        return None

    def plan(self, wanted: Wanted, *, fill: bool = False) -> Plan:
        """A plan that reads these features of these views, in this order.

        fill: where nothing is stored or it expired, give the view's empty value (0 where it is counted or summed)
            instead of None; the status says the same.

        Raises:
            UnknownName: a view has no such feature.
            DeclarationError: a feature is asked for twice, or a view for none.
        """
        return Plan(wanted, self, fill=fill)

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
