"""Request features answered over HTTP by a real service, scored in a batch, and refused when declared otherwise."""

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.features.skew import compare
from ml_platform.serving.batch import score_tomorrow
from ml_platform.serving.bodies import PredictRequest
from ml_platform.serving.champion import Champion, load_champion
from ml_platform.serving.client import Client
from ml_platform.serving.desk import Desk
from ml_platform.serving.process import ServiceProcess, running
from ml_platform.serving.requests import row_rules
from ml_platform.spec import Computed, ModelRefused, RequestRefused, View
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking import ModelVersion
from ml_platform.training.feature_record import write_record
from ml_platform.training.lightgbm_trees import fit_trees
from ml_platform.training.training_set import join_features, question_rows
from ml_platform_tests.serving_world import FILES, NOON, ROW, World, standard

DAY = date(2013, 4, 1)
CHANGED = {
    "tiny/tables/trips.py": FILES["tiny/tables/trips.py"].replace(
        '"load": pl.Float64,', '"load": pl.Float64, "seats": pl.Int32, "price": pl.Float64, "peak": pl.Boolean,'
    ),
    "tiny/models/late.py": FILES["tiny/models/late.py"].replace('"line_past")', '"line_past", "trip_now")'),
    "tiny_features/views/trip_now.py": """
        import polars as pl
        from ml_platform.spec import Computed, Entity, RequestView
        local = pl.col("happens_at").dt.convert_time_zone("America/New_York")
        trip_now = RequestView(
            entities=(Entity(name="city"),), description="d",
            request={"happens_at": "timestamp", "seats": "int64", "price": "float64", "peak": "bool"},
            features=(
                Computed("hour", local.dt.hour(), "int64"),
                Computed("notice", (pl.col("happens_at") - pl.col("asked_at")).dt.total_seconds(fractional=True)),
                Computed("load_a_seat", pl.col("city_load__load") / pl.col("seats")),
                Computed("paid_late", pl.col("price") * pl.col("line_past__delay_mean_1d")),
                Computed("at_peak", pl.col("peak") & (pl.col("city") == "Rome"), "int64"),
            ))
        """,
}
STORED = ["city_load__load", "city_load__newest", "line_past__delay_mean_1d"]
COMPUTED = [f"trip_now__{name}" for name in ("hour", "notice", "load_a_seat", "paid_late", "at_peak")]
LEAVES = datetime(2013, 4, 1, 18, 5, 0, 7, tzinfo=UTC)
FIELDS: dict[str, Any] = {"happens_at": LEAVES.isoformat(), "seats": 4, "price": 2.5, "peak": True}


def row(name: str, **other: Any) -> dict[str, Any]:
    return {**ROW, **FIELDS, "trip": name, **other}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("request"), CHANGED)


