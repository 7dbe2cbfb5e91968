"""A model's lines in words, and what served at a moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ml_platform.stores.ledger import Entry
from ml_platform.stores.ledger_kinds import (
    ABORT,
    ADOPTION,
    ALIAS,
    APPROVAL,
    BEGIN,
    FILES,
    FOUND,
    GATE,
    HOLD,
    PAUSE,
    PROMOTION,
    REDACTION,
    REFUSAL,
    REJECTION,
    REQUEST,
    RESUME,
    REVIEW,
    REVIEWED,
    ROLLBACK,
    ROLLOUT,
    TRAINING,
)
from ml_platform.stores.ledger_serving import Serving, periods, serving_at

_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    REQUEST: lambda b: f"{b['by']} asked for a retraining: {b['reason']}",
    REVIEW: lambda b: f"{b['drift']} drifted, which no policy answers, and waits for a word: {b['reason']}",
    REVIEWED: lambda b: (
        f"{b['by']} said that the drift of line {b['review']} is {'a' if b['answer'] == 'retrain' else 'no'} reason to "
        f"retrain: {b['reason']}"
    ),
    TRAINING: lambda b: f"version {b['version']} was registered{_for(b)}",
    FILES: lambda b: f"files of version {b['version']} were changed: {b['reason']}",
    GATE: lambda b: f"version {b['version']} was judged, {b['state']}: {b['reason']}",
    HOLD: lambda b: f"version {b['version']} was held: {b['reason']}",
    REFUSAL: lambda b: f"version {b['version']} was refused: {b['reason']}",
    APPROVAL: lambda b: f"version {b['version']} was approved by {b['by']}{_against(b)}: {b['reason']}",
    REJECTION: lambda b: f"version {b['version']} was rejected by {b['by']}: {b['reason']}",
    ALIAS: lambda b: f"alias {b['alias']} is moved from {_version(b['before'])} to {_version(b['version'])}",
    PROMOTION: lambda b: f"version {b['version']} is champion instead of {_version(b['before'])}: {b['reason']}",
    FOUND: lambda b: (
        f"alias {b['alias']} was found at {_version(b['version'])} instead of {_version(b['before'])}: moved past the "
        f"platform"
    ),
    ADOPTION: lambda b: (
        f"{b['by']} said that version {b['version']} is champion, not {_version(b['before'])}: {b['reason']}"
    ),
    BEGIN: lambda b: f"version {b['canary']} begins its rollout over version {b['champion']}: {b['reason']}",
    PAUSE: lambda b: f"the rollout of version {b['canary']} was paused by {b['by']}: {b['reason']}",
    RESUME: lambda b: f"the rollout of version {b['canary']} goes on, said {b['by']}: {b['reason']}",
    ROLLOUT: lambda b: f"canary version {b['canary']} takes {float(b['share']):.0%}: {b['reason']}",
    ROLLBACK: lambda b: (
        f"version {b['version']} serves again instead of {_version(b['before'])}{_by(b)}: {b['reason']}"
    ),
    ABORT: lambda b: f"the rollout of version {b['canary']} ended without a verdict{_by(b)}: {b['reason']}",
    REDACTION: lambda b: (
        f"a {b['entity']} was forgotten, which {' and '.join(b['fields'])} of line {b['line']} named: taken out of it"
    ),
}


def sentence(line: Entry) -> str:
    """What happened."""
    return _WORDS[line.kind](line.body)


def table(lines: Sequence[Entry]) -> Iterator[str]:
    """One text line each: number, moment (UTC), kind, what happened."""
    width = max((len(line.kind) for line in lines), default=0)
    for line in lines:
        yield f"{line.number:>6}  {_moment(line.at)}  {line.kind:<{width}}  {sentence(line)}"


def as_json(lines: Sequence[Entry]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {
            "number": line.number,
            "at": line.at.isoformat(),
            "kind": line.kind,
            "said": sentence(line),
            "redacted": list(line.redacted),
            **dict(line.body),
        }
        for line in lines
    ]


def moment_of(text: str, now: datetime) -> datetime:
    """A moment as people write it (ISO), with its timezone.

    Raises:
        ValueError: it is none, lacks its timezone, or has not come yet.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no moment like 2013-04-15T12:30+00:00") from error
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no timezone; for UTC write {moment.isoformat()}+00:00")
    if moment > now:
        raise ValueError(f"{text!r} has not come yet: it is {_moment(now)} for the platform")
    return moment.astimezone(UTC)


def at(model: str, lines: Sequence[Entry], moment: datetime) -> tuple[str, dict[str, Any]]:
    """What served at a moment: in words, and as plain values."""
    serving = serving_at(lines, moment)
    plain: dict[str, Any] = {"model": model, "at": moment.isoformat()}
    if serving is None:
        first = next(iter(periods(lines)), None)
        until = f"; the first that did, did since {_moment(first.since)} (line {first.line.number})" if first else ""
        return f"nothing of {model} served at {_moment(moment)}{until}", {**plain, "champion": None, "shares": {}}
    plain |= {"champion": serving.champion, "canary": serving.canary, "shares": serving.shares}
    plain |= {"since": serving.since.isoformat(), "line": serving.line.number}
    return f"at {_moment(moment)} {_shares(model, serving)}\n{next(table([serving.line]))}", plain


def _shares(model: str, serving: Serving) -> str:
    parts = [f"version {version} answered {share:.0%}" for version, share in serving.shares.items()]
    by = f"since {_moment(serving.since)}, by line {serving.line.number}"
    return f"{' and '.join(parts) or 'nothing'} of {model}, {by}"


def _by(body: Mapping[str, Any]) -> str:
    return f", said {body['by']}" if "by" in body else ""


def _for(body: Mapping[str, Any]) -> str:
    return f", which answers retraining {body['decision']}" if body["decision"] else ""


def _against(body: Mapping[str, Any]) -> str:
    return " against the gate" if body["override"] else ""


def _version(version: str | None) -> str:
    return "none" if version is None else f"version {version}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
