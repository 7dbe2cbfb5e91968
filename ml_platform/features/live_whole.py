"""Whether a store of live windows still holds all that it was given. One that lost its data looks like a quiet day.

Two things stand in the store itself, so that they are lost with the rest: since when it has been filled event by event
(``began``: whoever first writes into an empty one says so), and of each view the stretch of time whose days were
followed wholly. Only who follows whole days lengthens the stretch: events would hide that what came before is gone. A
value is whole if stretch and events together reach from as far as it looks back to its moment.
"""

import uuid
from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec

from ml_platform.features.live_view import EPOCH, TICK, micros
from ml_platform.spec import KNOWN_AT, Active, FeatureView, WindowsLost
from ml_platform.stores.tiles import Change, TileStore, Wanted

# A log of no view, which is never dropped: tile 0 says as of when values are kept (``LiveViews.keep_from``), tile 1
# what is said here. They are read together with what is asked for.
ABOUT = Wanted("", b"reach", 0, 1, (0, 1))
KEPT_FROM, STANDING = 0, 1
FOR_GOOD = 1 << 60
BEGINNING = -(1 << 62)  # unix microseconds; no row is older
_CURE = "`ml-platform bring-back` fills them from the raw tables and, as for today, from the sources"
_A_DAY = timedelta(days=1) // TICK
Span = tuple[int, int]  # [first, end) in unix microseconds


class Standing(msgspec.Struct, array_like=True, frozen=True):
    """life: a name that no other filling of a store bears. began: unix microseconds. followed: by name of the view."""

    life: str
    began: int
    followed: dict[str, Span] = {}

    def holds(self, view: str, low: int, moment: int) -> bool:
        """Whether the view's stretch, and the events since, hold all that became known in [low, moment]."""
        if view not in self.followed:
            return False
        start, end = self.followed[view]
        return low >= self.began or (start <= low and (moment <= end or end >= self.began))

    def goes_on(self, view: str, low: int) -> bool:
        """Whether the view lacks nothing since ``low``, whatever the moment: the stretch reaches the events."""
        start, end = self.followed.get(view, (FOR_GOOD, BEGINNING))
        return start <= low and end >= self.began


_standing_from = msgspec.msgpack.Decoder(Standing)
_to_bytes = msgspec.msgpack.Encoder().encode


@lru_cache(maxsize=8)
def standing_of(encoded: bytes) -> Standing:
    """What the store says; decoded once for many questions."""
    return _standing_from.decode(encoded)


def looks_back_to(view: FeatureView, moment: int) -> int:
    """The earliest moment at which a row may have become known that the view's values at ``moment`` depend on.

    A row whose place is a time of its own (a timetable) may be known long before. A fact may be closed up to a day
    before it opens (``windows.history_needed``).
    """
    actives = [feature for feature in view.features if isinstance(feature, Active)]
    if {view.time, *(active.opened_at for active in actives)} != {KNOWN_AT}:
        return BEGINNING
    return moment - view.lookback // TICK - (_A_DAY if actives else 0)


def refuse_losses(encoded: bytes | None, views: Mapping[str, FeatureView], at: datetime) -> None:
    """Let no value of these views be made of what is left of their events.

    encoded: the store's ``STANDING``.

    Raises:
        WindowsLost: some that count at the moment are not there, or may not be.
    """
    standing, moment = standing_of(encoded) if encoded is not None else None, micros(at)
    for name, view in views.items():
        low = looks_back_to(view, moment)
        if standing is None or not standing.holds(name, low, moment):
            raise WindowsLost(f"the live windows of {name} {_lacking(standing, name, low, at)}; {_CURE}")


def _lacking(standing: Standing | None, view: str, low: int, at: datetime) -> str:
    if standing is None or view not in standing.followed:
        return "hold no closed day: they were never filled, or their store lost what it held"
    start, end = standing.followed[view]
    if start > low:
        back = "on all that was known before" if low == BEGINNING else f"to {_shown(low)}"
        return f"hold the days from {_shown(start)} on, and values as of {at.isoformat()} look back {back}"
    return (
        f"may lack what became known between {_shown(end)} and {_shown(standing.began)}, when their store was begun "
        f"or had lost what it held (once that day is closed, features/{view} mends it, too)"
    )


class Alive:
    """Says in an empty store since when it is filled; in another it changes nothing."""

    def __init__(self, now: datetime) -> None:
        """``now``: the platform's present."""
        self.found = Standing(uuid.uuid4().hex, micros(now))
        self._own, self.wrote = self.found, 0

    def change(self) -> Change:
        """Goes with other changes, so that it costs no round trip."""
        return Change(ABOUT.log, ABOUT.entity, STANDING, FOR_GOOD, self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        self.found, self.wrote = (self._own, 1) if held is None else (standing_of(held), 0)
        return (b"", _to_bytes(self.found)) if self.wrote else None


class Following:
    """Closed days on their way into the windows; what is finished counts only if nothing was lost meanwhile."""

    def __init__(self, tiles: TileStore, now: datetime) -> None:
        """Begin before the first row is written."""
        alive = Alive(now)
        tiles.update([alive.change()])
        self.tiles, self.standing = tiles, alive.found

    def finish(self, spans: Mapping[str, Span]) -> None:
        """All rows known in these stretches, one a view, were brought into the windows.

        Raises:
            WindowsLost: the store lost its data since this began; do it again.
        """
        lost = False

        def longer(held: bytes | None) -> tuple[bytes, bytes] | None:
            nonlocal lost
            lost = held is None or standing_of(held).life != self.standing.life
            if held is None or lost:
                return None
            before = standing_of(held)
            joined = {name: _joined(before, name, span) for name, span in spans.items()}
            after = Standing(before.life, before.began, {**before.followed, **joined})
            return None if after == before else (b"", _to_bytes(after))

        self.tiles.update([Change(ABOUT.log, ABOUT.entity, STANDING, FOR_GOOD, longer)])
        if lost:
            raise WindowsLost(
                f"the store of live windows lost what it held while {', '.join(spans)} followed the raw tables; run it "
                f"again"
            )


def forget_followed(tiles: TileStore, views: Container[str]) -> None:
    """Before tiles of these views are taken out: no day of theirs is followed any more."""

    def without(held: bytes | None) -> tuple[bytes, bytes] | None:
        if held is None:
            return None
        before = standing_of(held)
        left = {name: span for name, span in before.followed.items() if name not in views}
        return (b"", _to_bytes(Standing(before.life, before.began, left)))

    tiles.update([Change(ABOUT.log, ABOUT.entity, STANDING, FOR_GOOD, without)])


def _joined(standing: Standing, view: str, new: Span) -> Span:
    """The stretch with the new one; of two that do not touch the later one counts."""
    before = standing.followed.get(view)
    if before is None:
        return new
    (start, end), (first, last) = before, new
    if last >= start and (first <= end or end >= standing.began):  # since it began, events came one by one
        return min(start, first), max(end, last)
    return max(before, new, key=lambda span: span[1])


def _shown(moment: int) -> str:
    return f"{EPOCH + max(moment, 0) * TICK:%Y-%m-%d %H:%M:%S}+00:00"
