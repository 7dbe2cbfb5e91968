"""The record of what was forgotten, and that nothing lets it in again: sources, events, questions, truths."""

import stat
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.serving.events import FORGOTTEN, Ingestor
from ml_platform.serving.requests import refuse_forgotten
from ml_platform.sources.admission import Admission
from ml_platform.sources.ingest import fetch, ingest, nothing_lost
from ml_platform.spec import (
    DeclarationError,
    Entity,
    FeatureView,
    HomeDamaged,
    Label,
    ModelSpec,
    Project,
    RequestRefused,
    SourceTable,
    Task,
    UnknownName,
    Window,
)
from ml_platform.spec import expectations as gxe
from ml_platform.spec.entities import entity_types, entity_value, recognised
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import Forgotten, forgotten_in
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.online import OnlineStore
from ml_platform_tests.shop_world import UTC_TIME

NOON = datetime(2024, 3, 9, 17, tzinfo=UTC)
DAY = date(2024, 3, 9)
NY = "America/New_York"
SALES = {"id": pl.String, "shop": pl.String, "phone": pl.String, "till": pl.Int64, "at": UTC_TIME, "known_at": UTC_TIME}


def _project(rows: pl.DataFrame | None = None) -> Project:
    """Sales by shop and till; the area is derived from the phone by a view, the buyer by a task, and a table of shops
    calls them by another name."""
    given_rows = pl.DataFrame(schema=SALES) if rows is None else rows
    table = partial(SourceTable, description="d", known_at_source="s", max_quarantined=0.5)
    sales = table(
        name="sales",
        read=lambda start, end: given_rows.filter(pl.col("known_at").is_between(start, end, closed="left")),
        columns=SALES,
        key=("id",),
        rules=(gxe.ExpectColumnValuesToReferTo(column="shop", table="shops", other="title"),),
    )
    shops = table(
        name="shops",
        read=lambda start, end: pl.DataFrame(),
        columns={"title": pl.String, "known_at": UTC_TIME},
        key=("title",),
        partitioned=False,
    )
    area, till = Entity(name="area"), Entity(name="till", dtype="int64")
    by_area = FeatureView(
        name="by_area",
        source="sales",
        entities=(area, till),
        description="d",
        derive={"area": pl.col("phone").str.slice(0, 3)},
        features=(Window("id", "count", over=(timedelta(hours=1),)),),
        key=("id",),
    )
    task = Task(
        name="t",
        spine="sales",
        key="id",
        happens_at="at",
        lead=timedelta(0),
        entities=("id", "shop", "buyer"),
        categorical=(),
        derive={"buyer": pl.format("{}/{}", "shop", "phone")},
        description="d",
        label=Label(table="sales", on=("id",), value=pl.lit(1), description="d"),
    )
    model = ModelSpec(name="m", task=task, views=("by_area",), estimator="lightgbm", parameters={}, description="d")
    declared = {"tables": {"sales": sales, "shops": shops}, "views": {"by_area": by_area}, "models": {"m": model}}
    days = {"starts": DAY, "ready_from": DAY, "serves_from": DAY, "replay_until": DAY}
    return Project(name="shop", features="", timezone=NY, **days, **declared)  # type: ignore[arg-type]


def _sales(*rows: tuple[str | None, ...]) -> pl.DataFrame:
    """(id, shop, phone, till) of each."""
    return pl.DataFrame([(*row, NOON, NOON) for row in rows], schema=SALES, orient="row")


# What is asked for


def test_an_entity_is_known_by_its_name_by_what_derives_it_and_by_what_refers_to_it() -> None:
    project = _project()
    assert entity_types(project) == {
        "area": "string",
        "till": "int64",
        "id": "string",
        "shop": "string",
        "buyer": "string",
    }
    names = {table: {n: len(e) for n, e in recognised(project, table).items()} for table in project.tables}
    assert names == {"sales": {"area": 1, "till": 1, "id": 1, "shop": 1, "buyer": 1}, "shops": {"shop": 1}}
    assert str(entity_value(project, "till=007")) == "till=7"
    assert entity_value(project, "buyer=a=b").text == "a=b"


@pytest.mark.parametrize("written", ["shop", "=north", "shop=", "", "="])
def test_what_is_no_entity_and_value_is_refused(written: str) -> None:
    with pytest.raises(DeclarationError, match=r"is not written as <entity>=<value>, such as"):
        entity_value(_project(), written)


