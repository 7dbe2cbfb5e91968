"""What is served after a forgetting is what the remaining raw rows say, by brute force, for every entity left."""

import random
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.follow import followed
from ml_platform.features.oracle import Oracle
from ml_platform.forgetting import live
from ml_platform.forgetting.subject import Subject
from ml_platform.serving.events import Ingestor
from ml_platform.sources.admission import Admission
from ml_platform.spec import Active, Entity, FeatureView, Latest, MissingHistory, Project, SourceTable, Window
from ml_platform.spec.calendar import day_of
from ml_platform.spec.entities import entity_value
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.delta_purge import purge
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.online_purge import SqlitePurge
from ml_platform.stores.tiles import SqliteTiles
from ml_platform.stores.tiles_purge import SqliteTilePurge

FIRST, NOW = date(2024, 3, 8), datetime(2024, 3, 11, 9, 30, tzinfo=UTC)  # the 11th is not closed
TIME = pl.Datetime("us", "UTC")
ORDERS = {"id": pl.Int64, "shop": pl.String, "buyer": pl.String, "paid": pl.Float64, "known_at": TIME}
PARCELS = {"id": pl.Int64, "buyer": pl.String, "known_at": TIME}
SPANS = (timedelta(hours=3), timedelta(hours=30))


def _project(frames: dict[str, pl.DataFrame]) -> Project:
    """Orders by shop, open until a parcel is sent, which need not be sent to who ordered."""

    def table(name: str, columns: dict[str, Any]) -> SourceTable:
        rows = frames[name]

        def read(start: datetime, end: datetime) -> pl.DataFrame:
            return rows.filter(pl.col("known_at").is_between(start, end, closed="left"))

        return SourceTable(
            name=name, read=read, columns=columns, key=("id",), description="d", known_at_source="s", may_be_empty=True
        )

    shop, buyer = Entity(name="shop"), Entity(name="buyer")
    view = partial(FeatureView, source="orders", description="d", key=("id",))
    kinds = ("count", "sum", "mean", "std", "min", "max", "last", "change")
    windows = [Window("paid", kind, over=SPANS) for kind in kinds]  # type: ignore[arg-type]
    waiting = Active("known_at", ("parcels",), ("id",), timedelta(hours=40), "waiting")
    views = {
        "by_shop": view(
            name="by_shop", entities=(shop,), features=(*windows, Window("buyer", "distinct", over=SPANS), waiting)
        ),
        "by_both": view(name="by_both", entities=(shop, buyer), features=(Window("paid", "sum", over=SPANS),)),
        "newest": view(name="newest", entities=(shop,), features=(Latest("paid"),)),
    }
    days = {"starts": FIRST, "ready_from": FIRST, "serves_from": FIRST, "replay_until": FIRST}
    tables = {"orders": table("orders", ORDERS), "parcels": table("parcels", PARCELS)}
    return Project(name="orders", features="", timezone="UTC", tables=tables, views=views, **days)  # type: ignore[arg-type]


def _frames(draw: random.Random) -> dict[str, pl.DataFrame]:
    start = datetime(2024, 3, 8, tzinfo=UTC)
    minutes = int((NOW - start) / timedelta(minutes=1))
    at = [start + timedelta(minutes=draw.randint(0, minutes)) for _ in range(draw.randint(1, 60))]
    orders = [
        (n, draw.choice("xy"), draw.choice(["ann", "bob", "cid"]), round(draw.uniform(0, 99), 2), moment)
        for n, moment in enumerate(sorted(at))
    ]
    for n, shop, buyer, _, moment in draw.sample(orders, len(orders) // 4):  # corrections, perhaps of everything
        known = min(moment + timedelta(minutes=draw.randint(1, 2000)), NOW - timedelta(minutes=1))
        if known > moment:
            other = (draw.choice([shop, "x", "y"]), draw.choice([buyer, "ann", "bob"]), round(draw.uniform(0, 99), 2))
            orders.append((n, *other, known))
    sent = [
        (n, draw.choice(["ann", "bob", who]), min(moment + timedelta(minutes=draw.randint(0, 900)), NOW))
        for n, _, who, _, moment in {order[0]: order for order in orders}.values()
        if draw.random() < 0.6
    ]
    return {
        "orders": pl.DataFrame(orders, schema=ORDERS, orient="row"),
        "parcels": pl.DataFrame(sent, schema=PARCELS, orient="row"),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), who=st.sampled_from(["buyer=ann", "buyer=bob", "shop=x", "buyer=nobody"]))
def test_windows_and_newest_values_are_those_of_what_is_left(seed: int, who: str, tmp_path_factory: Any) -> None:
    draw, folder = random.Random(seed), tmp_path_factory.mktemp("home")
    frames = _frames(draw)
    project, lake = _project(frames), Lake(str(folder / "lake"))
    tiles, online = SqliteTiles(folder / "live.db"), OnlineStore(folder / "online.db", "orders")
    ingestor = Ingestor(project, followed(project, tiles, lambda: NOW), online, lake)
    today, closed = day_of(NOW, "UTC"), [FIRST, date(2024, 3, 9), date(2024, 3, 10)]
    for name, rows in frames.items():  # everything was delivered, and the closed days are in the lake
        assert ingestor.apply(name, rows) == []
        dated = rows.with_columns(pl.col("known_at").dt.date().alias(PARTITION))
        lake.replace(f"raw/{name}", dated.filter(pl.col(PARTITION) < today), closed)
    ingestor.live.keep_from(NOW - timedelta(days=2))

    subject, record = Subject(project=project, entity=entity_value(project, who)), forgotten_in(folder)
    name, text = subject.entity.name, subject.entity.text
    record.remember(name, record.digest(name, text), NOW)
    for table in subject.tables:
        purge(lake, f"raw/{table}", subject.gone(f"raw/{table}"))
    reach = live.whole_from(subject, tiles)
    served = live.Served(
        lake=lake,
        tiles=tiles,
        tile_purge=SqliteTilePurge(folder / "live.db"),
        online=online,
        online_purge=SqlitePurge(folder / "online.db", "orders"),
        admit=Admission(project, forgotten_in(folder)),
        now=NOW,
    )
    for _ in range(2):  # again it changes nothing
        live.make_anew(subject, served, reach)
        left = {table: rows.filter(pl.col(name) != text) if name in rows else rows for table, rows in frames.items()}
        _assert_served(project, served, left)
        held = (folder / "live.db").read_bytes()
        assert subject.entity.name == "shop" or text.encode() not in held
    with pytest.raises(MissingHistory):
        followed(project, tiles, lambda: NOW).values([("by_shop", ("x",))], NOW - timedelta(days=2, microseconds=1))


def _assert_served(project: Project, served: live.Served, left: dict[str, pl.DataFrame]) -> None:
    now = followed(project, served.tiles, lambda: NOW)
    for view in project.views.values():
        oracle = Oracle(view, left)
        both = [(shop, buyer) for shop in "xy" for buyer in ("ann", "bob", "cid")]
        keys: list[tuple[str, ...]] = [key[: len(view.entities)] for key in both]
        for key in dict.fromkeys(keys):
            if view.is_live:
                for at in (NOW, NOW - timedelta(hours=20), NOW - timedelta(days=2)):
                    assert now.values([(view.name, key)], at)[0] == oracle.values(key, at), (view.name, key, at)
            else:
                assert served.online.read(view, [key])[0] == oracle.values(key, NOW), (view.name, key)
