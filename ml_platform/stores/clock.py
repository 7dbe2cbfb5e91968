"""The platform's time: the wall clock, or a replay's clock kept in the state folder."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.spec import HomeDamaged
from ml_platform.stores.home import read_json, write_json


@dataclass(frozen=True)
class Clock:
    """Live unless ``path`` holds a replayed moment. Stages are given its value; they never look at a clock."""

    path: Path

    def replayed(self) -> datetime | None:
        """The replay's moment in UTC, or None where time is live.

        Raises:
            HomeDamaged: the file is not what this class wrote.
        """
        if not self.path.exists():
            return None
        body = read_json(self.path)
        try:
            moment = datetime.fromisoformat(body["now"])
            if moment.tzinfo is None:
                raise ValueError(f"{moment} has no timezone")
        except (ValueError, KeyError, TypeError) as error:
            raise HomeDamaged(
                f"{self.path} does not hold a replay's clock ({error}); delete the state folder {self.path.parent} "
                f"and run again"
            ) from error
        return moment.astimezone(UTC)

    def now(self) -> datetime:
        """The platform's present, UTC."""
        return self.replayed() or datetime.now(UTC)

    @staticmethod
    def wall() -> datetime:
        """The wall's time, UTC, also where time is replayed: answers are stamped with it when they are given."""
        return datetime.now(UTC)

    def set(self, moment: datetime) -> None:
        """Move the replay's clock; atomic, so that a kill leaves the old value or the new one.

        Raises:
            ValueError: the moment has no timezone; taking it for the machine's would move the replay by hours.
        """
        if moment.tzinfo is None:
            raise ValueError(f"the clock needs a moment with its timezone, not {moment}")
        write_json(self.path, {"now": moment.astimezone(UTC).isoformat()})