def test_names_and_types_that_do_not_fit_are_told() -> None:
    with pytest.raises(UnknownName, match="there is no entity named 'shpo'; did you mean shop"):
        entity_value(_project(), "shpo=north")
    with pytest.raises(DeclarationError, match="till is a whole number, and 'seven' is none"):
        entity_value(_project(), "till=seven")


# The record


def test_the_record_holds_salted_hashes_alone_and_the_salt_is_its_owners(tmp_path: Path) -> None:
    record, other = forgotten_in(tmp_path / "a"), forgotten_in(tmp_path / "b")
    assert record.known_digest("shop", "north") is None
    assert list(tmp_path.iterdir()) == []
    digest = record.digest("shop", "north")
    assert digest == record.digest("shop", "north") == record.known_digest("shop", "north")
    assert digest not in {
        other.digest("shop", "north"),
        record.digest("area", "north"),
        record.digest("shop", "north "),
    }
    assert record.digest("a", "b=c") != record.digest("a=b", "c")
    assert stat.S_IMODE((record.folder / "salt").stat().st_mode) == 0o600
    record.remember("shop", digest, NOON)
    record.remember("shop", record.digest("shop", "south"), NOON + timedelta(hours=1))
    again = Forgotten(record.folder)
    assert (again.holds("shop", "north"), again.holds("shop", "west"), again.holds("area", "north")) == (
        True,
        False,
        False,
    )
    assert again.among("shop", ["west", None, "south", "north"]) == ["south", "north"]
    assert again.answers_compared_from == NOON + timedelta(hours=1)
    text = "".join(path.read_text() for path in record.folder.iterdir())
    assert "north" not in text
    assert "south" not in text


MAKE = """
import sys
from pathlib import Path
from ml_platform.stores.forgotten import forgotten_in
print("ready", flush=True); sys.stdin.readline()
print(forgotten_in(Path(sys.argv[1])).digest("a", "b"), flush=True)
"""


