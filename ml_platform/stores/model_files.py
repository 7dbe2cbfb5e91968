"""With which bytes a version was registered: SHA-256 of each of its files, kept in the ledger beside its training.

The digests inside ``schema.json`` find damage. Whoever can write to the artifact store can write those, too; the ledger
lies elsewhere, and its lines follow from one another.
"""

import logging
import shutil
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from ml_platform.spec import ModelRefused
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import FILES, TRAINING

logger = logging.getLogger(__name__)
_DESCRIBED = "MLmodel"  # MLflow's own description of the folder; nothing here reads it


def digests(folder: Path) -> dict[str, str]:
    """Path in the folder -> SHA-256, hexadecimal, of every file but MLflow's own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _DESCRIBED)
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def said_of(ledger: Ledger, model: str, version: str) -> dict[str, str] | None:
    """What the ledger says of a version's files; None if it says nothing (registered before it did, or past us)."""
    found: dict[str, str] = {}
    for said in _lines(ledger, model, version):
        found |= said
    return found or None


def _lines(ledger: Ledger, model: str, version: str) -> list[Mapping[str, str]]:
    lines = [line for line in ledger.about(model, (TRAINING, FILES)) if str(line.body["version"]) == version]
    return [line.body["files"] for line in lines if isinstance(line.body.get("files"), Mapping)]


def note_change(
    ledger: Ledger,
    model: str,
    version: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    reason: str,
    at: datetime,
) -> bool:
    """Write down that the platform itself is about to change files of a version; it may be repeated.

    before, after: digests of the files that change. Returns False, and writes nothing, if the ledger knows nothing of
    the version or if one of the files is not what was registered: that one stays refused.
    """
    known = _lines(ledger, model, version)
    said = {path: {line[path] for line in known if path in line} for path in before}
    if any(said[path] and digest not in said[path] for path, digest in before.items()):
        return False
    files = {path: digest for path, digest in after.items() if said[path]}
    if files:
        key = f"v{version} {sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]}"
        ledger.write(FILES, model, key, at, {"version": version, "files": files, "reason": reason})
    return bool(files)


def taken(folder: Path, said: Mapping[str, str], target: Path, name: str) -> Path:
    """A copy of the named files alone, each with the digest that is said; what is looked at is what is loaded.

    name: of the version, for the sentence.

    Raises:
        ModelRefused: a file is missing or another one.
    """
    wrong = []
    for path, digest in said.items():
        if not (folder / path).is_file() or ".." in Path(path).parts or Path(path).is_absolute():
            wrong.append(f"{path} is missing")
            continue
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)
        if sha256((target / path).read_bytes()).hexdigest() != digest:
            wrong.append(f"{path} has another SHA-256")
    if wrong:
        raise ModelRefused(
            f"the files of {name} in {folder} are not those that were registered: {'; '.join(wrong)}. Restore them "
            f"from a copy, find out who could write there, or train the model again"
        )
    return target


def as_registered(folder: Path, ledger: Ledger, model: str, version: str, target: Path) -> Path:
    """The version's files if they are those of the ledger: a copy. Those of which it says nothing: as they are.

    Raises:
        ModelRefused: a file is missing or another one.
    """
    said = said_of(ledger, model, version)
    if said is None:
        logger.warning(
            "the ledger does not say with which files version %s of %s was registered (it does for versions that the "
            "platform registers from now on); it is loaded as it was found",
            version,
            model,
        )
        return folder
    return taken(folder, said, target, f"version {version} of {model}")
