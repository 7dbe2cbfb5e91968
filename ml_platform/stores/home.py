"""The state folder: marked as ours, used by one writer at a time, safe to delete."""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ml_platform.spec import HomeDamaged, HomeLocked, StateError

FORMAT = 1  # of the folder's layout; a later platform that cannot read an older one says so
BEGUN = "begun-"  # how a file in ``forgotten`` begins that says of a forgetting that has not ended
_MARK = "ml_platform.json"
_LOCK = "lock"
_USERS = "users"
_DRAFT = ".draft"
# A plain `feast apply`, `ml-platform ui` or `ml-platform serve` may have come before the first run.
_OURS = (
    _LOCK,
    _USERS,
    "feast_registry.db",
    "feast_online.db",
    "feast_online.db-wal",
    "feast_online.db-shm",
    "live.db",
    "live.db-wal",
    "live.db-shm",
    "dagster",
    "log",
    "lake",
    "ledger.db",
    "ledger.head",
    "mlflow",
    "reports",
    "bentoml",
    "serving",
    "keys",
)


@dataclass(frozen=True)
class Home:
    """Everything the platform writes stands under ``path``."""

    path: Path

    def prepare(self, project: str) -> None:
        """Make the folder, or check that it is one of ours, whole, and of this project.

        Raises:
            HomeDamaged: it holds something else, is half-written, or belongs to another project or format.
            StateError: a forgetting was cut off and must be ended first.
        """
        if self.is_made:
            self.check(project)
            self.refuse_half_forgotten()
            return
        if self.path.exists() and not self.path.is_dir():
            raise HomeDamaged(f"{self.path} is a file; set ML_PLATFORM_HOME to a folder that the platform may own")
        self._make()
        strangers = [entry.name for entry in self.path.iterdir() if not _is_ours(entry.name)]
        if strangers:
            raise HomeDamaged(
                f"{self.path} is not a state folder of this platform: it holds {', '.join(sorted(strangers)[:5])} but "
                f"no {_MARK}; set ML_PLATFORM_HOME to an empty or new folder, or delete this one if nothing in it is "
                f"needed"
            )
        write_json(self.path / _MARK, {"format": FORMAT, "project": project})

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot make the state folder {self.path} ({error}); set ML_PLATFORM_HOME to a folder that can be made"
            ) from error

    @property
    def is_made(self) -> bool:
        """Whether it was prepared before."""
        return (self.path / _MARK).exists()

    def refuse_half_forgotten(self) -> None:
        """Let nobody compute, serve or learn from what is half removed.

        Raises:
            StateError: a forgetting was cut off; says how it is ended.
        """
        for begun in sorted((self.path / "forgotten").glob(f"{BEGUN}*.json")):
            entity = read_json(begun).get("entity")
            raise StateError(
                f"forgetting a {entity} in {self.path} was cut off, and part of it is removed; give "
                f"`ml-platform forget {entity}=<the same value> --yes` again, which ends it"
            )

    def check(self, project: str) -> None:
        """Whether it is whole and of this project.

        Raises:
            HomeDamaged: it is not.
        """
        found = read_json(self.path / _MARK)
        if found.get("format") != FORMAT:
            raise HomeDamaged(
                f"{self.path} has layout {found.get('format')}, this platform reads {FORMAT}; delete the folder and "
                f"run again"
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
        self._make()
        with (self.path / _LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise HomeLocked(
                    f"{self.path} is in use by {file.read().strip() or 'another process'}; wait for it, stop it, or "
                    f"set ML_PLATFORM_HOME to another folder"
                ) from error
            file.truncate(0)
            file.write(f"`ml-platform {purpose}` (process {os.getpid()})")
            file.flush()
            try:
                yield
            finally:
                # Closing is not enough: a child that was forked holds the same lock open.
                fcntl.flock(file, fcntl.LOCK_UN)

    @contextmanager
    def used(self, purpose: str, *, beyond_exec: bool = False) -> Iterator[None]:
        """Be one of those who work with what it holds, beside others; none of them ever meets ``alone``.

        beyond_exec: the program that replaces this process goes on using it.

        Raises:
            HomeLocked: a process is alone in it; names it.
        """
        users = self.path / _USERS
        users.mkdir(parents=True, exist_ok=True)
        with (users / _LOCK).open("a+") as file:
            _share(file, self.path)
            os.set_inheritable(file.fileno(), beyond_exec)
            for ended in (note for note in _notes(users) if not lives(int(note.name))):
                ended.unlink(missing_ok=True)
            note = users / str(os.getpid())
            note.write_text(f"`ml-platform {purpose}` (process {os.getpid()})")
            try:
                yield
            finally:
                note.unlink(missing_ok=True)
                fcntl.flock(file, fcntl.LOCK_UN)

    @contextmanager
    def alone(self, purpose: str) -> Iterator[None]:
        """Be the only writer, and the only one who uses it at all.

        Raises:
            HomeLocked: others do; names them.
        """
        users = self.path / _USERS
        with self.locked(purpose):
            users.mkdir(exist_ok=True)
            with (users / _LOCK).open("a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    named = " and ".join(_living(users)) or "another process"
                    raise HomeLocked(f"{self.path} is in use by {named}; end it first, and try again") from error
                try:
                    yield
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)


def _share(file: IO[str], home: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = (home / _LOCK).read_text().strip() or "another process"
        raise HomeLocked(f"{home} is in use by {holder}; wait for it, and try again") from error


def _living(users: Path) -> list[str]:
    """What those say who use the folder; who ended without a word is left out."""
    return [note.read_text() for note in _notes(users) if lives(int(note.name))]


def _notes(users: Path) -> list[Path]:
    return sorted((note for note in users.iterdir() if note.name.isdecimal()), key=lambda note: int(note.name))


def lives(process: int) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _is_ours(name: str) -> bool:
    """What may stand in a folder whose making was interrupted."""
    return name in _OURS or (name.startswith(f"{_MARK}.") and name.endswith(_DRAFT))


def write_json(path: Path, body: Any) -> None:
    """Write atomically: after a kill the old content stands, or the new one; of two writers one wins whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(body)
    # A name of its own for each writer: two that share a draft would write into the file that one has put in place.
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{_DRAFT}")
    try:
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote.

    Raises:
        HomeDamaged: the file is not whole.
    """
    try:
        body = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text at all
        raise HomeDamaged(
            f"{path} is damaged ({error}); delete the state folder {path.parent} and run again"
        ) from error
    if not isinstance(body, dict):
        raise HomeDamaged(f"{path} is damaged (no object); delete the state folder {path.parent} and run again")
    return body
