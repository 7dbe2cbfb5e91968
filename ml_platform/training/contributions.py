"""What each input added to one answer, by the means of the model's own family; they sum up to its raw score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml_platform.training.encoding import Floats

Scale = Literal["log-odds", "probability"]


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """Of one row: ``base + values.sum() == raw``, but for ``gap``.

    values: (inputs,), in the order of the model's inputs. base: the raw score of the baseline. scale: what raw, base
    and values count in. method, baseline: in words. baselines: each input's value in the baseline, None where there is
    none.
    """

    values: Floats
    base: float
    raw: float
    scale: Scale
    method: str
    baseline: str
    baselines: tuple[float | None, ...]

    @property
    def gap(self) -> float:
        """How much of the raw score no input accounts for: rounding, or the steps of an integral."""
        return self.raw - self.base - float(self.values.sum())

    @property
    def probability(self) -> float:
        """P(label = 1) that the raw score stands for."""
        return logistic(self.raw) if self.scale == "log-odds" else self.raw

    def in_probability(self) -> "Contributions":
        """The same on the scale of probabilities: each keeps its share of the way from the baseline to the answer.

        This is the rescale rule of Shrikumar et al., "Learning Important Features Through Propagating Activation
        Differences" (2017), for the one logistic function at the end.
        """
        if self.scale == "probability":
            return self
        base, raw, way = logistic(self.base), logistic(self.raw), self.raw - self.base
        slope = (raw - base) / way if abs(way) > 1e-12 else base * (1 - base)
        return Contributions(
            values=self.values * slope,
            base=base,
            raw=raw,
            scale="probability",
            method=self.method,
            baseline=self.baseline,
            baselines=self.baselines,
        )


def weighted(parts: Sequence[Contributions], shares: Sequence[float], names: Sequence[str]) -> Contributions:
    """Of a weighted mean of several models' probabilities (the shares sum to 1), of the same inputs."""
    alike = [part.in_probability() for part in parts]
    known = list(zip(*(part.baselines for part in parts), strict=True))
    told = [f"{share:.3g} of {name}: {part.method}" for name, share, part in zip(names, shares, parts, strict=True)]
    return Contributions(
        values=np.sum([share * part.values for share, part in zip(shares, alike, strict=True)], axis=0),
        base=sum(share * part.base for share, part in zip(shares, alike, strict=True)),
        raw=sum(share * part.raw for share, part in zip(shares, alike, strict=True)),
        scale="probability",
        method="; ".join([*told, "each rescaled from log-odds to probability, then weighted"]),
        baseline="; ".join(f"{name}: {part.baseline}" for name, part in zip(names, parts, strict=True)),
        baselines=tuple(next((value for value in values if value is not None), None) for values in known),
    )


def logistic(raw: float) -> float:
    """Log-odds to probability."""
    return float(1 / (1 + np.exp(-raw)))
