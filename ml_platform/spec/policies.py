"""When a model is trained again and what counts as drift."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from ml_platform.spec.alarms import AlarmBudget, JointRule, Seasons, SharpRule


@dataclass(frozen=True, kw_only=True)
class RetrainPolicy:
    """Retrain on evidence from late labels; it becomes ``decisions/<name>``.

    window: length of the judged window of event days; it is compared with the champion's first such window.
    max_loss_ratio: retrain when the window's log-loss exceeds this multiple of the reference.
    min_maturity: share of the window's labels (0..1) that must have arrived; less is *unknown*.
    triggers: drift policies whose failed verdict asks for a retraining. Other drift opens a review for a person.
    cooldown: shortest time between two retrainings.
    deadline: retrain in any case when the champion is older (``None``: never on age alone).
    """

    window: timedelta = timedelta(days=7)
    max_loss_ratio: float = 1.1
    min_rows: int = 500
    min_maturity: float = 0.9
    triggers: tuple[str, ...] = ()
    cooldown: timedelta = timedelta(days=14)
    deadline: timedelta | None = None
    description: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftPolicy:
    """Compares a day's profiles with those of days of its season; it becomes ``drift/<name>``.

    service: whose ``of`` is watched: the *features* that it served, its *predictions* (the probability) or the *labels*
        that became known. Or ``table``: a raw table, each column of it; one of the two is named.
    columns: only these; none named: all.
    min_rows: a day with fewer is neither judged nor compared with.
    seasons: which days are compared with. sharp: what fails, and pages. budget: how often it may warn.
    joint: how features are looked at together, ``None``: not at all; every ``joint_every_days`` days.
    """

    service: str = ""
    of: Literal["features", "predictions", "labels"] = "features"
    table: str = ""
    columns: tuple[str, ...] = ()
    min_rows: int = 100
    seasons: Seasons = field(default_factory=Seasons)
    sharp: SharpRule = field(default_factory=SharpRule)
    budget: AlarmBudget = field(default_factory=AlarmBudget)
    joint: JointRule | None = None
    joint_every_days: int = 1
    description: str = ""
    name: str = ""

    def problems(self) -> list[str]:
        """What keeps it from ever judging, or from being true; none if it is well declared."""
        found = []
        if bool(self.service) == bool(self.table):
            found.append("it names a service or a table, one of the two")
        if self.table and self.of != "features":
            found.append(f"a table has no {self.of}; name the service that they belong to")
        if self.joint and (self.table or self.of != "features"):
            found.append("only features of a service are looked at together; leave joint out")
        if self.seasons.min_days > self.seasons.recent_days:
            found.append(
                f"it needs {self.seasons.min_days} days but looks back {self.seasons.recent_days}, so it could never "
                f"judge; lower min_days or raise recent_days"
            )
        if not 0 < self.budget.share < 1 or self.budget.period_days < 1:
            found.append(f"a budget is a share between 0 and 1 of periods of a day or more, not {self.budget}")
        if self.joint_every_days < 1 or self.min_rows < 1:
            found.append("joint_every_days and min_rows are 1 or more")
        return found
