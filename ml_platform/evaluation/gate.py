"""The gate: may the challenger replace the champion? Judged on the same fresh rows, with a written reason."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform import metrics
from ml_platform.metrics import PairedGain
from ml_platform.spec import DeclarationError, GatePolicy, ModelSpec, RetrainPolicy, Verdict


def check_gate(spec: ModelSpec, policy: RetrainPolicy | None) -> None:
    """Refuse a holdout at least as long as the time between trainings: its rows would always be the champion's, too.

    Raises:
        DeclarationError: the gate would be vacuous.
    """
    if policy is not None and spec.gate.holdout >= policy.cooldown:
        raise DeclarationError(
            f"model {spec.name}: gate.holdout is {spec.gate.holdout}, but policy {policy.name} may retrain after "
            f"{policy.cooldown}, so that a champion would be judged on rows it was trained on; make the holdout "
            f"shorter than the cooldown"
        )


def judge(
    challenger: ArrayLike,
    champion: ArrayLike | None,
    labels: ArrayLike,
    days: ArrayLike,
    policy: GatePolicy,
    seed: int,
) -> Verdict:
    """Whether the challenger's probabilities beat the champion's on these rows.

    labels: 0 or 1; days: the event day of each row. champion: None where there is none yet; the challenger must then
    beat the constant that knows the share of ones in these very rows.

    *fail*: no probabilities, or no gain that the policy is confident of. *unknown*: too few rows, days or classes.
    """
    truth, given = np.asarray(labels, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    insane = _insane(given)
    if insane:
        return Verdict(state="fail", reason=insane, measures={"rows": truth.size})
    too_few = _too_few(truth, np.asarray(days), policy)
    if too_few:
        return Verdict.unknown(too_few, rows=truth.size)
    first = champion is None
    rival = np.full(truth.size, truth.mean()) if first else np.asarray(champion, dtype=np.float64)
    if _insane(rival):
        return _replaces_insane(truth, given, rival)
    minimum = 0.0 if first else policy.min_gain
    gain = metrics.paired_gain(truth, rival, given, days, seed=seed, min_gain=minimum, resamples=policy.resamples)
    measures = {
        "rows": gain.rows,
        "days": gain.days,
        "log_loss": metrics.log_loss(truth, given),
        "rival_log_loss": metrics.log_loss(truth, rival),
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "confidence": gain.probability,
    }
    better = gain.mean > minimum and gain.probability >= policy.confidence
    reason = _reason(gain, "the constant" if first else "the champion", policy, minimum, better=better)
    prefix = "the first version; " if first else ""
    return Verdict(state="pass" if better else "fail", reason=prefix + reason, measures=measures)


def _reason(gain: PairedGain, rival: str, policy: GatePolicy, minimum: float, *, better: bool) -> str:
    wins = f"it beats {rival} by" if better else f"it does not beat {rival}: the gain is"
    return (
        f"{wins} {gain.mean:+.4f} log-loss (95% interval {gain.low:+.4f} to {gain.high:+.4f}) on "
        f"{gain.rows} rows of {gain.days} days: a gain above {minimum:g} has probability {gain.probability:.0%}, "
        f"{policy.confidence:.0%} is asked"
    )


def _insane(given: NDArray[np.float64]) -> str:
    wrong = int((~((given >= 0) & (given <= 1))).sum())
    return f"{wrong} of {given.size} of its predictions are no probabilities (NaN or outside 0 to 1)" if wrong else ""


def _too_few(truth: NDArray[np.float64], days: NDArray[np.generic], policy: GatePolicy) -> str:
    if truth.size < policy.min_rows:
        return f"only {truth.size} fresh labelled rows, {policy.min_rows} are needed to judge"
    if np.unique(days).size < 2:
        return f"all {truth.size} fresh rows fall on one day, which says nothing about other days"
    if truth.min() == truth.max():
        return f"all {truth.size} fresh labels are {int(truth[0])}; both classes are needed to judge"
    return ""


def _replaces_insane(truth: NDArray[np.float64], given: NDArray[np.float64], rival: NDArray[np.float64]) -> Verdict:
    wrong = int((~((rival >= 0) & (rival <= 1))).sum())
    return Verdict(
        state="pass",
        reason=f"{wrong} of {rival.size} of the champion's predictions are no probabilities; the challenger's all are",
        measures={"rows": truth.size, "log_loss": metrics.log_loss(truth, given)},
    )
