"""What operators do to a rollout: let it rest, let it go on, end it, take the canary (or the champion) back."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from ml_platform.serving.aliases import look, named
from ml_platform.serving.approvals import Word
from ml_platform.serving.rollout_way import abort as ended
from ml_platform.spec import WordRefused
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ADOPTION, PAUSE, PROMOTION, RESUME, ROLLBACK
from ml_platform.stores.rollout_state import Rollout, RolloutFile
from ml_platform.stores.tracking import Tracking


def pause(file: RolloutFile, ledger: Ledger, service: str, word: Word, now: datetime) -> Rollout:
    """Keep the share as it is; evidence is still gathered, and still rolls back.

    Raises:
        WordRefused: no rollout of the service runs.
    """
    return _rest(file, ledger, service, word, now, resting=True)


def resume(file: RolloutFile, ledger: Ledger, service: str, word: Word, now: datetime) -> Rollout:
    """Let a paused rollout go on.

    Raises:
        WordRefused: no rollout of the service runs.
    """
    return _rest(file, ledger, service, word, now, resting=False)


def _rest(file: RolloutFile, ledger: Ledger, service: str, word: Word, now: datetime, *, resting: bool) -> Rollout:
    word = word.checked()
    stands = _running(file, service)
    after = _changed(file, stands, lambda held: replace(held, resting=resting))
    kind = PAUSE if resting else RESUME
    body = {"canary": after.canary, "by": word.by, "reason": word.reason}
    ledger.write(kind, after.model, f"{after.salt}: {kind} {after.change}", now, body)
    return after


def abort(file: RolloutFile, ledger: Ledger, service: str, word: Word, now: datetime) -> Rollout:
    """End the rollout without a verdict: the champion answers everybody.

    Raises:
        WordRefused: no rollout of the service runs.
    """
    word = word.checked()
    stands = _running(file, service)
    ended(file, ledger, stands, word.reason, now, word.by)
    after = file.read()
    assert after is not None
    return after


def roll_back(
    file: RolloutFile, tracking: Tracking, ledger: Ledger, model: str, service: str, word: Word, now: datetime
) -> Entry:
    """Take the canary back; where no rollout runs, the champion: the one before it serves again.

    Saying it again after a kill ends what was begun.

    Raises:
        WordRefused: there is no version to go back to, or somebody moved the alias past the platform.
    """
    word = word.checked()
    stands = file.read()
    if stands is not None and stands.runs:
        end: Callable[[Rollout], Rollout] = lambda held: replace(  # noqa: E731  # typed, and used once
            held, phase="rolled_back", share=0.0, since=now, reason=word.reason, closed=True
        )
        after = _changed(file, stands, end)
        body = {"version": after.champion, "before": after.canary, "reason": word.reason, "by": word.by}
        return ledger.write(ROLLBACK, after.model, f"{after.salt}: rolled_back {after.step}", now, body)
    return _champion_back(tracking, ledger, model, word, now)


def _champion_back(tracking: Tracking, ledger: Ledger, model: str, word: Word, now: datetime) -> Entry:
    """The line first, then the alias: a kill between them shows as a moved alias, and the same command ends it."""
    aliases = look(tracking, ledger, model, now)
    last = ledger.last(ROLLBACK, model)
    begun = last is not None and last.body["version"] == aliases.recorded and last.body["before"] == aliases.champion
    if aliases.moved and not begun:
        raise WordRefused(f"first say which champion is right: {aliases.moved}")
    if begun and last is not None:
        tracking.promote(model, int(str(last.body["version"])))
        return last
    serving = [str(line.body["version"]) for line in ledger.about(model, (PROMOTION, ADOPTION, ROLLBACK))]
    before = next((version for version in reversed(serving) if version != aliases.champion), None)
    if aliases.champion is None or before is None:
        raise WordRefused(f"{model} has {named(aliases.champion)} as its champion and none before it to go back to")
    body = {"version": before, "before": aliases.champion, "reason": word.reason, "by": word.by}
    line = ledger.write(ROLLBACK, model, f"v{aliases.champion} to v{before} at {now.isoformat()}", now, body)
    tracking.promote(model, int(before))
    return line


def _running(file: RolloutFile, service: str) -> Rollout:
    stands = file.read()
    if stands is None or not stands.runs:
        last = "it never had one" if stands is None else f"the last one, of version {stands.canary}, {_end(stands)}"
        raise WordRefused(f"no rollout of service {service} runs: {last}")
    return stands


def _end(rollout: Rollout) -> str:
    return f"ended as {rollout.phase.replace('_', ' ')} on {rollout.since:%Y-%m-%d %H:%M} UTC: {rollout.reason}"


def _changed(file: RolloutFile, stands: Rollout, change: Callable[[Rollout], Rollout]) -> Rollout:
    after = file.change(lambda held: change(held) if held and held.number == stands.number and held.runs else held)
    if after is None or after.number != stands.number:
        raise WordRefused(f"the rollout of version {stands.canary} ended meanwhile")
    return after
