"""Live windows: feature views followed event by event, and read as of any moment.

``apply`` brings rows of a raw table into the tiles; ``LiveViews.values`` puts the values together. Rows may arrive in
any order, late and more than once: what is read at t depends only on the set of rows known at t.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ml_platform.features.live_facts import facts_log
from ml_platform.features.live_view import EPOCH, TICK, LiveView, micros
from ml_platform.features.live_whole import ABOUT, FOR_GOOD, KEPT_FROM, STANDING, Alive, refuse_losses
from ml_platform.features.live_write import Evaluated, evaluated, write
from ml_platform.spec import FeatureView, MissingHistory
from ml_platform.stores.feast_bytes import KeyValue, Value
from ml_platform.stores.tiles import Change, Found, TileStore, Wanted


@dataclass(frozen=True, slots=True)
class LiveQuestion:
    """The tiles that views want at a moment, and which of them belong to each view (None: its key is not whole)."""

    views: list[str]
    at: datetime
    wanted: list[Wanted]
    places: list[tuple[int, int] | None]


class LiveViews:
    """The live ones among some views, read together from one store."""

    def __init__(
        self, views: Iterable[FeatureView], tiles: TileStore, now: Callable[[], datetime] | None = None
    ) -> None:
        """Views that store their newest value are left out.

        now: the platform's present, with which losses of the store are noticed (``live_whole``). Without it the store
        is taken for whole: for who fills it or only looks at it.
        """
        self.tiles, self.now = tiles, now
        self.views = {view.name: LiveView(view) for view in views if view.is_live}

    def values(self, asked: Sequence[tuple[str, tuple[KeyValue | None, ...]]], at: datetime) -> list[dict[str, Value]]:
        """For each (view, key in the order of its entities) the features as of ``at``; all None for a key not whole.

        One read of the store, whatever is asked; a second one where corrections are known of after the moment.

        Raises:
            MissingHistory: events that the values at this moment depend on may have been dropped.
            WindowsLost: or the store lost some, or was never given them.
        """
        question = self.ask(asked, at)
        return self.found(question, self.tiles.read(question.wanted))

    def ask(self, asked: Sequence[tuple[str, tuple[KeyValue | None, ...]]], at: datetime) -> LiveQuestion:
        """The first half of ``values``, for who reads the tiles himself."""
        moment = micros(at)
        wanted: list[Wanted] = []
        places: list[tuple[int, int] | None] = []
        for name, key in asked:
            if None in key:
                places.append(None)
                continue
            needs = self.views[name].wanted(self.views[name].encode_entity(key), moment)
            places.append((len(wanted), len(wanted) + len(needs)))
            wanted += needs
        return LiveQuestion([name for name, _ in asked], at, [*wanted, ABOUT], places)

    def found(self, question: LiveQuestion, found: Sequence[Found]) -> list[dict[str, Value]]:
        """The second half: the features from the tiles; where corrections are known of after the moment, it reads more.

        Raises:
            MissingHistory, WindowsLost: as ``values``.
        """
        wanted, moment = question.wanted, micros(question.at)
        about = found[-1].events
        if self.now is not None:
            refuse_losses(about.get(STANDING), {name: self.views[name].view for name in question.views}, question.at)
        if KEPT_FROM in about:
            reach = int.from_bytes(about[KEPT_FROM], signed=True)
            if moment < reach:
                raise MissingHistory(
                    f"live windows are kept as of {EPOCH + reach * TICK} on, and {question.at.isoformat()} lies before "
                    f"it; the raw tables hold the history: ask features.windows.values_at"
                )
        return [
            dict.fromkeys(self.views[name].view.schema())
            if place is None
            else self.views[name].values(wanted[slice(*place)], found[slice(*place)], moment, self.tiles.read)
            for name, place in zip(question.views, question.places, strict=True)
        ]

    def keep_from(self, moment: datetime) -> None:
        """Drop what no value at this moment or later depends on; values of before it are refused from now on."""

        def later(held: bytes | None) -> tuple[bytes, bytes] | None:
            before = int.from_bytes(held, signed=True) if held else None
            new = micros(moment)
            return None if before is not None and new <= before else (b"", new.to_bytes(8, signed=True))

        if self.tiles.update([Change(ABOUT.log, ABOUT.entity, KEPT_FROM, FOR_GOOD, later)]):
            self.tiles.prune(micros(moment))

    @property
    def logs(self) -> list[str]:
        """The names of all logs that these views keep tiles and facts in."""
        own = [live.log.name for live in self.views.values() if live.log is not None]
        actives = [log.name for live in self.views.values() for _, log in live.actives]
        remembered = dict.fromkeys(facts_log(live.view.source) for live in self.views.values())
        return [*own, *actives, *(f"{name}/facts" for name in actives), *remembered]

    def whole_from(self) -> int | None:
        """Since when values may be asked for (unix microseconds); None: nothing was ever dropped."""
        (found,) = self.tiles.read([ABOUT])
        return int.from_bytes(found.events[KEPT_FROM], signed=True) if KEPT_FROM in found.events else None

    def set_whole_from(self, moment: int) -> None:
        """Refuse values of before the moment, whatever was refused until now; for who makes the tiles anew."""
        stands = (b"", moment.to_bytes(8, signed=True))
        self.tiles.update([Change(ABOUT.log, ABOUT.entity, KEPT_FROM, FOR_GOOD, lambda _: stands)])

    def apply(self, table: str, rows: pl.DataFrame, *, since: datetime | None = None) -> int:
        """Bring rows of a raw table into every view that follows it; returns how many tiles changed.

        since: leave out what no window reaches that is asked at this moment or later.
        """
        return self.write(self.evaluated(table, rows), since=since) if rows.height else 0

    def evaluated(self, table: str, rows: pl.DataFrame) -> Evaluated:
        """What the views need of the rows, to be written at once or in parts."""
        return evaluated(self.views.values(), table, rows)

    def write(self, found: Evaluated, *, since: datetime | None = None) -> int:
        """The second half of ``apply``."""
        alive = None if self.now is None else Alive(self.now())
        return write(self.tiles, found, None if since is None else micros(since), alive)
