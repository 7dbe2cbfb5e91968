"""What the gate asks of a challenger, one function a question; each answers with a verdict and its reason.

The names of groups stand behind "for example", which the ledger leaves out: a group may be named after an entity.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ml_platform import metrics
from ml_platform.metrics import PairedGain
from ml_platform.spec import GatePolicy, Verdict
from ml_platform.training.encoding import Encoding
from ml_platform.training.training_set import LABEL

RISK = 0.05  # of refusing for a group that does not lose beyond its margin, or for a baseline that is no better


def sane(probabilities: ArrayLike, weights: ArrayLike, bound: float) -> Verdict:
    """Every answer is a probability, every weight a number within the bound."""
    given, learned = np.asarray(probabilities, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    told: dict[str, float | int | str] = {"weights": learned.size}
    wrong = no_probabilities(given)
    if wrong:
        return Verdict(state="fail", reason=f"{wrong} of {given.size} of its {_NO_PROBABILITIES}", measures=told)
    lost = int((~np.isfinite(learned)).sum())
    if lost:
        return Verdict(state="fail", reason=f"{lost} of its {learned.size} weights are no numbers", measures=told)
    largest = float(np.abs(learned).max(initial=0.0))
    told["largest_weight"] = largest
    if largest > bound:
        reason = f"its largest weight is {largest:.3g}, {bound:g} is allowed (weight_bound): it has diverged"
        return Verdict(state="fail", reason=reason, measures=told)
    reason = f"all {given.size} answers are probabilities, its {learned.size} weights are at most {largest:.3g}"
    return Verdict(state="pass", reason=reason, measures=told)


_NO_PROBABILITIES = "predictions are no probabilities (NaN or outside 0 to 1)"


def no_probabilities(given: NDArray[np.float64]) -> int:
    """How many of them are none."""
    return int((~((given >= 0) & (given <= 1))).sum())


def beats(
    challenger: ArrayLike,
    rival: ArrayLike,
    labels: ArrayLike,
    days: ArrayLike,
    policy: GatePolicy,
    seed: int,
    *,
    name: str,
    min_gain: float = 0.0,
) -> Verdict:
    """Whether the challenger's probabilities beat the rival's on these rows, paired, over days.

    labels: 0 or 1; days: the event day of each row. name: of the rival, for the sentence.

    *unknown*: too few rows, days or classes. A rival whose answers are no probabilities is beaten.
    """
    truth, given = np.asarray(labels, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    against = np.asarray(rival, dtype=np.float64)
    too_few = _too_few(truth, np.asarray(days), policy)
    if too_few:
        return Verdict.unknown(too_few, rows=truth.size)
    wrong = no_probabilities(against)
    if wrong:
        reason = f"{wrong} of {against.size} of {name}'s {_NO_PROBABILITIES}; the challenger's all are"
        told = {"rows": truth.size, "log_loss": metrics.log_loss(truth, given)}
        return Verdict(state="pass", reason=reason, measures=told)
    gain = metrics.paired_gain(truth, against, given, days, seed=seed, min_gain=min_gain, resamples=policy.resamples)
    measures = {
        "rows": gain.rows,
        "days": gain.days,
        "log_loss": metrics.log_loss(truth, given),
        "rival_log_loss": metrics.log_loss(truth, against),
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "confidence": gain.probability,
    }
    better = gain.mean > min_gain and gain.probability >= policy.confidence
    reason = _compared(gain, name, policy, min_gain, better=better)
    return Verdict(state="pass" if better else "fail", reason=reason, measures=measures)


def _compared(gain: PairedGain, rival: str, policy: GatePolicy, minimum: float, *, better: bool) -> str:
    wins = f"it beats {rival} by" if better else f"it does not beat {rival}: the gain is"
    return (
        f"{wins} {gain.mean:+.4f} log-loss (95% interval {gain.low:+.4f} to {gain.high:+.4f}) on "
        f"{gain.rows} rows of {gain.days} days: a gain above {minimum:g} has probability {gain.probability:.0%}, "
        f"{policy.confidence:.0%} is asked"
    )


def _too_few(truth: NDArray[np.float64], days: NDArray[np.generic], policy: GatePolicy) -> str:
    if truth.size < policy.min_rows:
        return f"only {truth.size} fresh labelled rows, {policy.min_rows} are needed to judge"
    if np.unique(days).size < 2:
        return f"all {truth.size} fresh rows fall on one day, which says nothing about other days"
    if truth.min() == truth.max():
        return f"all {truth.size} fresh labels are {int(truth[0])}; both classes are needed to judge"
    return ""


def beats_all(found: Mapping[str, Verdict]) -> Verdict:
    """Of the verdicts against each baseline (``beats``): none is surely better.

    A baseline that cannot be told apart warns: were it to refuse, a better challenger would leave a worse champion.
    """
    told = {f"{name}_{key}": each.measures[key] for name, each in found.items() for key in ("gain", "rival_log_loss")}
    open_ = {name: each for name, each in found.items() if each.state == "fail"}
    lost = [each.reason for each in open_.values() if float(each.measures["confidence"]) <= RISK]
    if lost:
        return Verdict(state="fail", reason="; ".join(lost), measures=told)
    if open_:
        return Verdict(state="warn", reason="; ".join(each.reason for each in open_.values()), measures=told)
    wins = ", ".join(f"{name} by {verdict.measures['gain']:+.4f}" for name, verdict in found.items())
    return Verdict(state="pass", reason=f"it beats the baselines in log-loss: {wins}", measures=told)


def no_slice_regresses(table: pl.DataFrame) -> Verdict:
    """No group of enough rows loses more than its margin. table: as ``slice_table`` makes it.

    A group counts as lost when its mean loss is beyond the margin and nearly every resample's is: with many groups
    one is beyond it by chance, so what is asked of each grows with their number (Bonferroni).
    """
    judged = table.filter("judged")
    told: dict[str, float | int | str] = {"slices_judged": judged.height, "slices_shown": table.height}
    if judged.is_empty():
        return Verdict(state="pass", reason=f"none of {table.height} groups has the rows to be judged", measures=told)
    asked = 1 - RISK / judged.height
    lost = judged.filter(-pl.col("gain") > pl.col("margin"), pl.col("beyond_margin") >= asked).sort("gain")
    told["slices_lost"], told["worst_gain"] = lost.height, float(judged["gain"].sort()[0])
    if lost.is_empty():
        reason = f"none of {judged.height} groups loses beyond its margin (the worst gain is {told['worst_gain']:+.4f})"
        return Verdict(state="pass", reason=reason, measures=told)
    shown = ", ".join(
        f"{row['slice']} {row['group']} {row['gain']:+.4f} ({row['gain_low']:+.4f} to {row['gain_high']:+.4f}) on "
        f"{row['rows']} rows, its margin is {row['margin']:g}"
        for row in lost.head(3).iter_rows(named=True)
    )
    names = ", ".join(lost["slice"].unique(maintain_order=True))
    reason = f"{lost.height} of {judged.height} groups lose to the champion beyond their margin (by {names})"
    return Verdict(state="fail", reason=f"{reason}; for example {shown}", measures=told)


def fast_enough(milliseconds: Sequence[float], budget_ms: float) -> Verdict:
    """Within the budget 95 % of single rows are answered. milliseconds: of each."""
    median, late = (float(value) for value in np.quantile(np.asarray(milliseconds), [0.5, 0.95]))
    told = {"latency_ms_p50": median, "latency_ms_p95": late}
    reason = f"95% of single rows are answered within {late:.2f} ms, the budget is {budget_ms:g} ms"
    return Verdict(state="pass" if late <= budget_ms else "fail", reason=reason, measures=told)


def served_as_recomputed(services: Mapping[str, str | None]) -> Verdict:
    """The skew replay of the services that answer with this model is clean. services: name -> what differs.

    Only a warning: a difference holds every promotion back where it is carried out, until it is mended.
    """
    wrong = [f"{name}: {reason}" for name, reason in services.items() if reason]
    if wrong:
        reason = f"what is served differs from what is recomputed, so a promotion will wait ({'; '.join(wrong)})"
        return Verdict(state="warn", reason=reason)
    return Verdict(state="pass", reason=f"{', '.join(services)} served what is recomputed")


def no_leak(auc: float, ceiling: float, rows: pl.DataFrame, encoding: Encoding) -> Verdict:
    """The AUC is not too good to be true; else the input that alone orders the labels best is named. rows: judged ones.

    A missing value counts as the lowest one: what is missing only for ones leaks, too.
    """
    told = {"auc": auc}
    if auc <= ceiling:
        return Verdict(state="pass", reason=f"the AUC {auc:.3f} is not above {ceiling:g}", measures=told)
    alone = alone_aucs(rows, encoding)
    first, second = [*alone.items(), ("no other input", 0.5)][:2]
    reason = (
        f"the AUC {auc:.3f} is above {ceiling:g}, which is too good to be true (auc_ceiling): an input may know the "
        f"label. Most likely {first[0]}, whose AUC alone is {first[1]:.3f}; next {second[0]} with {second[1]:.3f}"
    )
    return Verdict(state="warn", reason=reason, measures={**told, "likely_leak": first[0], "its_auc": first[1]})


def alone_aucs(rows: pl.DataFrame, encoding: Encoding) -> dict[str, float]:
    """Input -> how well it alone orders the labels, in either direction (0.5 to 1), the best first."""
    matrix = np.nan_to_num(encoding.frame_matrix(rows), nan=-np.inf, posinf=np.finfo(np.float64).max)
    found = {}
    for name, values in zip(encoding.inputs, matrix.T, strict=True):
        _, ranks = np.unique(values, return_inverse=True)
        auc = metrics.auc(rows[LABEL], ranks / max(ranks.max(), 1))
        found[name] = max(auc, 1 - auc)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
