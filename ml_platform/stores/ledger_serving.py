"""What served at any instant, from the ledger's lines alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from ml_platform.stores.ledger import Entry
from ml_platform.stores.ledger_kinds import ABORT, FOUND, ROLLOUT, SERVING


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What answers: the champion (None: nothing), but for the canary's share (0..1) of the requests.

    since, line: from when on, and by which line; champion_since: from when on this champion was one, with any canary.
    """

    champion: str | None
    champion_since: datetime
    since: datetime
    line: Entry
    canary: str | None = None
    share: float = 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Version -> its share of the requests; empty where nothing serves."""
        parts = ((self.champion, 1 - self.share), (self.canary, self.share))
        return {version: share for version, share in parts if version is not None and share > 0}


class _State(NamedTuple):
    champion: str | None = None
    canary: str | None = None
    share: float = 0.0


def periods(lines: Iterable[Entry]) -> list[Serving]:
    """Everything that served, in order; each holds until the next begins.

    lines: of one model, of any kinds. They count in the order in which they were written: where the clock was set back
    meanwhile, a line holds from the line before it on. Of lines of the same moment the last one counts.
    """
    found: list[Serving] = []
    state, since = _State(), datetime.min.replace(tzinfo=UTC)
    for line in sorted((line for line in lines if line.kind in SERVING), key=lambda line: line.number):
        state, since = _after(state, line), max(since, line.at)
        if found and found[-1].since == since:
            found.pop()
        last = found[-1] if found else None
        if last is None or state != _State(last.champion, last.canary, last.share):
            same = last is not None and last.champion == state.champion
            champion_since = last.champion_since if last is not None and same else since
            found.append(Serving(**state._asdict(), champion_since=champion_since, since=since, line=line))
    return found


def serving_at(lines: Iterable[Entry], moment: datetime) -> Serving | None:
    """What served at that moment; None before the first line."""
    begun = [serving for serving in periods(lines) if serving.since <= moment]
    return begun[-1] if begun else None


def serving_now(lines: Iterable[Entry]) -> Serving | None:
    """What serves by the newest line; None before the first."""
    return next(reversed(periods(lines)), None)


def chosen(lines: Iterable[Entry]) -> Serving | None:
    """What would serve if nobody but the platform had moved an alias."""
    return serving_now(line for line in lines if line.kind != FOUND)


def _after(state: _State, line: Entry) -> _State:
    """What serves after one more line."""
    if line.kind == ABORT:
        return _State(state.champion)
    if line.kind == ROLLOUT:
        return _State(_version(line, "champion"), _version(line, "canary"), float(line.body["share"]))
    return _State(_version(line, "version"))


def _version(line: Entry, name: str) -> str | None:
    found = line.body[name]
    return None if found is None else str(found)
