"""What is left when all is done: every byte of the state folder is looked at again, by nobody who removed anything.

Parquet is read by its values, SQLite by its cells and by its raw bytes (free pages, write-ahead log), archives by what
lies in them, and everything else as it is. Only a value that can be told from other words is looked for so.
"""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl

from ml_platform.spec.entities import EntityValue
from ml_platform.stores.delta import Lake, scan_table
from ml_platform.stores.delta_purge import table_names
from ml_platform.stores.sqlite_files import is_sqlite, reading
from ml_platform.stores.texts import Words

_PARQUET, _ARCHIVE = b"PAR1", b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Left:
    """A place that holds the value's text. elsewhere: as the value of another entity, which nobody asked to forget."""

    place: str
    why: str
    elsewhere: bool = False

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Search:
    """entities: the names of all that the project declares."""

    entity: EntityValue
    words: Words
    entities: frozenset[str]

    def folder(self, folder: Path) -> Iterator[Left]:
        """Every file under a folder of this machine."""
        for path in sorted(folder.rglob("*")) if self.words.told else ():
            if path.is_file() and not path.is_symlink():
                place = str(path.relative_to(folder))
                yield from self.database(place, path) if is_sqlite(path) else self.file(place, path.read_bytes())

    def database(self, place: str, path: Path) -> Iterator[Left]:
        """A SQLite file: its cells; and where it has free pages, all of its bytes, since they are no cells."""
        with reading(path) as db:
            db.text_factory = bytes
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            names = [name.decode() for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in names:
                rows = db.execute(f'SELECT * FROM "{name}"')
                if any(self.words.in_bytes(cell) for row in rows for cell in row if isinstance(cell, bytes)):
                    yield Left(place=place, why=f"cells of its table {name} hold it")
        if free and self.words.within_bytes(path.read_bytes()):
            yield Left(place=place, why="a free page of it may hold it")

    def file(self, place: str, content: bytes) -> Iterator[Left]:
        """One file's content, whatever it is."""
        if content.startswith(_PARQUET):
            yield from self.frame(place, pl.read_parquet(BytesIO(content), hive_partitioning=False))
        elif content.startswith(_ARCHIVE) and zipfile.is_zipfile(BytesIO(content)):
            with zipfile.ZipFile(BytesIO(content)) as archive:
                for name in archive.namelist():
                    yield from self.file(f"{place}, {name}", archive.read(name))
        elif self.words.in_bytes(content):
            yield Left(place=place, why="its bytes hold it")

    def tables(self, lake: Lake) -> Iterator[Left]:
        """The newest rows of every table of a lake that is no folder of this machine."""
        for table in table_names(lake) if self.words.told else ():
            yield from self.frame(table, scan_table(lake.opened(table)).collect())

    def frame(self, place: str, rows: pl.DataFrame) -> Iterator[Left]:
        """The columns in which the value stands, alone or within a text."""
        for column in rows.get_columns():
            if column.name == self.entity.name or column.name not in self.entities:
                texts = self._texts(column)
                if any(self.words.in_bytes(text.encode()) for text in texts):
                    yield Left(place=place, why=f"its column {column.name} holds it")
            elif column.dtype == pl.String and (column == self.entity.text).any():
                yield Left(place=place, why=f"as a value of {column.name}, which is another entity", elsewhere=True)

    @staticmethod
    def _texts(column: pl.Series) -> list[str]:
        """All different texts of a column, also of lists and structures; none where there can be none."""
        if column.dtype == pl.String:
            return column.drop_nulls().unique().to_list()
        if column.dtype == pl.Binary or (column.dtype.is_nested() and not _of_numbers(column.dtype)):
            return [str(value) for value in column.drop_nulls().to_list()]
        return []


def _of_numbers(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List) and dtype.inner.is_numeric()


def merged(found: Iterable[Left]) -> list[Left]:
    """Each place and reason once; the files of one table are one place."""
    places: Mapping[tuple[str, str], Left] = {
        (left.place.partition("/known_date=")[0], left.why): left for left in found
    }
    return [Left(place=place, why=why, elsewhere=left.elsewhere) for (place, why), left in places.items()]