def test_of_several_makers_of_the_salt_one_wins(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    makers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    assert len({maker.communicate("\n", timeout=60)[0] for maker in makers}) == 1
    assert [path.name for path in (tmp_path / "forgotten").iterdir()] == ["salt"]


@pytest.mark.parametrize("damage", ["no salt", "half a salt", "half a record", "another record"])
def test_a_damaged_record_lets_nothing_in(tmp_path: Path, damage: str) -> None:
    record = forgotten_in(tmp_path)
    record.remember("shop", record.digest("shop", "north"), NOON)
    match damage:
        case "no salt":
            (record.folder / "salt").unlink()
        case "half a salt":
            (record.folder / "salt").write_text("00ff")
        case "half a record":
            (record.folder / "record.json").write_text('{"entities": {"sho')
        case "another record":
            (record.folder / "record.json").write_text('{"entities": ["shop"]}')
    with pytest.raises(HomeDamaged, match="is damaged"):
        Admission(_project(), forgotten_in(tmp_path))(_project().tables["sales"], _sales(("a", "south", "1", 1)))


# Nothing comes in again

_texts = st.sampled_from(["aa", "ab", "b", "aab", None])
_rows = st.lists(st.tuples(_texts, _texts, _texts, st.sampled_from([1, 11, None])), max_size=12)
_values = st.lists(
    st.tuples(
        st.sampled_from(["area", "till", "id", "shop", "buyer"]), st.sampled_from(["aa", "b", "1", "aab", "aa/aab"])
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(rows=_rows, values=_values)
def test_rows_of_an_entity_are_left_out_and_no_others(rows: list, values: list, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("record")
    record, project = forgotten_in(folder), _project()
    for name, text in values:
        record.remember(name, record.digest(name, text), NOON)

    def is_forgotten(row: tuple) -> bool:
        trip, shop, phone, till = row
        own = {
            "id": trip,
            "shop": shop,
            "till": None if till is None else str(till),
            "area": None if phone is None else phone[:3],
            "buyer": None if None in (shop, phone) else f"{shop}/{phone}",
        }
        return any(own[name] == text for name, text in values)

    frame = _sales(*rows)
    kept = Admission(project, forgotten_in(folder))(project.tables["sales"], frame)
    assert kept.select("id", "shop", "phone", "till").rows() == [row for row in rows if not is_forgotten(row)]
    titles = pl.DataFrame({"title": ["aa", "b", None], "known_at": [NOON] * 3})
    left = Admission(project, forgotten_in(folder))(project.tables["shops"], titles)["title"].to_list()
    assert left == [title for title in ["aa", "b", None] if ("shop", title) not in values]


def test_sources_balance_with_what_was_left_out(tmp_path: Path) -> None:
    rows = _sales(("s1", "north", "555", 1), ("s2", "south", "444", 1), ("s3", "west", "555", 2), ("s4", None, "1", 3))
    project, lake, record = _project(rows), Lake(str(tmp_path / "lake")), forgotten_in(tmp_path)
    record.remember("shop", record.digest("shop", "north"), NOON)
    table, admit = project.tables["sales"], Admission(project, forgotten_in(tmp_path))
    references = {"shops": pl.DataFrame({"title": ["north", "south"]})}
    later = NOON + timedelta(days=2)
    found = ingest(table, lake, DAY, DAY, later, NY, references=references, admit=admit)
    assert (found.rows_read, found.good.height, found.quarantined.height, found.rows_forgotten) == (4, 2, 1, 1)
    balanced = nothing_lost(table, lake, DAY, DAY, later, NY, admit=admit)
    assert balanced.state == "pass"
    assert "1 left out because they hold what was forgotten" in balanced.reason
    assert nothing_lost(table, lake, DAY, DAY, later, NY).state == "fail"  # a check that can fail
    untouched = fetch(table, DAY, DAY, later, NY, references)
    assert (untouched.good.height, untouched.rows_forgotten) == (3, 0)
    # A day of which nothing but forgotten rows came is no feed that stopped.
    assert fetch(table, DAY, DAY, later, NY, references, admit=lambda _, found: found.clear()).empty_days == ()


def test_events_and_questions_about_it_are_refused(tmp_path: Path) -> None:
    project, record = _project(), forgotten_in(tmp_path)
    record.remember("buyer", record.digest("buyer", "north/555"), NOON)
    record.remember("till", record.digest("till", "7"), NOON)
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("raw/shops", pl.DataFrame({"title": ["north", "south"], "known_at": [NOON, NOON]}), None)
    from ml_platform.features.live import LiveViews
    from ml_platform.stores.tiles import SqliteTiles

    live = LiveViews(project.views.values(), SqliteTiles(tmp_path / "live.db"))
    online = OnlineStore(tmp_path / "online.db", "shop")
    ingestor = Ingestor(project, live, online, lake, Admission(project, forgotten_in(tmp_path)))
    rows = _sales(
        ("a", "north", "555", 1), ("b", "nowhere", "5", 1), ("c", "south", "555", 7), ("d", "south", "555", 1)
    )
    aside = ingestor.apply("sales", rows)
    assert {(one.row, one.reason, one.forgotten) for one in aside} == {
        (0, FORGOTTEN, True),
        (1, "shop_in_shops", False),
        (2, FORGOTTEN, True),
    }
    assert live.values([("by_area", ("555", 1)), ("by_area", ("555", 7))], NOON) == [
        {"id_count_1h": 1},
        {"id_count_1h": 0},
    ]
    known = forgotten_in(tmp_path)
    refuse_forgotten([{"id": "a", "till": 8, "buyer": None}], known)
    with pytest.raises(RequestRefused, match=r"row 1, field 'till': was forgotten here, and is not asked about"):
        refuse_forgotten([{"id": "a", "till": 8}, {"id": "b", "till": 7}], known)


def test_a_ledger_keeps_no_examples(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    reason = "2 of 9 rows break x, which stops the table; for example id=a1, shop=north | id=a2, shop=south\nmend it"
    ledger.write("failure", "shop", "1", NOON, {"reason": reason, "more": [{"of": reason}], "n": 3})
    (line,) = ledger.entries("failure", "shop")
    cut = "2 of 9 rows break x, which stops the table\nmend it"
    assert line.body == {"reason": cut, "more": [{"of": cut}], "n": 3}
    assert b"north" not in (tmp_path / "ledger.db").read_bytes()


def test_a_value_that_nobody_forgot_costs_no_hash(tmp_path: Path) -> None:
    project = _project()
    rows = _sales(("a", "north", "555", 1))
    admit = Admission(project, forgotten_in(tmp_path))
    assert admit(project.tables["sales"], rows) is rows
    assert not (tmp_path / "forgotten").exists()
    assert list(tmp_path.iterdir()) == []
