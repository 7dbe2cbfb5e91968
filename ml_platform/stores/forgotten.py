"""What was forgotten, as salted hashes: no value stands here, and without the salt none can be guessed.

``<folder>/salt`` is made once for a state folder and readable by its owner alone. ``<folder>/record.json`` names the
hashes by entity; whoever takes rows in looks there. ``<folder>/begun-<hash>.json`` is a forgetting that is going on or
was cut off.
"""

import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged
from ml_platform.stores.home import BEGUN, read_json, write_json

_HEX_DIGITS = 32  # 128 bits: two values of a house never share a hash
_SALT_BYTES = 32


@dataclass(frozen=True)
class Forgotten:
    """The record of one state folder; what it holds is read once, so open it anew after a forgetting."""

    folder: Path

    def digest(self, entity: str, text: str) -> str:
        """The salted hash of an entity's value as it is written; the salt is made if there is none yet.

        Raises:
            HomeDamaged: there is a record, but the salt that belongs to it is gone.
        """
        return self._hashed(self._salt(), entity, text)

    def known_digest(self, entity: str, text: str) -> str | None:
        """The same; None where nothing was ever forgotten, so that there is no salt. Makes none."""
        there = self._salt_path.exists() or self._record_path.exists()
        return self.digest(entity, text) if there else None

    @cached_property
    def _digests(self) -> Mapping[str, frozenset[str]]:
        path = self._record_path
        if not path.exists():
            return {}
        try:
            return {str(name): frozenset(map(str, held)) for name, held in read_json(path)["entities"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error

    @property
    def entities(self) -> frozenset[str]:
        """The names of entities of which some value was forgotten."""
        return frozenset(name for name, held in self._digests.items() if held)

    def holds(self, entity: str, text: str) -> bool:
        """Whether this value was forgotten; costs a look-up where none of the entity was, else a hash."""
        held = self._digests.get(entity, frozenset())
        return bool(held) and self._hashed(self._known_salt, entity, text) in held

    def among(self, entity: str, texts: Iterable[str | None]) -> list[str]:
        """Those of the values that were forgotten."""
        return [text for text in texts if text is not None and self.holds(entity, text)]

    @cached_property
    def answers_compared_from(self) -> datetime | None:
        """The wall's time of the newest forgetting: what was answered before may have counted what is gone since."""
        path = self._record_path
        if not path.exists():
            return None
        try:
            return datetime.fromisoformat(read_json(path)["newest"])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def remember(self, entity: str, digest: str, at: datetime) -> None:
        """Add a hash; again, it only moves ``answers_compared_from``. at: the wall's time."""
        held = {name: sorted(digests) for name, digests in Forgotten(self.folder)._digests.items()}
        held[entity] = sorted({*held.get(entity, ()), digest})
        write_json(self._record_path, {"newest": at.isoformat(), "entities": held})

    # A forgetting that has begun

    def begun(self, digest: str) -> dict[str, Any] | None:
        """What was written down when it began, if it has not ended."""
        path = self._begun_path(digest)
        return read_json(path) if path.exists() else None

    def begin(self, digest: str, body: Mapping[str, Any]) -> None:
        """Write down what is to be done; from then on nobody else works with the state folder until it has ended."""
        write_json(self._begun_path(digest), dict(body))

    def end(self, digest: str) -> None:
        """It is done."""
        self._begun_path(digest).unlink(missing_ok=True)

    def _begun_path(self, digest: str) -> Path:
        return self.folder / f"{BEGUN}{digest}.json"

    @property
    def _salt_path(self) -> Path:
        return self.folder / "salt"

    @property
    def _record_path(self) -> Path:
        return self.folder / "record.json"

    def _salt(self) -> bytes:
        return self._known_salt if self._salt_path.exists() or self._record_path.exists() else self._new_salt()

    @cached_property
    def _known_salt(self) -> bytes:
        try:
            salt = bytes.fromhex(self._salt_path.read_text())
        except (OSError, ValueError) as error:
            raise _damaged(self._salt_path, error) from error
        if len(salt) != _SALT_BYTES:
            raise _damaged(self._salt_path, f"{len(salt)} bytes")
        return salt

    def _new_salt(self) -> bytes:
        """Made beside and linked, so that there is none or a whole one, and of two makers the quicker one's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"salt.{os.getpid()}.draft"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(_SALT_BYTES).hex().encode())
            os.fsync(descriptor)
            os.link(draft, self._salt_path)
        except FileExistsError:
            pass  # another process was quicker
        finally:
            os.close(descriptor)
            draft.unlink()
        return self._known_salt

    @staticmethod
    def _hashed(salt: bytes, entity: str, text: str) -> str:
        # The length keeps ("a", "b=c") apart from ("a=b", "c").
        return hmac.digest(salt, f"{len(entity)}:{entity}={text}".encode(), "sha256").hex()[:_HEX_DIGITS]


def forgotten_in(home: Path) -> Forgotten:
    """The record of a state folder."""
    return Forgotten(home / "forgotten")


def token(digest: str) -> str:
    """What stands in a text where the value stood."""
    return f"forgotten-{digest[:12]}"


def _damaged(path: Path, error: object) -> HomeDamaged:
    return HomeDamaged(
        f"{path} is damaged ({error}); without it nobody knows what was forgotten, and it would come back: restore it "
        f"from a backup, or delete the state folder and run again"
    )
