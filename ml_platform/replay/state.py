"""Where a replay stands: written after each completed hour, so that it goes on there after any end."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ml_platform.resources.profiles import Profile
from ml_platform.spec import HomeDamaged
from ml_platform.stores.home import read_json, write_json
from ml_platform.stores.ledger import Ledger


def state_path(home: Path) -> Path:
    """Where a state folder keeps it."""
    return home / "replay.json"


def what_next(home: Path) -> str:
    """What the same command does when it is given again, in words."""
    state = ReplayState.load(state_path(home))
    if state is None or state.completed is None:
        return "begins the bootstrap again"
    return f"goes on at {state.completed:%Y-%m-%d %H:%M} UTC of the replayed time; nothing is lost"


def bootstrapped_paths(profile: Profile) -> list[Path]:
    """What a bootstrap makes in its own folder; nothing where others hold the state (production)."""
    if profile.name != "embedded":
        return []
    home, stores = profile.home, (profile.online_path, profile.live_path)
    databases = [path.with_name(f"{path.name}{end}") for path in stores for end in ("", "-wal", "-shm")]
    ledger = (profile.ledger_path, Ledger(profile.ledger_path).head_path)
    files = [*databases, home / "feast_registry.db", *ledger, profile.clock_path]
    return [profile.dagster_home, home / "lake", home / "mlflow", profile.reports_path, *files]


@dataclass(frozen=True, kw_only=True)
class ReplayState:
    """completed: the last hour whose work is done; ``None`` before the bootstrap is. cursor: Dagster's, after its runs.

    work_seconds, orchestration_seconds: summed over all sittings.
    """

    started: datetime
    completed: datetime | None = None
    cursor: str | None = None
    work_seconds: float = 0.0
    orchestration_seconds: float = 0.0
    seconds: float = 0.0

    @classmethod
    def load(cls, path: Path) -> "ReplayState | None":
        """The state on disk, if a replay began here.

        Raises:
            HomeDamaged: the file is not what ``save`` wrote.
        """
        if not path.exists():
            return None
        body = read_json(path)
        try:
            completed = body["completed"]
            return cls(
                started=datetime.fromisoformat(body["started"]),
                completed=datetime.fromisoformat(completed) if completed else None,
                cursor=body["cursor"],
                work_seconds=float(body["work_seconds"]),
                orchestration_seconds=float(body["orchestration_seconds"]),
                seconds=float(body["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HomeDamaged(
                f"{path} does not hold a replay's state ({error!r}); delete the folder {path.parent} and run again"
            ) from error

    def save(self, path: Path) -> None:
        """Write it down, atomically."""
        body = {
            "started": self.started.isoformat(),
            "completed": self.completed.isoformat() if self.completed else None,
            "cursor": self.cursor,
            "work_seconds": self.work_seconds,
            "orchestration_seconds": self.orchestration_seconds,
            "seconds": self.seconds,
        }
        write_json(path, body)
