"""Taking rows out of what holds them: Delta tables, logs, databases, texts; others stay, and no old copy does."""

import html
import json
import random
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import HomeDamaged
from ml_platform.stores import prediction_log_purge as log_purge
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.delta_purge import first_readable, look, purge, table_names
from ml_platform.stores.feast_bytes import entity_key_encoder, key_parts
from ml_platform.stores.prediction_log import Prediction, PredictionLog, Truth
from ml_platform.stores.text_databases import TextDatabase
from ml_platform.stores.text_files import TextFiles
from ml_platform.stores.texts import Words, can_be_told, written
from ml_platform_tests.forget_world import places_of

NOON = datetime(2024, 3, 9, 17, tzinfo=UTC)
DAYS = [date(2024, 3, day) for day in (8, 9, 10)]
GONE = "N784JB"


def _gone(names: Any) -> pl.Expr | None:
    return (pl.col("tail") == GONE).fill_null(False) if "tail" in set(names) else None


TEXTS = {"tail": frozenset([GONE])}


# Delta tables


def _flights(draw: random.Random, days: list[date]) -> pl.DataFrame:
    rows = [(f"f{n}", draw.choice([GONE, "N1", "N9", None]), n / 7, draw.choice(days)) for n in range(40)]
    return pl.DataFrame(
        rows, schema={"id": pl.String, "tail": pl.String, "x": pl.Float64, PARTITION: pl.Date}, orient="row"
    )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), partitioned=st.booleans())
def test_rows_go_from_every_version_and_all_others_stay(seed: int, partitioned: bool, tmp_path_factory: Any) -> None:
    draw, lake = random.Random(seed), Lake(str(tmp_path_factory.mktemp("la ké")))
    for _ in range(draw.randint(1, 13)):  # a checkpoint is written at the tenth version
        days = sorted(draw.sample(DAYS, draw.randint(1, 3)))
        lake.replace("raw/flights", _flights(draw, days), days if partitioned else None)
    before, version = lake.scan("raw/flights").collect(), lake.version("raw/flights")
    assert table_names(lake) == ["raw/flights"]
    found = look(lake, "raw/flights", _gone, TEXTS)
    assert found.rows == before.filter(pl.col("tail") == GONE).height
    assert found.version == version

    first = purge(lake, "raw/flights", _gone)
    assert first == lake.version("raw/flights") == first_readable(lake, "raw/flights")
    assert first > version
    after = lake.scan("raw/flights").collect()
    assert after.sort("id", PARTITION, "x").equals(
        before.filter(pl.col("tail").ne_missing(GONE)).sort("id", PARTITION, "x")
    )
    assert not look(lake, "raw/flights", _gone, TEXTS).holds
    assert places_of(Path(lake.root), GONE) == []
    assert purge(lake, "raw/flights", _gone) > first  # again it changes no row
    assert lake.scan("raw/flights").collect().sort("id", PARTITION, "x").equals(after.sort("id", PARTITION, "x"))
    lake.replace("raw/flights", _flights(draw, DAYS), DAYS if partitioned else None)
    assert lake.scan("raw/flights").collect().height == 40


