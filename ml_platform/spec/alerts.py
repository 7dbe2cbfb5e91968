"""What people are told: something that is wrong at a place, from its first day to its last."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from ml_platform.spec.incidents import Incident, Severity

# data: what the tables hold, silenced while something before it in the data's way is wrong. operation: processes and
# stores, silenced by nothing. event: it happened, and has no end to tell of.
Signal = Literal["data", "operation", "event"]
Part = Literal["opened", "ended"]


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Told once when it begins and, unless it is an event, once when it ends.

    id: the same as long as it lasts; what returns after its end is another one.
    name: what kind of thing, a few words. place: as ``spec.behind`` writes it.
    sentence: what, where, since when, and what to look at next.
    began, ended: days of the platform's time; ``ended`` is None while it lasts.
    is_incident: it speaks for its own place, too.
    """

    id: str
    name: str
    place: str
    severity: Severity
    signal: Signal = "data"
    sentence: str
    began: date
    ended: date | None = None
    is_incident: bool = False

    @property
    def asset(self) -> str:
        """The asset's key, its parts joined by slashes."""
        return self.place.partition(".")[0]


def of_incident(incident: Incident) -> Alert:
    """An incident as people are told of it."""
    return Alert(
        id=incident.id,
        name=incident.kind,
        place=incident.cause,
        severity=incident.severity,
        sentence=incident.sentence,
        began=incident.opened_on,
        ended=incident.closed_on,
        is_incident=True,
    )
