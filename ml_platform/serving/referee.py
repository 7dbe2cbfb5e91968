"""Watches a service's rollout: reads the log behind the workers, asks the other version unseen, and judges.

It runs beside the workers, in a process of its own (or is called hour by hour by a replay), so that it costs the hot
path nothing and needs no orchestrator: a canary that is worse is taken off as soon as the evidence says so. Everything
it knows it can read again from the log, so a kill costs time and nothing else.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_platform.serving.case import Case
from ml_platform.serving.rollout import Look, against, judged, waits_for
from ml_platform.serving.traffic import CANARY, CHAMPION
from ml_platform.spec import ModelRefused, RolloutPolicy
from ml_platform.spec.calendar import day_of
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import ABORT, ROLLBACK, ROLLOUT
from ml_platform.stores.log_tail import LogTail, Record
from ml_platform.stores.rollout_state import Rollout, RolloutFile, history_path

# What the other version says of answers: as many records, with ``probability`` None where it failed.
Shadow = Callable[[Rollout, list[Record]], list[Record]]
_STREAMS = ("predictions", "failures", "shadow", "labels")
_A_LOOK = 2000  # answers scored unseen at one look; more are dropped and counted, for evidence must not lag behind


@dataclass
class _Reading:
    """A rollout's case and how far the log was read for it.

    later: what was read and is of later than the look, as where time is replayed and an hour was cut off by a kill.
    """

    number: int
    tail: LogTail
    case: Case
    later: dict[str, list[Record]] = field(default_factory=dict)
    units: int = 0


@dataclass
class Referee:
    """One service's; ``shadow`` scores and logs what the other version would have answered.

    history: the folder of the pages' data: one file a rollout, a line a look.
    """

    service: str
    policy: RolloutPolicy
    file: RolloutFile
    ledger: Ledger
    log: Path
    timezone: str
    shadow: Shadow
    _reading: _Reading | None = field(default=None, init=False)

    def look(self, now: datetime) -> Rollout | None:
        """Read what is new, judge, and carry the judgement out; the rollout as it stands then, None if there is none.

        now: the platform's time.
        """
        stands = self.file.read()
        if stands is None or not stands.runs:
            self._reading = None
            return stands
        if self._reading is None or self._reading.number != stands.number:
            first = day_of(stands.begun, self.timezone)
            self._reading = _Reading(stands.number, LogTail(self.log, self.service, first), Case(self.policy))
            self._tell(stands, now)
        reading = self._reading
        try:
            self._read(reading, stands, now)
        except ModelRefused as error:
            return self._refuse(stands, now, error)
        look = reading.case.look(now, stands.share)
        after = self.file.change(lambda held: self._judge(held, stands, look))
        if after is not None and after.number == stands.number:
            if (after.phase, after.step) != (stands.phase, stands.step):
                self._tell(after, now)
            self._note(reading, after, look)
        return after

    def _refuse(self, stands: Rollout, now: datetime, error: ModelRefused) -> Rollout | None:
        """Of a version that cannot be loaded nothing can be found out, and it must never answer."""
        reason = f"it cannot be served: {error}"

        def end(held: Rollout | None) -> Rollout | None:
            if held is None or held.number != stands.number or not held.runs:
                return held
            return replace(held, phase="rolled_back", share=0.0, since=now, reason=reason)

        after = self.file.change(end)
        if after is not None and after.number == stands.number:
            self._tell(after, now)
        return after

    def _judge(self, held: Rollout | None, read: Rollout, look: Look) -> Rollout | None:
        """An operator may have ended it while we read."""
        return judged(self.policy, held, look) if held is not None and held.number == read.number else held

    def _read(self, reading: _Reading, rollout: Rollout, now: datetime) -> None:
        """Answers before what was said of them, truths last: a truth may be read in the same look as its answer."""
        mine: dict[str, str] = {CHAMPION: rollout.champion, CANARY: rollout.canary}
        found = {stream: _until(now, reading, stream) for stream in _STREAMS}
        answers = [one for one in found["predictions"] if _belongs(one, mine, rollout)]
        known = {record["id"] for record in found["shadow"]}
        reading.case.answered(answers)
        reading.case.failed(one for one in found["failures"] if _belongs(one, mine, rollout))
        reading.case.shadow(one for one in found["shadow"] if _belongs(one, mine, rollout))
        unseen = [one for one in answers if one["id"] not in known]
        if self.policy.paired or rollout.phase == "shadow":
            reading.case.dropped += max(0, len(unseen) - _A_LOOK)
            reading.case.shadow(self.shadow(rollout, unseen[:_A_LOOK]))
        reading.case.learned(found["labels"])

    def _tell(self, rollout: Rollout, at: datetime) -> None:
        """Write down what changed; a second time changes nothing."""
        key = f"{rollout.salt}: {rollout.phase} {rollout.step}"
        if rollout.phase == "canary":
            body: dict[str, Any] = {"champion": rollout.champion, "canary": rollout.canary}
            body |= {"share": rollout.share, "reason": rollout.reason}
            self.ledger.write(ROLLOUT, rollout.model, key, at, body)
        if rollout.phase == "rolled_back":
            body = {"version": rollout.champion, "before": rollout.canary, "reason": rollout.reason}
            self.ledger.write(ROLLBACK, rollout.model, key, at, body)
        if rollout.phase == "aborted":
            self.ledger.write(ABORT, rollout.model, key, at, {"canary": rollout.canary, "reason": rollout.reason})

    def _note(self, reading: _Reading, rollout: Rollout, look: Look) -> None:
        """A line for the pages: when something happened, or when a hundredth more is known."""
        units = look.shadowed + reading.case.truths + look.answered
        moved = rollout.since == look.at
        if not moved and units < reading.units * 1.01 + 1:
            return
        reading.units = units
        path = history_path(self.file, rollout.number)
        line = line_of(self.policy, rollout, look, reading.case)
        with path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")


def line_of(policy: RolloutPolicy, rollout: Rollout, look: Look, case: Case) -> dict[str, Any]:
    """A look as plain values."""
    guards = {
        name: {
            "against": each.against,
            "in_favour": each.in_favour,
            "canary": each.canary,
            "champion": each.champion,
            "sentence": each.sentence,
        }
        for name, each in look.standings.items()
    }
    return {
        "at": look.at.isoformat(),
        "phase": rollout.phase,
        "share": rollout.share,
        "step": rollout.step,
        "against": against(policy, look),
        "guards": guards,
        "shadowed": look.shadowed,
        "dropped": case.dropped,
        "answered": look.answered,
        "truths": case.truths,
        "waits_for": waits_for(policy, rollout, look),
        "reason": rollout.reason,
    }


def read_history(path: Path) -> list[dict[str, Any]]:
    """The looks of a rollout, in order; a last line that was cut off by a kill is left out, as are repeated looks."""
    if not path.exists():
        return []
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for text in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["at"], line["phase"]] = line
    return sorted(found.values(), key=lambda line: line["at"])


def _belongs(record: Record, versions: Mapping[str, str], rollout: Rollout) -> bool:
    """Whether a record is of this rollout: of either version in its own part, and of its time."""
    mine = versions.get(record["variant"]) == record["version"]
    return mine and datetime.fromisoformat(record["asked_at"]) >= rollout.begun


def _until(now: datetime, reading: _Reading, stream: str) -> list[Record]:
    """What is new and of before the look (of truths: known by then), in the order of its time."""
    name = "known_at" if stream == "labels" else "asked_at"
    records = sorted(
        [*reading.later.pop(stream, []), *reading.tail.new(stream)], key=lambda one: (one[name], one["id"])
    )
    times = [datetime.fromisoformat(record[name]) for record in records]
    end = bisect_right(times, now) if stream == "labels" else bisect_left(times, now)
    reading.later[stream] = records[end:]
    return records[:end]
