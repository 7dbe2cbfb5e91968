"""What the evidence does to a rollout: the next step, the end, or nothing yet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ml_platform.spec.rollouts import RolloutPolicy
from ml_platform.stores.rollout_state import Phase, Rollout

NO_EVIDENCE = 1.0  # an e-value before anything was seen


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One guard's evidence so far.

    against: e-value that the canary is worse; in_favour: that it is not worse by more than the policy bears.
    canary, champion: evidence units on both sides.
    """

    against: float = NO_EVIDENCE
    in_favour: float = NO_EVIDENCE
    canary: int = 0
    champion: int = 0
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known at a moment (platform time): each guard's standing, and how many units the canary has answered.

    shadowed: unseen, beside the champion. answered: in the present step.
    """

    at: datetime
    standings: Mapping[str, Standing]
    shadowed: int
    answered: int


def against(policy: RolloutPolicy, look: Look) -> float:
    """The evidence of all guards together: the mean of e-values is one, however they depend on one another."""
    return sum(_standing(look, name).against for name in policy.guards) / len(policy.guards)


def judged(policy: RolloutPolicy, rollout: Rollout, look: Look) -> Rollout:
    """The rollout after this look; the same one where nothing follows from it.

    A rollback comes before anything else, and also while the rollout rests.
    """
    if not rollout.runs:
        return rollout
    enough, total = 1 / policy.alpha, against(policy, look)
    if total >= enough:
        worst = max(policy.guards, key=lambda name: _standing(look, name).against)
        reason = f"evidence against it {total:.3g} >= {enough:g}, most of {worst}: {_standing(look, worst).sentence}"
        return _ended(rollout, look, "rolled_back", reason)
    if look.at - rollout.begun > policy.gives_up_after:
        missing = _missing(policy, rollout, look) or "the evidence for it"
        return _ended(rollout, look, "aborted", f"no verdict within {policy.gives_up_after}: {missing} is not there")
    if rollout.resting or _missing(policy, rollout, look):
        return rollout
    if rollout.step + 1 < len(policy.steps):
        share = policy.steps[rollout.step + 1]
        seen = f"{look.shadowed} answers in the shadow" if rollout.step < 0 else f"{look.answered} units at this share"
        reason = f"{share:.0%} after {seen}; evidence against it {total:.3g} of {enough:g}"
        return replace(rollout, phase="canary", step=rollout.step + 1, share=share, since=look.at, reason=reason)
    told = ", ".join(f"{name} {_standing(look, name).in_favour:.3g}" for name in policy.promote_on)
    return _ended(rollout, look, "won", f"not worse by the evidence ({told}; {enough:g} asked), {total:.3g} against it")


def _missing(policy: RolloutPolicy, rollout: Rollout, look: Look) -> str | None:
    """What the next step still wants."""
    if rollout.step < 0:
        if look.shadowed < policy.shadow_units:
            return f"shadow: {look.shadowed} of {policy.shadow_units} answers"
        return None
    if look.answered < policy.step_units:
        return f"step of {rollout.share:.0%}: {look.answered} of {policy.step_units} units"
    if look.at - rollout.since < policy.step_time:
        return f"step of {rollout.share:.0%}: {policy.step_time} of time"
    if rollout.step + 1 < len(policy.steps):
        return None
    short = [name for name in policy.promote_on if _standing(look, name).in_favour < 1 / policy.alpha]
    if short:
        values = ", ".join(f"{name} {_standing(look, name).in_favour:.3g}" for name in short)
        return f"evidence that it is not worse: {values} of {1 / policy.alpha:g}"
    return None


def waits_for(policy: RolloutPolicy, rollout: Rollout, look: Look) -> str:
    """In words, for people who ask why it stands where it does."""
    if not rollout.runs:
        return rollout.reason
    if rollout.resting:
        return "an operator: it was paused"
    return _missing(policy, rollout, look) or "nothing"


def _standing(look: Look, name: str) -> Standing:
    return look.standings.get(name, Standing())


def _ended(rollout: Rollout, look: Look, phase: Phase, reason: str) -> Rollout:
    return replace(rollout, phase=phase, share=0.0 if phase != "won" else rollout.share, since=look.at, reason=reason)
