"""What a deployment does with a version that may serve where its service has a rollout: it begins, waits or ends."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from ml_platform.resources.profiles import Profile
from ml_platform.serving.aliases import named, rejected
from ml_platform.serving.rollout_files import policy_of, rollout_file
from ml_platform.spec import Project
from ml_platform.spec.rollouts import RolloutPolicy
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import ABORT, APPROVAL, BEGIN, ROLLBACK
from ml_platform.stores.rollout_state import Rollout, RolloutFile

Step = Literal["promoted", "refused", "held", "begun"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A service's rollout: its policy, and the file that says where it stands."""

    policy: RolloutPolicy
    file: RolloutFile

    @classmethod
    def of(cls, project: Project, service: str, profile: Profile) -> "Way | None":
        """None: the service's versions take over at once."""
        policy = policy_of(project, service)
        return cls(policy=policy, file=rollout_file(profile, service)) if policy else None


def taken(
    way: Way, ledger: Ledger, model: str, version: str, champion: str, reason: str, now: datetime
) -> tuple[Step, str]:
    """What to do with a version that may take the champion's place, and why.

    One at a time: a version that comes while another's rollout runs waits for its end. A version that was rolled back,
    or whose rollout ended without a verdict, begins another one only if a person approves it after that.
    """
    stands = way.file.read()
    if stands is not None and not stands.closed and stands.model == model:
        if stands.canary == version and stands.champion == champion:
            _tell(ledger, stands, reason, now)  # also after a kill behind the file's change
            return _of_its_own(stands)
        if stands.runs:
            return "held", f"version {version} waits: the rollout of version {stands.canary} runs ({stands.phase})"
    ended = _ended(ledger, model, version)
    if ended:
        return "refused", ended
    begun = way.file.change(lambda held: _begun(way.policy, held, model, version, champion, reason, now))
    assert begun is not None
    _tell(ledger, begun, reason, now)
    return "begun", f"version {version} begins its rollout over version {champion}: {reason}"


def _tell(ledger: Ledger, begun: Rollout, reason: str, now: datetime) -> None:
    body = {"number": begun.number, "champion": begun.champion, "canary": begun.canary, "reason": reason}
    ledger.write(BEGIN, begun.model, begun.salt, now, body)


def _of_its_own(stands: Rollout) -> tuple[Step, str]:
    if stands.phase == "won":
        return "promoted", f"its rollout was won: {stands.reason}"
    if stands.runs:
        where = "in the shadow" if stands.phase == "shadow" else f"answers {stands.share:.0%}"
        return "held", f"version {stands.canary} {where}{', paused' if stands.resting else ''}: {stands.reason}"
    words = {"rolled_back": "was rolled back", "aborted": "ended its rollout without a verdict"}
    return "refused", f"version {stands.canary} {words[stands.phase]}: {stands.reason}"


def _ended(ledger: Ledger, model: str, version: str) -> str | None:
    """Why it may not begin (again)."""
    lines = ledger.about(model, (ROLLBACK, ABORT, APPROVAL))
    ends = [line for line in lines if _canary(line.kind, dict(line.body)) == version]
    words = [line for line in lines if line.kind == APPROVAL and line.body["version"] == version]
    if not ends or (words and words[-1].number > ends[-1].number):
        return None
    return (
        f"version {version} was taken back (line {ends[-1].number}): {ends[-1].body['reason']}. To try it once more: "
        f"`ml-platform approve {model} {version} --override --by NAME --reason WHY`"
    )


def _canary(kind: str, body: dict[str, object]) -> str | None:
    found = {ROLLBACK: body.get("before"), ABORT: body.get("canary")}.get(kind)
    return None if found is None else str(found)


def _begun(
    policy: RolloutPolicy, held: Rollout | None, model: str, version: str, champion: str, reason: str, now: datetime
) -> Rollout | None:
    if held is not None and held.runs:
        return held
    return Rollout(
        number=held.number + 1 if held else 1,
        change=0,
        model=model,
        champion=champion,
        canary=version,
        phase="shadow",
        step=-1,
        share=0.0,
        begun=now,
        since=now,
        reason=f"it passed the gate and is asked unseen: {reason}" if policy.shadow_units else reason,
    )


def closed(way: Way, version: str) -> None:
    """Note that what came of a version's rollout was carried out."""
    way.file.change(
        lambda held: replace(held, closed=True) if held and held.canary == version and not held.runs else held
    )


def end_vain(way: Way, ledger: Ledger, model: str, champion: str | None, now: datetime) -> None:
    """Abort a rollout of which nothing can come: its champion is none any more, or its canary was rejected."""
    stands = way.file.read()
    if stands is None or not stands.runs or stands.model != model:
        return
    if stands.champion != champion:
        why = f"the champion is {named(champion)} now, and it was compared with version {stands.champion}"
        abort(way.file, ledger, stands, why, now)
    elif end := rejected(ledger, model, stands.canary):
        abort(way.file, ledger, stands, f"rejected by {end.body['by']} (line {end.number}): {end.body['reason']}", now)


def abort(
    file: RolloutFile, ledger: Ledger, rollout: Rollout, reason: str, now: datetime, by: str | None = None
) -> None:
    """End a rollout without a verdict: the canary answers nobody from now on."""

    def end(held: Rollout | None) -> Rollout | None:
        if held is None or held.number != rollout.number or not held.runs:
            return held
        return replace(held, phase="aborted", share=0.0, since=now, reason=reason, closed=True)

    after = file.change(end)
    if after is not None and after.number == rollout.number and after.phase == "aborted":
        body = {"canary": after.canary, "reason": after.reason, **({"by": by} if by else {})}
        ledger.write(ABORT, after.model, f"{after.salt}: aborted", now, body)
