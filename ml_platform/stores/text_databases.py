"""Texts in databases that others keep (Dagster's, MLflow's): where they name an entity, and replaced there.

Only text cells are looked at, of every table that is there; no table is known by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.stores.sqlite_files import connect_to_read, is_sqlite
from ml_platform.stores.texts import Words

_ROWS_AT_ONCE = 500
_BUSY_SECONDS = 30


@dataclass(frozen=True)
class TextDatabase:
    """One database, by SQLAlchemy's address."""

    url: str

    @property
    def path(self) -> Path | None:
        """Its file, if it is one."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    def holding(self, words: Words) -> Mapping[str, int]:
        """Table -> how many of its rows name what is looked for; those without any are left out."""
        found: dict[str, int] = {}
        with self._connected(to_write=False) as connection:
            for table, key, columns in _tables(connection):
                count = sum(len(rows) for rows in _changes(connection, table, key, columns, words))
                if count:
                    found[table.name] = count
        return found

    def replace(self, words: Words) -> None:
        """Put the token in their place, all in one transaction; afterwards the database keeps no old cell."""
        import sqlalchemy as sa

        with self._connected(to_write=True) as connection:
            touched: dict[str, None] = {}
            for table, key, columns in _tables(connection):
                changes = [row for rows in _changes(connection, table, key, columns, words) for row in rows]
                for place, cells in changes:
                    same = [column == value for column, value in zip(key, place, strict=True)]
                    texts = {column: sa.literal(text, sa.Text) for column, text in cells.items()}
                    connection.execute(sa.update(table).where(*same).values(texts))
                    touched[table.name] = None
            connection.commit()
            connection.execution_options(isolation_level="AUTOCOMMIT")
            self._clean(connection, list(touched))

    def _clean(self, connection: Any, tables: Sequence[str]) -> None:
        import sqlalchemy as sa

        if self.path is not None:
            connection.execute(sa.text("VACUUM"))
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
            return
        for table in tables:  # FULL: otherwise the old rows lie in the table's file until something needs the space
            connection.execute(sa.text(f'VACUUM (FULL) "{table}"'))

    @contextmanager
    def _connected(self, *, to_write: bool) -> Iterator[Any]:
        import sqlalchemy as sa

        path = self.path
        if path is not None and not to_write:
            engine = sa.create_engine("sqlite://", creator=lambda: connect_to_read(path))
        else:
            engine = sa.create_engine(self.url, connect_args={"timeout": _BUSY_SECONDS} if path else {})
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def sqlite_files(folder: Path) -> list[Path]:
    """Every SQLite file under a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_sqlite(path))


def _tables(connection: Any) -> Iterator[tuple[Any, Sequence[Any], Sequence[Any]]]:
    """Each table with the columns that tell its rows apart and those that hold text."""
    import sqlalchemy as sa

    for name in sa.inspect(connection).get_table_names():
        table = sa.Table(name, sa.MetaData(), autoload_with=connection)
        key: list[Any] = list(table.primary_key.columns)
        if not key and connection.dialect.name == "sqlite":
            key = [sa.literal_column("rowid")]
        columns = [column for column in table.columns if isinstance(column.type, sa.String)]
        if key and columns:
            yield table, key, columns


def _changes(
    connection: Any, table: Any, key: Sequence[Any], columns: Sequence[Any], words: Words
) -> Iterator[list[tuple[tuple[Any, ...], dict[Any, str]]]]:
    """By some hundred rows: of each that changes its key, and its cells as they are afterwards."""
    import sqlalchemy as sa

    # A cell is taken as the text that it is, whatever the declared type would make of it.
    read = [sa.cast(column, sa.Text) for column in columns]
    result = connection.execute(sa.select(*key, *read).execution_options(stream_results=True))
    for some in result.partitions(_ROWS_AT_ONCE):
        cells = [str(cell or "") for row in some for cell in row[len(key) :]]
        new = words.replaced(cells)
        changed = []
        for n, row in enumerate(some):
            part = slice(n * len(columns), (n + 1) * len(columns))
            pairs = zip(columns, cells[part], new[part], strict=True)
            different = {column: text for column, old, text in pairs if old != text}
            if different:
                changed.append((tuple(row[: len(key)]), different))
        if changed:
            yield changed
