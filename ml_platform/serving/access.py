"""Who may ask a service for what. Without keys only this machine may, unless something in front asks who comes.

Health is open to all. Whatever is not named here needs the role ``read``, so a page that a library adds is not open.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, NamedTuple

from ml_platform.resources.profiles import Demands, Profile
from ml_platform.spec import HomeDamaged, ServiceError
from ml_platform.stores.api_keys import Key, KeyFile, Keys

logger = logging.getLogger(__name__)
HEALTH = frozenset(["/livez", "/readyz", "/healthz"])
NEEDED: Mapping[str, str] = {"/predict": "predict", "/ingest": "operate", "/label": "operate"}
OTHERS = "read"  # /model, /metrics, the API's pages
SHOWN_IN = (b"authorization", b"x-api-key")
_BEARER = b"bearer "
_LOOK_SECONDS = 0.5  # between looks whether the file was replaced


class Refusal(NamedTuple):
    """Why somebody is not let in: HTTP status, a reason for the caller, and what the log says beside it."""

    status: Literal[401, 403]
    reason: str
    logged: str


# The same for no key, a wrong one and one that was revoked: a caller who guesses learns nothing.
_UNKNOWN = "a key that is known here is needed: send 'Authorization: Bearer KEY' (or 'x-api-key: KEY')"
_FORBIDDEN = "this key may not ask for that"
_STRANGER = (
    "this service answers its own machine alone: it has no keys; `ml-platform keys add` makes one, and `--open` says "
    "that something in front of it asks who comes"
)


def key_file(profile: Profile, service: str) -> KeyFile:
    """Where the keys of a service are kept; a folder of its own, so that a secret can be mounted there."""
    return KeyFile(profile.home / "keys" / f"{service}.json")


@dataclass
class Access:
    """Looks at keys as they stand; a change of their file counts within half a second.

    Once a process has seen the file it goes on asking for keys, even if the file is taken away: who can delete it
    shall not open the service.
    """

    file: KeyFile
    demands: Demands
    _keys: Keys | None = None  # None: none were ever added, and none are asked for
    _version: tuple[int, int, int] | None = None
    _look_at: float = 0.0
    _damaged: str = ""

    @classmethod
    def of(cls, profile: Profile, service: str) -> "Access":
        """By the settings of the profile."""
        empty = Keys({}) if profile.keys == "required" else None
        return cls(key_file(profile, service), profile.keys, empty)

    def refusal(
        self, path: str, headers: Sequence[tuple[bytes, bytes]], client: tuple[str, int] | None, now: float
    ) -> Refusal | None:
        """Why this may not be asked; None if it may. now: seconds of a clock that only goes forward."""
        if self.demands == "open" or path in HEALTH:
            return None
        if now >= self._look_at:
            self._look(now)
        if self._keys is None:
            beyond = client is not None and not is_loopback(client[0])
            return Refusal(403, _STRANGER, f"asked from {client[0]}") if beyond and client else None
        key = self._known(headers)
        if key is None:
            return Refusal(401, _UNKNOWN, self._damaged or "no key, or an unknown one")
        role = NEEDED.get(path, OTHERS)
        return None if role in key.roles else Refusal(403, _FORBIDDEN, f"key {key.name} has not the role {role}")

    def _known(self, headers: Sequence[tuple[bytes, bytes]]) -> Key | None:
        assert self._keys is not None
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == _BEARER:
                return self._keys.known(value[7:].strip())
            if name == b"x-api-key":
                return self._keys.known(value)
        return None

    def _look(self, now: float) -> None:
        self._look_at = now + _LOOK_SECONDS
        try:
            version = self.file.version()
            if version == self._version:
                return
            found = self.file.read()
        except (HomeDamaged, OSError) as error:  # nobody knows who was revoked: so nobody is let in
            if not self._damaged:
                logger.error("the keys cannot be read, so nobody is let in: %s", error)
            self._keys, self._version, self._damaged = Keys({}), None, "the keys cannot be read"
            return
        self._version, self._damaged = version, ""
        if found is not None:
            self._keys = Keys.of(found)
        elif self._keys is not None:
            self._keys = Keys({})
            logger.error("the keys in %s were taken away, so nobody is let in", self.file.path)


def without_keys(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers as those behind may see (and log) them."""
    return [(name, value) for name, value in headers if name not in SHOWN_IN]


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's alone."""
    if host == "127.0.0.1":  # nearly always, and parsing one takes longer than the rest
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def refuse_strangers(profile: Profile, service: str, host: str) -> None:
    """Do not listen beyond this machine without keys.

    Raises:
        ServiceError: the address is reached from elsewhere, the service has no keys, and nobody said that it is meant.
    """
    if is_loopback(host) or profile.keys == "open" or key_file(profile, service).read() is not None:
        return
    raise ServiceError(
        f"service {service} has no keys, so it does not listen on {host}, where others reach it: `ml-platform keys add "
        f"{service} --role predict --name NAME` makes one, and --open says that something in front of it asks who comes"
    )