@pytest.fixture(scope="module")
def version(tiny: World, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """Version 2, trained on request features, too: the sooner it leaves, the likelier it is late."""
    draw = np.random.default_rng(1)
    rows = pl.DataFrame({name: draw.uniform(0, 1, 400) for name in [*STORED, *COMPUTED]}).with_columns(
        pl.Series("city", draw.choice(["Rome", "Oslo"], 400)), trip_now__notice=draw.uniform(0, 7200, 400)
    )
    labelled = rows.with_columns(label=(pl.col("trip_now__notice") < 3600).cast(pl.Int64))
    folder = fit_trees(tiny.spec, labelled, 20, threads=1).save(tmp_path_factory.mktemp("v2"))
    write_record(folder, tiny.project.all_views.values())
    return tiny.register(folder)


@pytest.fixture(scope="module")
def served(tiny: World, version: ModelVersion) -> Iterator[ServiceProcess]:
    tiny.tracking.promote("late", version.version)
    with running(tiny.profile, "desk") as process:
        yield process


@pytest.fixture(scope="module")
def client(served: ServiceProcess) -> Client:
    return Client(served.url)


def logged(tiny: World, name: str) -> dict[str, Any]:
    (found,) = tiny.log.predictions("desk", first=DAY, last=DAY).filter(prediction_id=name).to_dicts()
    return {**found, "values": dict(zip(found["feature_names"], found["features"], strict=True))}


def test_it_computes_from_the_request_and_what_it_looked_up(tiny: World, client: Client) -> None:
    sent = [
        row("soon"),
        row("later", happens_at="2013-04-01T21:20:00.000001+02:00", city="Oslo", seats=0, price=7),
        row("nothing", **dict.fromkeys(FIELDS), city=None, line=None),
    ]
    answers = client.predict(sent, NOON)
    assert answers.model_version == "2"
    soon, later, nothing = (logged(tiny, str(each["trip"])) for each in sent)
    assert soon["feature_names"] == [*STORED, *COMPUTED]
    assert soon["features"] == [0.9, 3, 0.3, 14, 6300.000007, 0.9 / 4, 2.5 * 0.3, 1]
    # read from a time of another zone; 0.1 / 0 has no answer; a whole number stands for a number
    assert later["features"] == [0.1, 4, 0.3, 15, 10800.000001, None, 7 * 0.3, 0]
    assert nothing["features"] == [None] * 8
    assert json.loads(later["entities"]) == sent[1]
    assert answers.probabilities["soon"] == soon["probability"]
    assert (soon["asked_at"], soon["as_of"]) == (NOON, NOON.replace(minute=0))
    log = tiny.log.predictions("desk", first=DAY, last=DAY).filter(
        pl.col("prediction_id").is_in(["soon", "later", "nothing"])
    )
    compared, differing = compare(log, {view.name: view for view in tiny.project.views_of(tiny.spec)}, raw())
    assert (compared, differing.rows()) == (24, [])


def raw() -> dict[str, pl.DataFrame]:
    """What the world published and applied, as raw rows."""
    zone = {"known_at": pl.Datetime("us", "UTC")}
    before = NOON - timedelta(hours=1)
    return {
        "trips": pl.DataFrame(
            [("x", "Rome", 3, 0.9, before), ("y", "Oslo", 4, 0.1, before)],
            {"trip": pl.String, "city": pl.String, "line": pl.Int64, "load": pl.Float64, **zone},
            orient="row",
        ),
        "arrivals": pl.DataFrame(
            [("before", 7, 0.3, before)],
            {"trip": pl.String, "line": pl.Int64, "delay": pl.Float64, **zone},
            orient="row",
        ),
    }


BAD: list[tuple[dict[str, Any], str]] = [
    ({"without": "happens_at"}, "row 0: missing happens_at; the fields are trip, city, line, happens_at, seats"),
    ({"without": "peak"}, "row 0: missing peak"),
    ({"weight": 3}, "row 0: unknown weight"),
    ({"asked_at": NOON.isoformat()}, "row 0: unknown asked_at"),
    ({"happens_at": "noon"}, "row 0, field 'happens_at': 'noon' is not an ISO 8601 time"),
    ({"happens_at": "2013-04-01T14:05:00"}, "row 0, field 'happens_at': .* has no time zone; write an offset"),
    ({"happens_at": 1364839500}, "row 0, field 'happens_at': '1364839500' is not text with an ISO 8601 time"),
    ({"happens_at": "0001-01-01T00:00:00+14:00"}, "row 0, field 'happens_at': .* lies outside 1900"),
    ({"happens_at": "9999-12-31T23:59:59-14:00"}, "row 0, field 'happens_at': .* lies outside 1900"),
    ({"happens_at": ""}, "row 0, field 'happens_at': has 0 characters"),
    ({"seats": 4.5}, "row 0, field 'seats': '4.5' is not a whole number"),
    ({"seats": True}, "row 0, field 'seats': 'True' is not a whole number"),
    ({"seats": 2**63}, "row 0, field 'seats': .* does not fit into 64 bits"),
    ({"price": "2.5"}, "row 0, field 'price': '2.5' is not a number"),
    ({"price": False}, "row 0, field 'price': 'False' is not a number"),
    ({"price": float("nan")}, "row 0, field 'price': nan is not a number of at most 1e"),
    ({"price": float("-inf")}, "row 0, field 'price': -inf is not a number of at most 1e"),
    ({"price": 1e301}, "row 0, field 'price'"),
    ({"peak": 1}, "row 0, field 'peak': '1' is not true or false"),
    ({"peak": "true"}, "row 0, field 'peak': 'true' is not true or false"),
]


@pytest.mark.parametrize(("other", "says"), BAD, ids=lambda value: str(value)[:50])
def test_a_row_without_its_fields_is_refused_with_a_reason(client: Client, other: dict[str, Any], says: str) -> None:
    bad = row("bad", **other)
    if "without" in bad:
        del bad[bad.pop("without")]
    with pytest.raises(RequestRefused, match=f"400.*{says}|{says}"):
        client.predict([bad], NOON)


def test_the_refusals_are_answers_of_4xx(served: ServiceProcess) -> None:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    for body in ({"rows": [ROW]}, {"rows": [row("a", peak=2)]}):
        connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 400
        assert re.search("row 0", response.read().decode())
    connection.close()


def test_a_champion_of_before_the_view_goes_on(tiny: World, tmp_path: Path) -> None:
    champion = loaded(tiny, tiny.tracking.version("late", 1), tiny.project.all_views, tmp_path)
    assert (champion.computed, champion.feature_names) == (None, tuple(STORED))


def test_a_champion_may_read_what_its_model_does_not_ask_for_any_more(tiny: World, client: Client) -> None:
    """The view was taken out of the model's views, and the version trained on it answers on."""
    desk = Desk.open(tiny.profile, "desk")
    desk = replace(desk, rules=row_rules(tiny.spec.task, list(tiny.project.views.values()), 20))
    desk.predict(PredictRequest(rows=[row("still")], asked_at=NOON.isoformat()), NOON)
    assert logged(tiny, "still")["features"][3:] == [14, 6300.000007, 0.9 / 4, 2.5 * 0.3, 1]
    with pytest.raises(RequestRefused, match="row 0: missing happens_at, peak, price, seats"):
        desk.predict(PredictRequest(rows=[dict(ROW)]), NOON)
    desk.log.close()


# Declared otherwise since


def loaded(tiny: World, version: ModelVersion, views: dict[str, View], scratch: Path) -> Champion:
    return load_champion(tiny.tracking, Ledger(tiny.profile.ledger_path), version, tiny.spec.task, views, scratch)


def changed(tiny: World, name: str, **others: Any) -> dict[str, View]:
    view = tiny.project.request_views["trip_now"]
    features = tuple(replace(each, **others) if each.name == name else each for each in view.features)
    return {**tiny.project.all_views, "trip_now": replace(view, features=features)}


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("load_a_seat", {"value": pl.col("city_load__load") / (pl.col("seats") + 1)}),
        ("load_a_seat", {"value": pl.col("city_load__newest") / pl.col("seats")}),
        ("hour", {"value": pl.col("happens_at").dt.convert_time_zone("Europe/Rome").dt.hour()}),
        ("at_peak", {"value_type": "float64"}),
    ],
    ids=["another value", "another looked-up value", "another zone", "another type"],
)
def test_a_version_whose_request_feature_changed_is_refused(
    tiny: World, version: ModelVersion, tmp_path: Path, name: str, others: dict[str, Any]
) -> None:
    assert loaded(tiny, version, tiny.project.all_views, tmp_path).version == "2"
    with pytest.raises(ModelRefused, match=rf"trained on, trip_now__{name} is declared otherwise now; restore"):
        loaded(tiny, version, changed(tiny, name, **others), tmp_path)


