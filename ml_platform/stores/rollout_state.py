"""Where a service's rollout stands: one small file that its workers look at, changed by one writer at a time."""

import fcntl
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ml_platform.spec import HomeDamaged
from ml_platform.stores.home import read_json, write_json

Phase = Literal["shadow", "canary", "won", "rolled_back", "aborted"]
RUNNING: tuple[Phase, ...] = ("shadow", "canary")
_TIMES = ("begun", "since")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One version's way to all requests.

    number: of the rollout, its salt; change: grows by one with every change of the file.
    step: place of the share among the policy's steps; -1 in the shadow. share: of the units that the canary answers.
    begun, since: platform time (UTC) of the rollout's and of this step's beginning.
    resting: paused by an operator: the share stays as it is; a rollback still happens.
    reason: why it stands as it does. evidence: what that rests on, by guard, for pages and the ledger.
    closed: what came of it was written down and carried out, so that another may begin.
    """

    number: int
    change: int
    model: str
    champion: str
    canary: str
    phase: Phase
    step: int
    share: float
    begun: datetime
    since: datetime
    reason: str
    resting: bool = False
    closed: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def salt(self) -> str:
        """What its units are drawn by."""
        return f"{self.model}/{self.number}"

    @property
    def runs(self) -> bool:
        """Whether evidence is still being gathered."""
        return self.phase in RUNNING


Change = Callable[[Rollout | None], Rollout | None]


@dataclass(frozen=True)
class RolloutFile:
    """The rollout of one service; several processes may change it, one at a time."""

    path: Path

    def read(self) -> Rollout | None:
        """The newest rollout, whether it runs or ended; None if there never was one.

        Raises:
            HomeDamaged: the file is not what this class wrote.
        """
        try:
            body = read_json(self.path)
        except FileNotFoundError:
            return None
        try:
            times = {name: datetime.fromisoformat(body[name]).astimezone(UTC) for name in _TIMES}
            return Rollout(**{**body, **times})
        except (KeyError, TypeError, ValueError) as error:
            raise HomeDamaged(
                f"{self.path} does not hold a rollout ({error}); delete it to go on without one, then the next version "
                f"that passes the gate begins a new rollout"
            ) from error

    def change(self, to: Change) -> Rollout | None:
        """Put what ``to`` makes of the present rollout in its place, while nobody else can; returns what stands now.

        ``to`` returns its argument, or None, to leave things as they are. A kill leaves the old file or the new one.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stands = self.read()
            new = to(stands)
            if new is None or new == stands:
                return stands
            new = replace(new, change=stands.change + 1 if stands else 1)
            write_json(self.path, {**asdict(new), **{name: getattr(new, name).isoformat() for name in _TIMES}})
            return new


def history_path(file: RolloutFile, number: int) -> Path:
    """Where the looks at a rollout are kept, a line of JSON each."""
    return file.path.with_name(f"rollout-{number}.jsonl")


def newest_look(file: RolloutFile, number: int) -> dict[str, Any] | None:
    """The last look at a rollout; a last line that is still being written, or was cut off by a kill, is left out."""
    path = history_path(file, number)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for text in reversed(lines):
        try:
            return dict(json.loads(text))
        except ValueError:
            continue
    return None
