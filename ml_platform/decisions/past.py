"""What a decision starts from: the champion, the trainings so far and the facts that nothing has answered yet."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

# open: it was not judged yet, or waits, or its rollout runs. ended: it will not be champion (any more, if never).
Outcome = Literal["promoted", "ended", "open"]
FactKind = Literal["request", "review", "drift"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """The champion: its version, the first local day it served in full, and when it was trained.

    ``last_training_at`` is that of the newest version, which the gate may have refused.
    """

    version: str
    first_day: date
    trained_at: datetime
    last_training_at: datetime


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A registered version: when, what came of it, the fingerprint of what it was declared as.

    since: when its training set was gathered. decision: the number of the retraining that it answered (0: none).
    heard: the ledger's last line when it began.
    """

    version: str
    at: datetime
    outcome: Outcome = "open"
    since: datetime | None = None
    decision: int = 0
    heard: int = 0
    declared: str | None = None

    @property
    def began(self) -> datetime:
        """When it began, as far as that is known."""
        return self.since or self.at


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that happened once and asks for a retraining until a training that began after it is registered.

    line: its number in the ledger. name: the drift policy's; a person's where a person asked.
    """

    kind: FactKind
    at: datetime
    reason: str
    name: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Review:
    """Drift that no policy answers: a person says whether it asks for a retraining."""

    line: int
    at: datetime
    drift: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Past:
    """All that the record says: plain values, so that a simulation can make them, too.

    trainings: oldest first. facts: those that nothing has answered yet, oldest first. reviews: without a word so far.
    spared_at: when a retraining that time asked for was last found to gain nothing.
    reset_line: of the ledger, by which a person last asked for one, which closes the breaker.
    wanted: number of a retraining that is wanted and not registered yet (0: none).
    declared: fingerprint of what is declared now (None: not known).
    """

    champion: Served | None
    trainings: tuple[Trained, ...] = ()
    facts: tuple[Fact, ...] = ()
    reviews: tuple[Review, ...] = ()
    spared_at: datetime | None = None
    reset_line: int = 0
    wanted: int = 0
    declared: str | None = None

    @property
    def outdated(self) -> Trained | None:
        """The newest training of which that is known, if it was of another declaration than today's."""
        known = next((one for one in reversed(self.trainings) if one.declared is not None), None)
        return known if known and self.declared and known.declared != self.declared else None
