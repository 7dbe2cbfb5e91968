"""What was measured of challenger, champion and baselines on the same rows, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.baselines import CONSTANT, LOGISTIC
from ml_platform.evaluation.comparison import CHALLENGER, CHAMPION, DAY, has_champion
from ml_platform.evaluation.gate import Judged
from ml_platform.evaluation.intervals import Interval, resample
from ml_platform.evaluation.slices import fairness_table
from ml_platform.monitoring.grouped import groups
from ml_platform.spec import ModelSpec, TooFewLabels
from ml_platform.training.training_set import LABEL

_RESAMPLES = 200  # enough to see how wide an interval is; the gate draws its own


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of each model on the same rows: model -> measure -> value with its interval.

    gains: the challenger's measures less the champion's (empty: there is none). slices, fairness: None where there are
    none. unmeasured: why nothing could be measured.
    """

    of: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    gains: Mapping[str, Interval] = field(default_factory=dict)
    slices: pl.DataFrame | None = None
    fairness: pl.DataFrame | None = None
    unmeasured: str | None = None

    def measures(self) -> dict[str, float]:
        """Every value by its name: those of the challenger as they are, the others' with the model's name before."""
        return {
            name if model == CHALLENGER else f"{model}_{name}": found.value
            for model, measured in self.of.items()
            for name, found in measured.items()
        }


def measure(spec: ModelSpec, scored: pl.DataFrame, rows: pl.DataFrame, judged: Judged, timezone: str) -> Figures:
    """Every model's measures on the scored rows; rows: the same ones with their inputs."""
    if judged.criteria["sane"].state == "fail":
        return Figures(unmeasured=judged.criteria["sane"].reason)
    truth, days = scored[LABEL], scored[DAY]
    try:
        found = {
            model: resample(truth, scored[model], days, seed=spec.seed, resamples=_RESAMPLES)
            for model in models(scored)
        }
    except TooFewLabels as error:
        return Figures(unmeasured=str(error))
    fairness = None
    if spec.fairness is not None:
        grouped = groups(rows, {name: spec.slices[name] for name in spec.fairness.slices}, timezone)
        fairness = fairness_table(
            truth,
            scored[CHALLENGER],
            grouped,
            spec.fairness,
            {name: spec.slices[name].min_rows for name in spec.fairness.slices},
        )
    of = {model: each.intervals() for model, each in found.items()}
    gains = found[CHALLENGER].less(found[CHAMPION]) if CHAMPION in found else {}
    return Figures(of=of, gains=gains, slices=judged.slices, fairness=fairness)


def models(scored: pl.DataFrame) -> list[str]:
    """Whose answers are there, the challenger first."""
    rivals = [CHAMPION] if has_champion(scored) else []
    return [CHALLENGER, *rivals, *(name for name in (LOGISTIC, CONSTANT) if name in scored.columns)]


def losses_by_day(scored: pl.DataFrame) -> pl.DataFrame:
    """``day``, ``rows`` and the mean log-loss of each model on it, by day."""
    named = [pl.Series(model, metrics.row_losses(scored[LABEL], scored[model])) for model in models(scored)]
    losses = scored.select(DAY).with_columns(named)
    return losses.group_by(DAY).agg(pl.len().alias("rows"), *(pl.col(each.name).mean() for each in named)).sort(DAY)
