"""When a model is trained again and what counts as drift."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class RetrainPolicy:
    """Retrain on evidence from late labels; it becomes ``decisions/<name>``.

    window: length of the judged window of event days; it is compared with the champion's first such window.
    max_loss_ratio: retrain when the window's log-loss exceeds this multiple of the reference.
    min_maturity: share of the window's labels (0..1) that must have arrived; less is *unknown*.
    cooldown: shortest time between two retrainings.
    deadline: retrain in any case when the champion is older (``None``: never on age alone).
    """

    window: timedelta = timedelta(days=7)
    max_loss_ratio: float = 1.1
    min_rows: int = 500
    min_maturity: float = 0.9
    cooldown: timedelta = timedelta(days=14)
    deadline: timedelta | None = None
    description: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftPolicy:
    """Compares the features served on a day with the days before; it becomes ``drift/<name>``.

    The verdict fails on a feature when its Jensen-Shannon distance is at least ``min_distance`` and at least
    ``ratio`` times the largest of the reference days (where that is far up: and 1/``ratio`` of what is left to 1, the
    largest distance, remains). The share of missing values is judged likewise. Fewer than ``min_days`` reference days
    (or two) are *unknown*.
    """

    service: str
    reference_days: int = 28
    min_days: int = 7
    min_rows: int = 100
    min_distance: float = 0.1
    ratio: float = 1.5
    description: str = ""
    name: str = ""
