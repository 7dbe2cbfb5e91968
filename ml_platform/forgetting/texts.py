"""Pages, logs, events and tags that name the entity or a prediction about it, and the levels that a model learned."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ml_platform.forgetting.places import Held
from ml_platform.spec.entities import EntityValue
from ml_platform.stores.artifacts import Artifacts
from ml_platform.stores.text_databases import TextDatabase
from ml_platform.stores.text_files import TextFiles
from ml_platform.stores.texts import Words
from ml_platform.training.model import SCHEMA_FILE


@dataclass(frozen=True)
class Databases:
    """Texts in the databases of Dagster, MLflow and the ledger; ``home``: what their files are named from."""

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
class Learned:
    """Files of models: the level of a categorical input that is the entity's value, and texts beside them.

    The level's place stays, so that all other inputs mean what they did; asked with the value, a model takes it for
    one that it never saw.
    """

    title: ClassVar[str] = "files of models"
    artifacts: Artifacts
    entity: EntityValue
    words: Words

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for path in self.artifacts.paths():
            content = self.artifacts.read(path)
            if self._changed(path, content) != content:
                yield Held(place=f"MLflow's files, {path}", count=1, what="texts naming it")

    def purge(self) -> None:
        """See ``Place.purge``."""
        for path in self.artifacts.paths():
            content = self.artifacts.read(path)
            new = self._changed(path, content)
            if new != content:
                self.artifacts.write(path, new)

    def _changed(self, path: str, content: bytes) -> bytes:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return content
        if path.rpartition("/")[2] == SCHEMA_FILE:
            text = self._without_level(text)
        return self.words.replaced([text])[0].encode()

    def _without_level(self, text: str) -> str:
        schema: dict[str, Any] = json.loads(text)
        levels = schema.get("encoding", {}).get("categories", {}).get(self.entity.name, [])
        if self.entity.text not in map(str, levels):
            return text
        new = [self._nobody(level) if str(level) == self.entity.text else level for level in levels]
        schema["encoding"]["categories"][self.entity.name] = new
        return json.dumps(schema, indent=1)

    def _nobody(self, level: str | int) -> str | int:
        """A level of the same type that nobody asks with, the same for the same value."""
        return self.words.token if isinstance(level, str) else -int(self.words.token.rpartition("-")[2], 16)
