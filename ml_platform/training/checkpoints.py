"""What a training that was cut off goes on from: plain arrays in NumPy's own format, never a pickle."""

import fcntl
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.spec import StateError

CHECKPOINT_FILE = "checkpoint.npz"
_POSITION = "position"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training stands. owner: digest of all that decides its result. position: plain values (JSON)."""

    owner: str
    position: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """An .npz archive."""
        text = json.dumps({"owner": self.owner, **self.position}).encode()
        opened = io.BytesIO()
        np.savez(opened, **{_POSITION: np.frombuffer(text, np.uint8)}, **self.arrays)  # type: ignore[arg-type]
        return opened.getvalue()

    @classmethod
    def from_bytes(cls, archive: bytes) -> "Checkpoint":
        """Back from ``to_bytes``.

        Raises:
            ValueError, KeyError, zipfile.BadZipFile: it is another thing, damaged, or holds a pickle.
        """
        with np.load(io.BytesIO(archive), allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
        position = json.loads(arrays.pop(_POSITION).tobytes())
        return cls(owner=position.pop("owner"), position=position, arrays=arrays)


def write_whole(path: Path, content: bytes) -> None:
    """Whoever opens the file, now or after a kill, finds all of it or what stood there before."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_checkpoint(folder: Path, owner: str) -> Checkpoint | None:
    """The folder's checkpoint; None if there is none, or one of other rows, parameters or workers, or a damaged one."""
    try:
        found = Checkpoint.from_bytes((folder / CHECKPOINT_FILE).read_bytes())
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if found.owner == owner else None


@contextmanager
def kept_in(folder: Path, name: str) -> Iterator[Path]:
    """The folder of the model's checkpoints, for one training at a time; removed when that succeeds.

    Raises:
        StateError: another process trains the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"model {name} is being trained by another process, which keeps its checkpoints in {folder / name}; "
                f"wait for it or stop it"
            ) from error
        (folder / name).mkdir(exist_ok=True)
        for left in (folder / name).iterdir():  # by a training that was killed: copies of its rows
            if left.is_dir():
                shutil.rmtree(left)
        yield folder / name
        shutil.rmtree(folder / name)
