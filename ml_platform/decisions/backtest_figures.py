"""What each policy came to: loss with intervals over days, retrainings, and what both cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform import metrics
from ml_platform.decisions.backtest_history import ROW
from ml_platform.decisions.backtest_replay import Arena, Replayed, Retraining
from ml_platform.decisions.backtest_versions import Floats
from ml_platform.evaluation.intervals import Draws, Interval, draw
from ml_platform.spec import BusinessMetric, TooFewLabels
from ml_platform.spec.rollouts import PROBABILITY, TRUTH

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The labelled questions of some days: their place among the arena's, day and truth (0 or 1)."""

    places: NDArray[np.int64]
    days: pl.Series
    truth: Floats
    draws: Draws

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.truth.size)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One policy's figures on the judged days, smaller is better but for the AUC.

    log_loss: mean over all answers. against: name of another policy -> its loss less this one's (positive: this one is
    better), paired by row, with the 95 % interval over days. retrainings: of the judged days; all: of the whole replay.
    business: by metric the mean cost of an answer. seconds: of training, wall; cpu_seconds: the processor's.
    """

    name: str
    description: str
    log_loss: float
    auc: float
    against: Mapping[str, Interval]
    retrainings: tuple[Retraining, ...]
    all: tuple[Retraining, ...]
    business: Mapping[str, float]
    seconds: float
    cpu_seconds: float
    saved: Floats

    @property
    def promoted(self) -> int:
        """How many of the retrainings took over."""
        return sum(one.promoted for one in self.retrainings)


def judged(arena: Arena, since: date, seed: int) -> Judged:
    """What is judged: every question asked from ``since`` on whose truth is known by now.

    Raises:
        TooFewLabels: none, or of one day only.
    """
    rows = arena.rows.join(arena.history.truths, on=ROW, how="left", maintain_order="left")
    wanted = (rows["asked_on"] >= since) & rows["label"].is_not_null()
    chosen = rows.filter(wanted)
    if chosen["asked_on"].n_unique() < 2:
        raise TooFewLabels(
            f"from {since} to {arena.last} {chosen.height} answers of {chosen['asked_on'].n_unique()} days have a "
            f"label; a backtest needs two days: choose others"
        )
    draws = draw(chosen["asked_on"], seed=seed, resamples=_RESAMPLES)
    places = np.flatnonzero(wanted.to_numpy())
    return Judged(places=places, days=chosen["asked_on"], truth=chosen["label"].to_numpy(), draws=draws)


def outcome(
    replayed: Replayed,
    on: Judged,
    rivals: Mapping[str, Floats],
    metrics_of: Mapping[str, BusinessMetric],
    since: date,
    first: str,
) -> Outcome:
    """rivals: name -> mean loss of each judged row. first: the rival that ``saved`` is counted against, day by day."""
    given = replayed.answers[on.places]
    losses = metrics.row_losses(on.truth, given)
    chosen = tuple(one for one in replayed.retrainings if one.day >= since)
    return Outcome(
        name=replayed.policy.name,
        description=replayed.policy.description,
        log_loss=float(losses.mean()),
        auc=metrics.auc(on.truth, given),
        against={name: gain(other - losses, on.draws) for name, other in rivals.items()},
        retrainings=chosen,
        all=replayed.retrainings,
        business={name: costs(metric, on.truth, given) for name, metric in metrics_of.items()},
        seconds=sum(one.seconds for one in chosen),
        cpu_seconds=sum(one.cpu_seconds for one in chosen),
        saved=on.draws.summed(rivals[first] - losses),
    )


def gain(difference: Floats, draws: Draws) -> Interval:
    """The mean of a row's difference, with the 2.5 and 97.5 % quantiles over days drawn with replacement."""
    sums, rows = draws.summed(difference), draws.summed(np.ones_like(difference))
    low, high = np.quantile((draws.counts @ sums) / (draws.counts @ rows), [0.025, 0.975])
    return Interval(value=float(difference.mean()), low=float(low), high=float(high))


def costs(metric: BusinessMetric, truth: Floats, given: Floats) -> float:
    """Mean cost of an answer."""
    frame = pl.DataFrame({PROBABILITY: given, TRUTH: truth})
    return float(frame.select(metric.value.cast(pl.Float64)).to_series().to_numpy().mean())


def losses_of(replayed: Replayed, on: Judged) -> Floats:
    """The loss of each judged row."""
    return metrics.row_losses(on.truth, replayed.answers[on.places])


def mean_losses(replayed: Sequence[Replayed], on: Judged) -> Floats:
    """Of several policies, row by row: what one of them drawn at random loses in the mean."""
    return np.asarray(np.mean([losses_of(one, on) for one in replayed], axis=0), dtype=np.float64)
