"""Keys by which callers of a service are known: a file of salted hashes, one for each key.

A key is ``mlp_<id>_<secret>``: the id finds its line, the secret has 256 random bits. No dictionary holds such a
secret, so nothing is gained by a hash that is slow on purpose (scrypt, Argon2), which would cost each request
milliseconds; BLAKE2b keyed by a salt of the line's own is enough and takes about a microsecond.
"""

import fcntl
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged, UnknownName, WordRefused
from ml_platform.stores.home import read_json, write_json

FORMAT = 1
ROLES = ("predict", "read", "operate")
_PREFIX = b"mlp"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST = 256  # bytes of what is looked at; a key has 60
_SIZE = 32  # bytes of a hash


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key as it is kept: never the secret, only its hash. added: the platform's time."""

    name: str
    roles: tuple[str, ...]
    added: str
    id: str
    salt: str
    digest: str


@dataclass(frozen=True)
class Keys:
    """The keys of a service as they stood when they were read."""

    by_id: Mapping[bytes, tuple[Key, bytes, bytes]]

    @classmethod
    def of(cls, keys: Sequence[Key]) -> "Keys":
        """Ready to be asked."""
        return cls({key.id.encode(): (key, bytes.fromhex(key.salt), bytes.fromhex(key.digest)) for key in keys})

    def known(self, shown: bytes) -> Key | None:
        """The key that was shown, if it is one of these; an unknown id takes as long as a wrong secret."""
        if len(shown) > _LONGEST:
            return None
        prefix, _, rest = shown.partition(b"_")
        identity, _, secret = rest.partition(b"_")
        key, salt, digest = self.by_id.get(identity, _NOBODY)
        fits = compare_digest(_hash(secret, salt), digest)
        return key if fits and prefix == _PREFIX else None


def _hash(secret: bytes, salt: bytes) -> bytes:
    return blake2b(secret, key=salt, digest_size=_SIZE).digest()


_NOBODY: tuple[None, bytes, bytes] = (None, bytes(16), bytes(_SIZE))  # no secret has the hash of zeros


@dataclass(frozen=True)
class KeyFile:
    """The keys of one service; several processes may change them, one at a time, and read them at any moment."""

    path: Path

    def read(self) -> list[Key] | None:
        """All that were added and not revoked; None where no key was ever added.

        Raises:
            HomeDamaged: the file is not what this class wrote.
        """
        try:
            body = read_json(self.path)
        except FileNotFoundError:
            return None
        try:
            if body["format"] != FORMAT:
                raise ValueError(f"format {body['format']}")
            keys = [_key(each) for each in body["keys"]]
            Keys.of(keys)
        except (KeyError, TypeError, ValueError) as error:
            raise HomeDamaged(
                f"{self.path} does not hold keys ({error}); restore it, or delete it and add the keys again; until "
                f"then nobody is let in"
            ) from error
        return keys

    def version(self) -> tuple[int, int, int] | None:
        """Differs when the file was replaced; None where there is none."""
        try:
            found = self.path.stat()  # of what a link leads to: mounted secrets are exchanged by links
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def add(self, name: str, roles: Sequence[str], now: datetime, noted: Callable[[], object]) -> str:
        """Keep a new key and return it: nobody can show it again.

        noted: writes it down elsewhere, before it counts.

        Raises:
            UnknownName: there is no such role.
            WordRefused: the name is none, or stands for another key.
        """
        for role in roles:
            if role not in ROLES:
                raise UnknownName("role", role, ROLES)
        if not _NAME.fullmatch(name) or not roles:
            raise WordRefused(f"a key needs a role and a name of letters, digits, '.', '_' and '-', not {name!r}")
        with self._alone():
            keys = self.read() or []
            if name in {key.name for key in keys}:
                raise WordRefused(f"there is a key named {name} already; revoke it, or choose another name")
            identity, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
            chosen = tuple(role for role in ROLES if role in roles)
            digest = _hash(secret.encode(), salt).hex()
            new = Key(name=name, roles=chosen, added=now.isoformat(), id=identity, salt=salt.hex(), digest=digest)
            noted()
            self._write([*keys, new])
        return f"{_PREFIX.decode()}_{identity}_{secret}"

    def revoke(self, name: str) -> Key | None:
        """Take a key out, which returns it; None where none has the name. The file stays, so nobody is let in by it."""
        with self._alone():
            keys = self.read() or []
            gone = next((key for key in keys if key.name == name), None)
            if gone is not None:
                self._write([key for key in keys if key is not gone])
            return gone

    def _write(self, keys: Sequence[Key]) -> None:
        write_json(self.path, {"format": FORMAT, "keys": [asdict(key) for key in keys]})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _key(body: Mapping[str, Any]) -> Key:
    """Raises what a body of another shape raises."""
    key = Key(**{**body, "roles": tuple(body["roles"])})
    if len(bytes.fromhex(key.digest)) != _SIZE or not 16 <= len(bytes.fromhex(key.salt)) <= 64:
        raise ValueError(f"the hash of key {key.name} has another length")
    if not set(key.roles) <= set(ROLES):
        raise ValueError(f"the roles of key {key.name} are {', '.join(key.roles)}")
    return key
