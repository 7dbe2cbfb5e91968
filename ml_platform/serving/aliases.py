"""Whether MLflow's aliases stand where the ledger says that they were put, and who moved them if not."""

from dataclasses import dataclass
from datetime import datetime

from ml_platform.spec import NoChampion, Verdict
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import (
    ADOPTION,
    ALIAS,
    FOUND,
    PROMOTION,
    REJECTION,
    ROLLBACK,
    SERVING,
    TRAINING,
)
from ml_platform.stores.ledger_serving import Serving, chosen, serving_now
from ml_platform.stores.tracking import CHAMPION, Tracking


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """Versions behind a model's aliases in MLflow; what the ledger says of the champion; whether they agree.

    moved: how somebody moved the champion past the platform, and what to do about it; None if nobody did.
    """

    champion: str | None
    recorded: str | None
    moved: str | None
    verdict: Verdict


def champion_version(tracking: Tracking, model: str) -> str | None:
    """The registry's champion, if any."""
    try:
        return str(tracking.champion(model).version)
    except NoChampion:
        return None


def look(tracking: Tracking, ledger: Ledger, model: str, now: datetime) -> Aliases:
    """Compare MLflow with the ledger; a move that the ledger does not know of is written down when it is found.

    A promotion of the platform that was cut off behind its move is written down, too.
    """
    champion, lines = _read(tracking, ledger, model)
    seen, recorded = _champion(serving_now(lines)), chosen(lines)
    if champion != seen:
        number = lines[-1].number if lines else 0
        body = {"alias": CHAMPION, "version": champion, "before": seen}
        found = ledger.write(FOUND, model, f"{CHAMPION} {seen} to {champion} behind {number}", now, body)
        lines = [*lines, found]
    moved = None if champion == _champion(recorded) else _moved(model, champion, recorded, lines[-1])
    wrong = "; ".join(filter(None, (moved, _strayed(tracking, ledger, model))))
    right = f"the champion of {model} is {named(champion)} in MLflow and in the ledger"
    measures = {"champion": champion or "none", "champion_recorded": _champion(recorded) or "none"}
    return Aliases(
        champion=champion,
        recorded=_champion(recorded),
        moved=moved,
        verdict=Verdict(state="fail" if wrong else "pass", reason=wrong or right, measures=measures),
    )


def _read(tracking: Tracking, ledger: Ledger, model: str) -> tuple[str | None, list[Entry]]:
    """The champion and the lines about it. Where they differ, once more: a promotion may be under way elsewhere."""
    while True:
        champion = champion_version(tracking, model)
        _end_promotion(ledger, model, champion)
        lines = ledger.about(model, SERVING)
        if champion in (_champion(serving_now(lines)), champion_version(tracking, model)):
            return champion, lines


def _champion(serving: Serving | None) -> str | None:
    return serving.champion if serving else None


def _end_promotion(ledger: Ledger, model: str, champion: str | None) -> None:
    """Write down a move that was made, by a process that was killed before it could say so.

    One that was killed before the move is none: it is decided anew.
    """
    moves = ledger.about(model, (ALIAS, PROMOTION, ADOPTION, ROLLBACK))
    if not moves or moves[-1].kind != ALIAS or champion != moves[-1].body["version"]:
        return
    begun = moves[-1]
    if champion != begun.body["before"] and not rejected(ledger, model, str(champion), before=begun):
        ledger.write(PROMOTION, model, f"v{champion}", begun.at, begun.body)


def rejected(ledger: Ledger, model: str, version: str, *, before: Entry | None = None) -> Entry | None:
    """The line that ended the version's candidacy, if one did (before that line)."""
    lines = (line for line in ledger.entries(REJECTION, model) if line.body["version"] == version)
    return next((line for line in lines if before is None or line.number < before.number), None)


def _moved(model: str, champion: str | None, recorded: Serving | None, found: Entry) -> str:
    before = _champion(recorded)
    by = f" (line {recorded.line.number}, {recorded.since:%Y-%m-%d %H:%M} UTC)" if recorded else ""
    said = "--by NAME --reason WHY`"
    keeps = f"`ml-platform adopt {model} {champion} {said} keeps it" if champion else None
    restores = f"`ml-platform adopt {model} {before} {said} puts version {before} back" if before else None
    return (
        f"alias champion of {model} was moved past the platform: it is {named(champion)} in MLflow, {named(before)} is "
        f"recorded{by}; found at {found.at:%Y-%m-%d %H:%M} UTC (line {found.number}). "
        f"{' and '.join(filter(None, (keeps, restores)))}; until then what MLflow says serves, and nothing is promoted"
    )


def _strayed(tracking: Tracking, ledger: Ledger, model: str) -> str | None:
    """What is wrong with the challenger: the newest version that was registered, unless it was promoted."""
    found = tracking.challenger(model)
    trainings = ledger.entries(TRAINING, model)
    newest = max((int(line.body["version"]) for line in trainings), default=None)
    promoted = {str(line.body["version"]) for line in ledger.about(model, (PROMOTION, ADOPTION))}
    recorded = None if newest is None or str(newest) in promoted else newest
    stands = found.version if found else None
    if stands == recorded:
        return None
    unknown = stands is not None and all(int(line.body["version"]) != stands for line in trainings)
    why = "which no training of the platform registered" if unknown else "moved past the platform"
    return (
        f"alias challenger of {model} is {named(stands)} in MLflow, {why}; {named(recorded)} is recorded: set it there "
        f"again, or wait for the next training, which sets it; nothing is decided by it"
    )


def named(version: str | int | None) -> str:
    """In words."""
    return "nothing" if version is None else f"version {version}"