def test_what_changes_no_value_is_not_refused(tiny: World, version: ModelVersion, tmp_path: Path) -> None:
    view = tiny.project.request_views["trip_now"]
    more = (Computed("seats", pl.col("seats"), "int64"), *reversed(view.features))
    today = replace(view, features=more, description="said better", owner="team:other")
    champion = loaded(tiny, version, {**tiny.project.all_views, "trip_now": today}, tmp_path)
    assert champion.computed is not None
    assert set(champion.computed.names) == set(COMPUTED)


def test_a_request_feature_that_is_gone_is_refused(tiny: World, version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="its input 'trip_now__hour' is not a feature of any declared view"):
        loaded(tiny, version, dict(tiny.project.views), tmp_path)


# In a batch


def test_tomorrow_is_scored_with_request_features_as_of_midnight(
    tiny: World, version: ModelVersion, tmp_path: Path
) -> None:
    midnight = datetime(2013, 4, 2, 4, tzinfo=UTC)
    types = {"trip": pl.String, "city": pl.String, "line": pl.Int64, "load": pl.Float64, "seats": pl.Int32}
    types |= {"price": pl.Float64, "peak": pl.Boolean, "leaves": pl.Datetime("us", "UTC")}
    trips = pl.DataFrame(
        [
            ("a", "Rome", 7, 0.9, 3, 1.5, True, midnight + timedelta(minutes=10)),
            ("b", None, 7, 0.2, 0, None, None, midnight),
        ],
        types,
        orient="row",
    ).with_columns(known_at=midnight - timedelta(hours=9), known_date=DAY)
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("raw/trips", trips, days_between(DAY - timedelta(days=90), DAY))
    arrivals = raw()["arrivals"].with_columns(pl.lit(DAY).alias("known_date"))
    lake.replace("raw/arrivals", arrivals, [DAY])
    champion = loaded(tiny, version, tiny.project.all_views, tmp_path)
    scored = score_tomorrow(champion, tiny.project, tiny.spec.task, lake, DAY)

    as_of, asked_at = midnight - timedelta(hours=1), midnight - timedelta(microseconds=1)
    rows = question_rows(tiny.spec.task, trips, ["seats", "price", "peak"]).with_columns(
        pl.lit(as_of, pl.Datetime("us", "UTC")).alias("as_of"),
        pl.lit(asked_at, pl.Datetime("us", "UTC")).alias("asked_at"),
    )
    joined = join_features(rows, {"trips": trips, "arrivals": arrivals}, tiny.project.views_of(tiny.spec))
    assert joined["trip_now__notice"].to_list() == [600.000001, 0.000001]
    assert joined["trip_now__load_a_seat"].to_list() == [0.9 / 3, None]
    expected = dict(zip(joined["trip"], champion.model.predict(joined), strict=True))
    assert dict(scored.select("trip", "probability").iter_rows()) == expected
