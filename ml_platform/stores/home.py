"""The state folder: marked as ours, used by one writer at a time, safe to delete."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged, HomeLocked

FORMAT = 1  # of the folder's layout; a later platform that cannot read an older one says so
_MARK = "ml_platform.json"
_LOCK = "lock"


@dataclass(frozen=True)
class Home:
    """Everything the platform writes stands under ``path``."""

    path: Path

    def prepare(self, project: str) -> None:
        """Make the folder, or check that it is one of ours, whole, and of this project.

        Raises:
            HomeDamaged: it holds something else, is half-written, or belongs to another project or format.
        """
        mark = self.path / _MARK
        if mark.exists():
            self._check(project)
            return
        if self.path.exists() and not self.path.is_dir():
            raise HomeDamaged(f"{self.path} is a file; set ML_PLATFORM_HOME to a folder that the platform may own")
        held = [entry.name for entry in self.path.iterdir()] if self.path.exists() else []
        # A plain `feast apply` or `dagster dev` may have come first.
        strangers = [name for name in held if not name.startswith((_LOCK, "feast_", "dagster", "reports", "log"))]
        if strangers:
            raise HomeDamaged(
                f"{self.path} is not a state folder of this platform: it holds {', '.join(sorted(strangers)[:5])} but no "
                f"{_MARK}; set ML_PLATFORM_HOME to an empty or new folder, or delete this one if nothing in it is needed"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(mark, {"format": FORMAT, "project": project})

    def _check(self, project: str) -> None:
        found = read_json(self.path / _MARK)
        if found.get("format") != FORMAT:
            raise HomeDamaged(
                f"{self.path} has layout {found.get('format')}, this platform reads {FORMAT}; delete the folder and run again"
            )
        if found.get("project") != project:
            raise HomeDamaged(
                f"{self.path} holds the state of project {found.get('project')!r}, not of {project!r}; set "
                f"ML_PLATFORM_HOME to a folder of its own for each project"
            )

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Be the only writer; the lock ends with the process, however it ends.

        Raises:
            HomeLocked: another process holds it; names its id and purpose.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise HomeLocked(
                    f"{self.path} is in use by {file.read().strip() or 'another process'}; wait for it, stop it, or set "
                    f"ML_PLATFORM_HOME to another folder"
                ) from error
            file.truncate(0)
            file.write(f"`ml-platform {purpose}` (process {os.getpid()})")
            file.flush()
            yield


def write_json(path: Path, body: Any) -> None:
    """Write atomically: after a kill the old content stands, or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote.

    Raises:
        HomeDamaged: the file is not whole.
    """
    try:
        body = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise HomeDamaged(f"{path} is damaged ({error}); delete the state folder {path.parent} and run again") from error
    if not isinstance(body, dict):
        raise HomeDamaged(f"{path} is damaged (no object); delete the state folder {path.parent} and run again")
    return body