def test_marks_of_transactions_settings_and_version_numbers_stay(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.replace("raw/flights", _flights(random.Random(1), DAYS), DAYS)
    one = _flights(random.Random(2), DAYS[:1]).to_arrow()
    marked = CommitProperties(app_transactions=[Transaction("loader", 42)])
    write_deltalake(lake.uri("raw/flights"), one, mode="append", commit_properties=marked)
    before = DeltaTable(lake.uri("raw/flights"))
    version = purge(lake, "raw/flights", _gone)
    after = DeltaTable(lake.uri("raw/flights"))
    assert (after.transaction_version("loader"), after.version()) == (42, version)
    assert after.metadata().configuration == before.metadata().configuration
    assert after.metadata().id == before.metadata().id
    assert version > before.version()


def test_a_value_that_only_the_log_says_is_found_and_goes(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    rows = pl.DataFrame({"tail": ["N1", GONE], PARTITION: [DAYS[0]] * 2})  # the lowest and the highest of a file
    lake.replace("raw/flights", rows, DAYS[:1])
    lake.replace("raw/flights", rows.head(1), DAYS[:1])
    for path in (tmp_path / "raw/flights").rglob("part-*.parquet"):
        if path.name not in lake.files("raw/flights")[DAYS[0]][0]:
            path.unlink()
    found = look(lake, "raw/flights", _gone, TEXTS)
    assert (found.rows, found.old_files, found.in_log) == (0, 0, True)
    purge(lake, "raw/flights", _gone)
    assert places_of(tmp_path, GONE) == []
    assert lake.scan("raw/flights").collect()["tail"].to_list() == ["N1"]


# The prediction log


def _log(folder: Path, ids: list[str]) -> None:
    log = PredictionLog(folder)
    for n, name in enumerate(ids):
        answer = Prediction(
            prediction_id=name,
            model="m",
            model_version="1",
            probability=n / 100,
            asked_at=NOON,
            as_of=NOON,
            answered_at=NOON,
            entities={"tail": name},
            feature_names=("a", "b")[: 1 + n % 2],
            features=[1.0, None][: 1 + n % 2],
        )
        log.append_predictions("desk", DAYS[n % 3], [answer])
        log.append_labels("desk", DAYS[n % 3], [Truth(prediction_id=name, value=1, known_at=NOON)])
    log.close()


@settings(max_examples=20, deadline=None)
@given(picked=st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=12))
def test_records_go_from_a_log_and_others_are_read_as_before(picked: list[str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("log")
    ids = [f"{name}{n}" for n, name in enumerate(picked)]
    _log(folder, ids)
    before = {s: getattr(PredictionLog(folder), s)("desk") for s in ("predictions", "labels")}
    for stream in ("predictions", "labels"):
        gone = log_purge.purge(folder, stream, "desk", lambda record: record["id"].startswith("x"))  # type: ignore[arg-type]
        assert gone == picked.count("x")
        left = before[stream].filter(~pl.col("prediction_id").str.starts_with("x"))
        assert getattr(PredictionLog(folder), stream)("desk").equals(left)
    assert all(path.suffix == ".log" for path in folder.rglob("*") if path.is_file())
    assert [place for name in ids if name[0] == "x" for place in places_of(folder, f'"{name}"')] == []


def test_a_torn_line_goes_and_a_damaged_one_is_still_told(tmp_path: Path) -> None:
    _log(tmp_path, ["a1"])
    (path,) = (tmp_path / "predictions").rglob("*.log")
    whole = path.read_bytes()
    path.write_bytes(whole + b'deadbeef {"id":"b2"')
    path.with_suffix(".draft").write_text("of a purge that was killed")
    assert log_purge.purge(tmp_path, "predictions", "desk", lambda record: False) == 0
    assert path.read_bytes() == whole
    assert [file.suffix for file in path.parent.iterdir()] == [".log"]
    path.write_bytes(b"damaged\n" + whole)
    log_purge.purge(tmp_path, "predictions", "desk", lambda record: True)
    path.write_bytes(path.read_bytes() + whole)
    with pytest.raises(HomeDamaged, match="line 1: the checksum does not fit"):
        PredictionLog(tmp_path).predictions("desk")


# Keys


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.text(max_size=9) | st.integers(-(2**63), 2**63 - 1), min_size=1
    ),
    st.binary(max_size=6),
)
def test_a_key_says_what_it_names_whatever_follows_it(named: dict[str, str | int], after: bytes) -> None:
    names = tuple(named)
    key = entity_key_encoder(names)([named[name] for name in names])
    assert key_parts(key + after) == ({name: str(value) for name, value in named.items()}, after)
    assert key_parts(key[:-1]) is None or isinstance(named[max(names)], str)


@given(st.binary(max_size=40))
def test_what_is_no_key_names_nothing(anything: bytes) -> None:
    parts = key_parts(anything)
    assert parts is None or len(parts[0]) > 0


# Texts


def _words(text: str, entity: str = "who", ids: frozenset[str] = frozenset()) -> Words:
    return Words(entity=entity, text=text, ids=ids, names=frozenset(["late-v1"]), token="forgotten-0a1b2c")


@pytest.mark.parametrize(
    "text", [GONE, "20240308-40", "anna@x.org", "Anna Smith", "Zoë-77", 'a"b\\c<d>&e', "x" * 4 + "7"]
)
def test_a_value_goes_from_whatever_it_is_written_in(text: str) -> None:
    assert can_be_told(text, ())
    whole = {"a": [text, f"was {text}."], "b": json.dumps({"who": text}), "n": 3}
    texts = [json.dumps(whole), json.dumps(json.dumps(whole)), html.escape(text), f"/{text}/", f"{text}", f"x,{text};y"]
    new = _words(text).replaced(texts)
    assert [form for form in written(text) for each in new if form in each] == []
    changed = json.loads(new[0])
    assert changed["a"] == ["forgotten-0a1b2c", "was forgotten-0a1b2c."]
    assert json.loads(changed["b"]) == {"who": "forgotten-0a1b2c"}
    assert _words(text).found([*texts, f"a{text}", f"{text}1", "else"]) == [True] * 6 + [False] * 3


@pytest.mark.parametrize("text", ["A", "703", "Paris", "1366034400", "2024-03-09", "1.5e300", "late-v1", "B6"])
def test_a_plain_word_goes_only_beside_its_name(text: str) -> None:
    assert not can_be_told(text, {"late-v1"})
    words = _words(text)
    alone = [f'{{"at": "{text}", "n": 12}}', f"the {text} flew", f"whoever={text}x, id{text}"]
    assert words.replaced(alone) == alone
    beside = [f"for example who={text}, n=1", json.dumps({"who": text}), json.dumps(json.dumps({"who": text}))]
    assert [text in each.replace("forgotten-0a1b2c", "") for each in words.replaced(beside)] == [False] * 3
    if text.isdecimal():
        (number,) = words.replaced([json.dumps({"who": int(text), "n": int(text)})])
        assert json.loads(number) == {"who": None, "n": int(text)}


def test_ids_of_many_predictions_go_in_one_pass() -> None:
    ids = frozenset(f"trip-{n:05}" for n in range(20_000))
    (new,) = _words("A", ids=ids).replaced(["trip-00007, trip-000071 and trip-19999; trip-20000"])
    assert new == "forgotten-0a1b2c, trip-000071 and forgotten-0a1b2c; trip-20000"


def test_texts_in_a_database_and_in_files_are_exchanged_and_no_old_page_stays(tmp_path: Path) -> None:
    path, filler = tmp_path / "some.db", "x" * 3000
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT, n INTEGER)")
        db.execute("CREATE TABLE keyless (a VARCHAR, b VARCHAR)")
        db.executemany("INSERT INTO events (body, n) VALUES (?, 1)", [(f"{n} {GONE} {filler}",) for n in range(9)])
        db.executemany("INSERT INTO events (body) VALUES (?)", [(f"{n} {filler}",) for n in range(9)])
        db.execute("INSERT INTO keyless VALUES (?, 'kept'), ('kept', NULL)", (GONE,))
        db.execute("INSERT INTO events (body) VALUES (?)", (f"deleted long ago {GONE}",))
        db.execute("DELETE FROM events WHERE body LIKE 'deleted%'")
    database = TextDatabase(f"sqlite:///{path}")
    assert database.holding(_words(GONE)) == {"events": 9, "keyless": 1}
    database.replace(_words(GONE))
    assert database.holding(_words(GONE)) == {}
    assert places_of(tmp_path, GONE) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*), count(n) FROM events").fetchone() == (18, 9)
        assert db.execute("SELECT * FROM keyless").fetchall() == [("forgotten-0a1b2c", "kept"), ("kept", None)]
        assert db.execute("SELECT body FROM events WHERE id = 12").fetchone() == (f"2 {filler}",)

    page, other = tmp_path / "page.html", tmp_path / "kept" / "log.txt"
    page.write_text(f"<p>{GONE}</p>")
    page.chmod(0o640)
    other.parent.mkdir()
    other.write_text(GONE)
    files = TextFiles(tmp_path, frozenset(["kept"]))
    assert files.holding(_words(GONE)) == [page]
    files.replace(_words(GONE))
    assert page.read_text() == "<p>forgotten-0a1b2c</p>"
    assert page.stat().st_mode & 0o777 == 0o640
    assert other.read_text() == GONE
