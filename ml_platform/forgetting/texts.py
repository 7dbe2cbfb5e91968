"""Pages, logs, events and tags that name the entity or a prediction about it, and the levels that a model learned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from ml_platform.forgetting.places import Held
from ml_platform.spec.entities import EntityValue
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.model_files import note_change
from ml_platform.stores.text_databases import TextDatabase
from ml_platform.stores.text_files import TextFiles
from ml_platform.stores.texts import Words
from ml_platform.stores.tracking import Tracking
from ml_platform.training.forgotten_level import forget_level
from ml_platform.training.model import SCHEMA_FILE


@dataclass(frozen=True)
class Databases:
    """Texts in the databases of Dagster, MLflow and others; ``home``: what their files are named from."""

    title: ClassVar[str] = "databases"
    databases: Sequence[TextDatabase]
    home: Path
    words: Words

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for database in self.databases:
            for table, count in database.holding(self.words).items():
                yield Held(place=f"{self._name(database)}, table {table}", count=count, what="rows naming it")

    def purge(self) -> None:
        """See ``Place.purge``: a salted hash stands where it stood."""
        for database in self.databases:
            if database.path is not None or database.holding(self.words):
                database.replace(self.words)

    def _name(self, database: TextDatabase) -> str:
        path = database.path
        if path is None:
            return "Postgres"
        return str(path.relative_to(self.home)) if path.is_relative_to(self.home) else str(path)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines of the ledger, of which the fields that name it are taken out; their chain stays whole.

    forgotten: the salted hash of its value. now: the platform's time.
    """

    title: ClassVar[str] = "lines of the ledger"
    ledger: Ledger
    words: Words
    forgotten: str
    now: datetime

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        count = len(self.ledger.naming(self.words))
        if count:
            yield Held(place=self.ledger.path.name, count=count, what="lines naming it")

    def purge(self) -> None:
        """See ``Place.purge``: a line behind them says which were redacted."""
        if self.ledger.naming(self.words):
            self.ledger.redact(self.words, self.words.entity, self.forgotten, self.now)


@dataclass(frozen=True)
class Files:
    """Texts in files of the state folder: reports, pages, logs, notes."""

    title: ClassVar[str] = "texts"
    files: TextFiles
    words: Words

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for path in self.files.holding(self.words):
            yield Held(place=str(path.relative_to(self.files.folder)), count=1, what="texts naming it")

    def purge(self) -> None:
        """See ``Place.purge``: a salted hash stands where it stood."""
        self.files.replace(self.words)


@dataclass(frozen=True)
class Versions:
    """The registered versions whose files are changed: the ledger says so before, or no service would load them.

    address: that the paths of the files begin at. Killed in between, the same forgetting says and does it again.
    """

    tracking: Tracking | None
    ledger: Ledger
    address: str
    reason: str
    now: datetime

    def note(self, changes: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Write a line for each version; changes: path of a file -> its content before and after."""
        if self.tracking is None or not changes:
            return
        for version in (found for name in self.tracking.names() for found in self.tracking.versions(name)):
            folder = f"{version.folder_uri.rstrip('/')}/"
            own = {
                f"{self.address.rstrip('/')}/{path}".removeprefix(folder): contents
                for path, contents in changes.items()
                if f"{self.address.rstrip('/')}/{path}".startswith(folder)
            }
            before, after = ({path: sha256(pair[n]).hexdigest() for path, pair in own.items()} for n in (0, 1))
            if own:
                note_change(self.ledger, version.name, str(version.version), before, after, self.reason, self.now)


@dataclass(frozen=True)
class Learned:
    """Files of models: the level of a categorical input that is the entity's value, and texts beside them."""

    title: ClassVar[str] = "files of models"
    artifacts: Artifacts
    entity: EntityValue
    words: Words
    versions: Versions

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for path in self._changes():
            yield Held(place=f"MLflow's files, {path}", count=1, what="texts naming it")

    def purge(self) -> None:
        """See ``Place.purge``."""
        changes = self._changes()
        self.versions.note({path: (self.artifacts.read(path), content) for path, content in changes.items()})
        for path, content in changes.items():
            self.artifacts.write(path, content)

    def _changes(self) -> dict[str, bytes]:
        """Of each file that changes its new content; those of one model together, members of a blend first."""
        texts = {path: content for path in self.artifacts.paths() if (content := self._text(path)) is not None}
        new = {path: self.words.replaced([content])[0] for path, content in texts.items()}
        for model in (path.removesuffix(SCHEMA_FILE) for path in new if _is_whole_model(path)):
            new |= self._without_level(model, {path: text for path, text in new.items() if path.startswith(model)})
        changed = sorted((path for path in new if new[path] != texts[path]), key=lambda path: -path.count("/"))
        return {path: new[path].encode() for path in changed}

    def _without_level(self, model: str, files: Mapping[str, str]) -> dict[str, str]:
        with TemporaryDirectory() as draft:
            for path, text in files.items():
                (Path(draft) / path.removeprefix(model)).parent.mkdir(parents=True, exist_ok=True)
                (Path(draft) / path.removeprefix(model)).write_text(text)
            forget_level(Path(draft), self.entity.name, self.entity.text, self.words.token)
            return {path: (Path(draft) / path.removeprefix(model)).read_text() for path in files}

    def _text(self, path: str) -> str | None:
        try:
            return self.artifacts.read(path).decode()
        except UnicodeDecodeError:
            return None


def _is_whole_model(path: str) -> bool:
    """Whether it describes a model, and none that is a member of another."""
    folder, _, name = path.rpartition("/")
    return name == SCHEMA_FILE and not folder.rpartition("/")[2].startswith("member-")
