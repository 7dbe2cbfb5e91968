"""Looking at a state folder from outside: every byte of it, and the rows of all its tables, without the platform."""

import json
import sqlite3
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable

from ml_platform_tests.replay_world import Done, TripsHome


def places_of(folder: Path, value: str) -> list[str]:
    """Every place in which the value stands: in the bytes of a file, a parquet value, a cell, a part of an archive."""
    return [
        f"{path.relative_to(folder)} ({how})"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for how in _hows(path.read_bytes(), path, value)
    ] + [f"{path.relative_to(folder)} (name)" for path in folder.rglob("*") if value in path.name]


def _hows(content: bytes, path: Path | None, value: str) -> list[str]:
    wanted = value.encode()
    found = ["bytes"] if wanted in content else []
    if content[:4] == b"PAR1":
        table = pq.read_table(BytesIO(content))
        found += [f"column {name}" for name in table.column_names if value in str(table[name].to_pylist())]
        found += ["statistics"] if value in str(pq.ParquetFile(BytesIO(content)).metadata.to_dict()) else []
    elif content[:2] == b"PK":
        with zipfile.ZipFile(BytesIO(content)) as archive:
            found += [f"{name}: {how}" for name in archive.namelist() for how in _hows(archive.read(name), None, value)]
    elif content[:15] == b"SQLite format 3" and path is not None:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.text_factory = bytes
            for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                rows = db.execute(f'SELECT * FROM "{name.decode()}"')
                if any(isinstance(cell, bytes) and wanted in cell for row in rows for cell in row):
                    found.append(f"cells of {name.decode()}")
    return found


def tables_of(home: TripsHome) -> dict[str, pl.DataFrame]:
    """Every table of the lake, its rows in a fixed order."""
    found = {}
    for log in sorted(Path(home.profile.lake).rglob("_delta_log")):
        name = str(log.parent.relative_to(home.profile.lake))
        rows = home.lake.scan(name).collect()
        plain = [column for column in rows.columns if not rows[column].dtype.is_nested()]
        found[name] = rows.sort(plain) if plain else rows
    return found


def records_of(home: TripsHome, stream: str) -> list[dict[str, Any]]:
    """Every record of the prediction log's files, in order."""
    lines = [
        json.loads(line[9:])
        for path in sorted((home.profile.log_path / stream).rglob("*.log"))
        for line in path.read_bytes().splitlines()
    ]
    return [line for line in lines if "id" in line]


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file; of those beside a SQLite file only what holds rows: readers make the others."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if content and not name.endswith("-shm")}


def versions_of(home: TripsHome) -> dict[str, int]:
    """The newest version of every table."""
    return {name: DeltaTable(f"{home.profile.lake}/{name}").version() for name in tables_of(home)}


def forget(home: TripsHome, *arguments: str) -> Done:
    """The command, to its end."""
    done = home.start("forget", *arguments).wait()
    assert "Traceback" not in done.said, done.said
    return done
