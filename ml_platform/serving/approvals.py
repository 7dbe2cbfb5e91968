"""What a person says about a version: it may serve, it never will, or (of a moved alias) which version is right."""

from dataclasses import dataclass
from datetime import datetime

from ml_platform.serving.aliases import look, named, rejected
from ml_platform.serving.deployment import outdated
from ml_platform.spec import WordRefused
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ADOPTION, APPROVAL, GATE, PROMOTION, REJECTION, SERVING
from ml_platform.stores.tracking import CHAMPION, Tracking


@dataclass(frozen=True, kw_only=True)
class Word:
    """Who says it, and why. Nobody checks who that is: the ledger says what it was told."""

    by: str
    reason: str

    def checked(self) -> "Word":
        """Without the spaces around it.

        Raises:
            WordRefused: a name or a reason is missing.
        """
        word = Word(by=self.by.strip(), reason=self.reason.strip())
        if not word.by or not word.reason:
            raise WordRefused("the ledger keeps who decided and why: give --by a name and --reason a sentence")
        return word


def approve(
    tracking: Tracking, ledger: Ledger, model: str, version: int, word: Word, now: datetime, *, override: bool = False
) -> Entry:
    """Let a judged version pass; the next deployment promotes it. Saying it again changes nothing.

    override: also one that did not pass the gate, or that was judged against another champion than today's.

    Raises:
        UnknownName: there is no such model or version.
        WordRefused: the version serves, served or was rejected; or the gate speaks against it.
    """
    word, number, name = word.checked(), str(version), f"version {version} of {model}"
    tracking.version(model, version)
    aliases = look(tracking, ledger, model, now)
    if aliases.moved:
        raise WordRefused(f"first say which champion is right: {aliases.moved}")
    said = [line for line in ledger.entries(APPROVAL, model) if line.body["version"] == number]
    if said and aliases.champion == number:
        return said[-1]
    _refuse_past(ledger, model, number, aliases.champion)
    verdicts = [line for line in ledger.entries(GATE, model) if str(line.body["version"]) == number]
    if not verdicts:
        raise WordRefused(f"{name} was never judged; materialize evaluations/{model}, or approve a version that was")
    verdict = verdicts[-1]
    state, old = verdict.body["state"], outdated(verdict.body, aliases.champion)
    if state not in ("pass", "warn") and not override:
        raise WordRefused(
            f"{name} did not pass the gate ({state}): {verdict.body['reason']}. With --override it is promoted all the "
            f"same, and the ledger says so"
        )
    if old and not override:
        raise WordRefused(f"{name} cannot be approved: {old}")
    body = {"version": number, "champion": aliases.champion, "gate": verdict.number, "override": override}
    body |= {"by": word.by, "reason": word.reason}
    return ledger.write(APPROVAL, model, f"v{number} over {aliases.champion}", now, body)


def reject(tracking: Tracking, ledger: Ledger, model: str, version: int, word: Word, now: datetime) -> Entry:
    """End a version's candidacy for good. Saying it again changes nothing.

    Raises:
        UnknownName: there is no such model or version.
        WordRefused: it is no candidate any more: it serves, served, or is being promoted.
    """
    word, number = word.checked(), str(version)
    tracking.version(model, version)
    aliases = look(tracking, ledger, model, now)
    stands = rejected(ledger, model, number)
    if stands:
        return stands
    _refuse_past(ledger, model, number, aliases.champion)
    body = {"version": number, "by": word.by, "reason": word.reason}
    line = ledger.write(REJECTION, model, f"v{number}", now, body)
    if look(tracking, ledger, model, now).champion == number:
        raise WordRefused(f"version {version} of {model} was promoted before line {line.number} could reject it")
    return line


def adopt(tracking: Tracking, ledger: Ledger, model: str, version: int, word: Word, now: datetime) -> Entry:
    """After somebody moved the champion past the platform: say which of the two versions is right, and it is so.

    Raises:
        UnknownName: there is no such model or version.
        WordRefused: nobody moved it, or it is neither of the two, or it was rejected.
    """
    word, number = word.checked(), str(version)
    tracking.version(model, version)
    aliases = look(tracking, ledger, model, now)
    newest = ledger.about(model, SERVING)[-1:]
    if aliases.moved is None and [line.kind for line in newest] == [ADOPTION] and aliases.champion == number:
        return newest[0]
    if aliases.moved is None:
        raise WordRefused(
            f"nobody moved the champion of {model} past the platform: it is {named(aliases.champion)} in MLflow and "
            f"in the ledger; to promote a version: `ml-platform approve {model} {version} --by NAME --reason WHY`"
        )
    if number not in (aliases.champion, aliases.recorded):
        raise WordRefused(f"version {version} is neither what was found nor what is recorded: {aliases.moved}")
    end = rejected(ledger, model, number)
    if end:
        raise WordRefused(
            f"version {version} of {model} was rejected by {end.body['by']} (line {end.number}): {end.body['reason']}; "
            f"put {named(aliases.recorded)} back"
        )
    tracking.promote(model, version)  # also what stands already: it is no challenger any more
    before = aliases.recorded if number == aliases.champion else aliases.champion
    body = {"alias": CHAMPION, "version": number, "before": before, "by": word.by, "reason": word.reason}
    return ledger.write(ADOPTION, model, f"v{number} at {now.isoformat()}", now, body)


def _refuse_past(ledger: Ledger, model: str, version: str, champion: str | None) -> None:
    """Of a version whose candidacy has ended nothing can be said any more."""
    name = f"version {version} of {model}"
    end = rejected(ledger, model, version)
    if end:
        raise WordRefused(
            f"{name} was rejected by {end.body['by']} on {end.at:%Y-%m-%d} (line {end.number}): {end.body['reason']}. "
            f"A rejected version is never promoted; train another one"
        )
    served = [line for line in ledger.about(model, (PROMOTION, ADOPTION)) if str(line.body["version"]) == version]
    if served and champion != version:
        raise WordRefused(
            f"{name} was champion before (line {served[-1].number}), and version {champion} took its place since; a "
            f"version is promoted once, so train another one"
        )
    if champion == version:
        raise WordRefused(f"{name} is champion already" + (f" (line {served[-1].number})" if served else ""))
