"""`ml-platform forget`: what holds an entity's value, and how all of it is removed, to the end after any kill.

It begins with a note (salted hash, names of tables and models, counts) beside the record of what was forgotten. From
then on nothing lets the value in again, and nobody else works with the state folder until the note is gone. Everything
between is done again if it was cut off: the value is not written down, so it is given again.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_platform.automation.at_work import at_work
from ml_platform.forgetting import live
from ml_platform.forgetting.models import mark, trained_on
from ml_platform.forgetting.places import BESIDE_ANSWERS, PREDICTIONS, Held, Logs, OnlineKeys, Place, Tables
from ml_platform.forgetting.rest import Left, Search, merged
from ml_platform.forgetting.stream import Messages
from ml_platform.forgetting.subject import Subject, gather
from ml_platform.forgetting.texts import Databases, Files, Learned, Lines, Versions
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.sources.admission import Admission
from ml_platform.spec import HomeLocked, Project
from ml_platform.spec.entities import EntityValue, entity_types, entity_value
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import first_readable, table_names
from ml_platform.stores.event_stream_purge import StreamPurge
from ml_platform.stores.forgettings import gone, note_forgetting
from ml_platform.stores.forgotten import Forgotten, forgotten_in, token
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.online import online_store
from ml_platform.stores.online_purge import online_purge
from ml_platform.stores.text_databases import TextDatabase, sqlite_files
from ml_platform.stores.text_files import TextFiles
from ml_platform.stores.tiles_purge import TilePurge, tile_purge
from ml_platform.stores.tiles_redis import tile_store
from ml_platform.stores.tracking import Tracking

_CONSUMER_LIVES = timedelta(seconds=30)  # one asks every second
# Read and exchanged by what they are, not as texts: tables, logs with checksums, the record of what was forgotten.
_NO_TEXTS = ("lake", "log/predictions", "log/labels", "forgotten", "users", "lock")


@dataclass(frozen=True)
class Step:
    """One piece of the removal; it may be repeated."""

    name: str
    do: Callable[[], None]


@dataclass
class Forgetting:
    """One installation, and the value that is to be forgotten in it."""

    profile: Profile
    entity: EntityValue
    project: Project
    left: list[Left] = field(default_factory=list)

    @classmethod
    def of(cls, profile: Profile, written: str) -> "Forgetting":
        """``written``: ``<entity>=<value>``.

        Raises:
            UnknownName: the project has no such entity.
            DeclarationError: it is written otherwise.
        """
        project = load_project(profile.project)
        return cls(profile, entity_value(project, written), project)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else works with the installation.

        Raises:
            HomeLocked: somebody does; names who.
        """
        with Home(self.profile.home).alone("forget"):
            replayed = Clock(self.profile.clock_path).replayed() is not None
            others = at_work(self.profile.dagster_home, self.profile.dagster_storage, replayed=replayed)
            others += [f"consumer {name}" for name in self._streams.at_work(_CONSUMER_LIVES)] if self._streams else []
            if others:
                raise HomeLocked(
                    f"{self.profile.home} is in use by {' and '.join(others)}; end it first, and try again"
                )
            yield

    def held(self) -> list[Held]:
        """Everything that holds it, the models that were trained on it included; changes nothing."""
        found = [one for place in self._places for one in place.held()]
        models = [
            Held(place=f"models/{name}", count=count, what="rows of its training set", note=f"version {number}")
            for name, versions in self._trained_on.items()
            for number, count in versions.items()
        ]
        return [*found, *models]

    @property
    def cut_off(self) -> bool:
        """Whether forgetting this very value began and did not end."""
        return self._digest is not None and self._record.begun(self._digest) is not None

    def steps(self, held: Sequence[Held]) -> list[Step]:
        """What is to be done, in this order; ``held``: what was found."""
        digest = self._record.digest(self.entity.name, self.entity.text)
        begun = self._record.begun(digest) or self._begun(held)
        return [
            Step("noting it", lambda: self._begin(digest, begun)),
            *(Step(place.title, place.purge) for place in self._purged(frozenset(begun["tables"]))),
            Step("trainings that were cut off", self._begin_anew),
            Step("live windows and stored values", lambda: self._make_anew(begun["reach"])),
            Step("looking at every byte", self._look_again),
            Step("ledger and registry", lambda: self._end(digest, begun)),
        ]

    # What it works with

    @cached_property
    def _lake(self) -> Lake:
        return Lake(self.profile.lake, self.profile.storage_options)

    @cached_property
    def _record(self) -> Forgotten:
        return forgotten_in(self.profile.home)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self.profile.ledger_path)

    @cached_property
    def _streams(self) -> StreamPurge | None:
        return StreamPurge(self.profile.redis_url, self.project.name) if self.profile.redis_url else None

    @property
    def _digest(self) -> str | None:
        return self._record.known_digest(self.entity.name, self.entity.text)

    @cached_property
    def subject(self) -> Subject:
        """The value, and the predictions about it."""
        return gather(self.project, self.entity, self._lake, self.profile.log_path)

    @cached_property
    def _tracking(self) -> Tracking | None:
        """None where no registry was made yet: asking would make one."""
        path = _sqlite_path(self.profile.mlflow_uri)
        if path is not None and not path.exists():
            return None
        return Tracking(self.profile.mlflow_uri, self.profile.mlflow_artifacts)

    @cached_property
    def _trained_on(self) -> dict[str, dict[int, int]]:
        return trained_on(self.subject, self._lake, self._tracking) if self._tracking else {}

    @property
    def _places(self) -> list[Place]:
        """Dependents first: what others are found by is removed last."""
        return self._purged(frozenset())

    def _purged(self, tables: frozenset[str]) -> list[Place]:
        profile, subject = self.profile, self.subject
        digest, now = self._digest or "0" * 12, Clock(profile.clock_path).now()
        words = subject.words(token(digest))
        artifacts = Artifacts(profile.mlflow_artifacts)
        reason = f"a {self.entity.name} was forgotten, which they named"
        versions = Versions(self._tracking, self._ledger, profile.mlflow_artifacts, reason, now)
        return [
            Files(TextFiles(profile.home, frozenset([*_NO_TEXTS, *_within(artifacts.folder, profile.home)])), words),
            Databases(self._databases(), profile.home, words),
            Lines(ledger=self._ledger, words=words, forgotten=digest, now=now),
            Learned(artifacts, self.entity, words, versions),
            *([Messages(self._streams, subject, words)] if self._streams else []),
            *(Logs(profile.log_path, stream, subject) for stream in BESIDE_ANSWERS),
            Tables(self._lake, subject, last=False, begun=tables),
            OnlineKeys(online_purge(profile.online_address, self.project.name), subject),
            live.Windows(self._tiles_there, self._tile_purge, self._lake, subject),
            Logs(profile.log_path, PREDICTIONS, subject),
            Tables(self._lake, subject, last=True, begun=tables),
        ]

    def _databases(self) -> list[TextDatabase]:
        # No texts, read by their keys; and the ledger, whose lines follow from each other: ``Lines`` redacts them.
        own = (self.profile.online_path, self.profile.live_path, self.profile.ledger_path)
        files = [path for path in sqlite_files(self.profile.home) if path not in own]
        servers = (self.profile.dagster_storage, self.profile.mlflow_uri)
        named = [url for url in servers if url and url.startswith("postgresql")]
        return [*(TextDatabase(f"sqlite:///{path}") for path in files), *map(TextDatabase, named)]

    # What it does

    def _begun(self, held: Sequence[Held]) -> dict[str, Any]:
        lake = set(table_names(self._lake))
        places = self.subject.words(token(self._digest or "")).replaced([one.place for one in held])
        return {
            "entity": self.entity.name,
            "at": Clock(self.profile.clock_path).now().isoformat(),
            "tables": sorted({one.place for one in held} & lake),
            "held": dict(zip(places, (one.count for one in held), strict=True)),
            "models": self._trained_on,
            "reach": live.whole_from(self.subject, self._tiles) if self._tiles_there else None,
        }

    @cached_property
    def _tiles(self) -> Any:
        return tile_store(self.profile.redis_url, self.profile.live_path, self.project.name)

    @property
    def _tiles_there(self) -> Any:
        """None where no tile was ever written: asking would make a file."""
        return self._tiles if self.profile.redis_url or self.profile.live_path.exists() else None

    @property
    def _tile_purge(self) -> TilePurge:
        return tile_purge(self.profile.redis_url, self.profile.live_path, self.project.name)

    def _begin(self, digest: str, begun: dict[str, Any]) -> None:
        self._record.begin(digest, begun)
        self._record.remember(self.entity.name, digest, Clock.wall())

    def _begin_anew(self) -> None:
        """A checkpoint and a backtest's version were trained on all rows; who finds none begins from the start."""
        for kept in (self.profile.checkpoints_path, self.profile.backtest_path):
            if kept.exists():
                shutil.rmtree(kept)

    def _make_anew(self, reach: int | None) -> None:
        profile, name = self.profile, self.project.name
        served = live.Served(
            lake=self._lake,
            tiles=self._tiles,
            tile_purge=self._tile_purge,
            online=online_store(profile.online_address, name),
            online_purge=online_purge(profile.online_address, name),
            admit=Admission(self.project, forgotten_in(profile.home)),
            now=Clock(profile.clock_path).now(),
        )
        live.make_anew(self.subject, served, reach)

    def _look_again(self) -> None:
        fresh = Forgetting(self.profile, self.entity, self.project)
        # The registry's marks say that rows were there; they are not what holds it.
        held = [one for place in fresh._places for one in place.held()]
        self.left = [Left(place=one.place, why=f"{one.count} {one.what} are still there") for one in held]
        search = Search(
            entity=self.entity,
            words=fresh.subject.words(token(self._digest or "")),
            entities=frozenset(entity_types(self.project)),
        )
        found = [*search.folder(self.profile.home)]
        if "://" in self.profile.lake:
            found += search.tables(self._lake)
        self.left += merged(found)
        unwritten = self._streams.rewrite_disk() if self._streams else None
        self.left += [Left(place="Redis", why=unwritten)] if unwritten else []

    @property
    def remains(self) -> list[Left]:
        """What could not be removed, with the reason."""
        return [left for left in self.left if not left.elsewhere]

    def _end(self, digest: str, begun: dict[str, Any]) -> None:
        clock = Clock(self.profile.clock_path)
        versions = {name: first_readable(self._lake, name) for name in table_names(self._lake)}
        body = {
            "entity": self.entity.name,
            "digest": digest,
            "held": begun["held"],
            "models": begun["models"],
            "readable_from": {name: version for name, version in versions.items() if version},
            "remains": self.subject.words(token(digest)).replaced([str(left) for left in self.remains]),
        }
        note_forgetting(self._ledger, self.project.name, f"{digest} {begun['at']}", clock.now(), body)
        if self._tracking is not None:
            models = {name: {int(number): rows for number, rows in v.items()} for name, v in begun["models"].items()}
            mark(self._tracking, models, gone(self._ledger, self.project.name), clock.now())
        self._record.end(digest)


def _sqlite_path(url: str) -> Path | None:
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _within(folder: Path | None, home: Path) -> list[str]:
    return [str(folder.relative_to(home))] if folder is not None and folder.is_relative_to(home) else []
