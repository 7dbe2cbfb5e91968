"""What the online read of a question costs, and what of it each view: timed in the stores that the service reads."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.definitions import house
from ml_platform.evaluation import cost
from ml_platform.evaluation.ablation import EVERYTHING, ablate
from ml_platform.evaluation.cost import OnlineReads, Read, read_us
from ml_platform.features.live import LiveViews
from ml_platform.features.refresh import table_name
from ml_platform.resources.bound import bound
from ml_platform.resources.projects import load_project
from ml_platform.serving.online_read import online_reads
from ml_platform.spec import ModelSpec, Project
from ml_platform.stores.clock import Clock
from ml_platform.stores.online import Online, online_store
from ml_platform.stores.tiles import TileStore
from ml_platform.stores.tiles_redis import tile_store
from ml_platform_tests.redis_server import Server
from ml_platform_tests.replay_world import PACKAGE, TripsHome
from ml_platform_tests.test_ablation import PARTS
from ml_platform_tests.test_training import SPEC

INPUTS = (
    "line",
    "planned__miles",
    *(f"line_past__minutes_late_{what}_{span}" for what in ("mean", "count") for span in ("6h", "1d")),
    *(f"leaving__{name}" for name in ("at_night", "notice", "of_late")),
)
BY_VIEW = {
    view: [name for name in INPUTS if name.partition("__")[0] == view] for view in ("line", "planned", "leaving")
}
BY_VIEW["line_past"] = list(INPUTS[2:6])


MICROSECONDS = {"a": 2000, "b": 500, "c": 0}


def test_each_group_costs_what_it_takes_beyond_reading_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only reads move: an input takes what its first letter says, and every read 100 more."""
    moment, done = [0.0], [0]
    monkeypatch.setattr(cost, "perf_counter", lambda: moment[0] / 1e6)

    def of(inputs: Sequence[str]) -> list[Read]:
        def read(question: int) -> dict[str, int]:
            done[0] += 1
            # Every third read is held up by something else, and the fifth question by itself.
            held_up = (1e6 if done[0] % 3 == 0 else 0) + (5e5 if question == 4 else 0)
            moment[0] += 100 + sum(MICROSECONDS[name[0]] for name in inputs) + held_up
            return dict.fromkeys(inputs, 1)

        return [partial(read, question) for question in range(9)]

    inputs, groups = ["a1", "a2", "b1", "c1"], {"a": ["a1", "a2"], "a1": ["a1"], "b": ["b1"], "c": ["c1"]}
    found = read_us(OnlineReads(of=of, looked_up={"a1"}, told=""), inputs, groups)
    assert found is not None
    whole, alone = found
    assert whole == pytest.approx(4600)
    assert alone == pytest.approx({"a": 4000, "a1": 2000, "b": 500, "c": 0}, abs=1e-3)


@pytest.mark.parametrize("held", [{}, {"a1": None}, {"a1": 0, "b1": 3}])
def test_a_store_that_holds_nothing_of_it_is_not_timed(held: dict[str, Any]) -> None:
    asked: list[Sequence[str]] = []

    def of(inputs: Sequence[str]) -> list[Read]:
        asked.append(inputs)
        return [lambda: held]

    assert read_us(OnlineReads(of=of, looked_up={"a1"}, told=""), ["a1", "b1"], {"b": ["b1"]}) is None
    assert asked == [["a1", "b1"], (), ["b1"]]
    assert read_us(OnlineReads(of=lambda _: [], looked_up={"a1"}, told=""), ["a1"], {"a": ["a1"]}) is None


def test_an_ablation_without_a_store_says_nothing_of_reading() -> None:
    found = ablate(SPEC, PARTS, {"by_stop": ["by_stop__a"]}, "UTC", threads=1)
    assert found["read_us"].to_list() == [None, None]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.service("redis"))])
def stores(request: pytest.FixtureRequest, tmp_path: Path, home: TripsHome) -> tuple[Online, TileStore]:
    """Both online stores of the state; in Redis filled anew from its tables."""
    resources, project = bound(home.profile, load_project(PACKAGE)), load_project(PACKAGE)
    if request.param == "sqlite":
        return resources["online"], resources["tiles"]  # type: ignore[return-value]
    server: Server = request.getfixturevalue("server")
    online, tiles = online_store(server.url, project.name), tile_store(server.url, tmp_path, project.name)
    planned = project.views["planned"]
    online.publish(planned, home.lake.read(table_name(planned)), Clock(home.profile.clock_path).now())
    LiveViews(project.views.values(), tiles).apply("ended", home.lake.read("raw/ended"))
    return online, tiles


def opened(home: TripsHome, stores: tuple[Online, TileStore]) -> tuple[Project, ModelSpec, OnlineReads]:
    project, now = load_project(PACKAGE), Clock(home.profile.clock_path).now()
    spec = project.models["late"]
    return project, spec, online_reads(project, spec, home.lake, *stores, now)


def test_it_reads_what_the_service_would(home: TripsHome, stores: tuple[Online, TileStore]) -> None:
    _, _, online = opened(home, stores)
    assert online.looked_up == {*INPUTS[1:6]}
    vectors = pl.DataFrame([read() for read in online.of(INPUTS)], infer_schema_length=None)
    assert vectors.columns[0] == "line"
    assert set(vectors.columns) == set(INPUTS)
    assert vectors.height == 20
    now = Clock(home.profile.clock_path).now()
    spine = home.lake.read("raw/asked").with_columns(asked_at=pl.col("leaves") - pl.duration(hours=1))
    nearest = spine.sort((pl.col("asked_at") - now).abs(), "trip").head(20)
    assert vectors["planned__miles"].to_list() == nearest["miles"].to_list()
    notice = (nearest["leaves"] - now).dt.total_minutes(fractional=True)
    assert vectors["leaving__notice"].to_list() == pytest.approx(notice.to_list())
    assert (vectors["line_past__minutes_late_count_1d"] > 0).all()
    # Alone, too, a request feature is made of what it looks up.
    alone = [read() for read in online.of(BY_VIEW["leaving"])]
    assert [vector["leaving__of_late"] for vector in alone] == vectors["leaving__of_late"].to_list()
    assert "line_past__minutes_late_mean_6h" not in alone[0]


def test_the_real_store_takes_longer_for_more(home: TripsHome, stores: tuple[Online, TileStore]) -> None:
    _, _, online = opened(home, stores)
    begun = time.perf_counter()
    found = read_us(online, INPUTS, BY_VIEW)
    assert time.perf_counter() - begun < 5
    assert found is not None
    whole, alone = found
    assert set(alone) == {*BY_VIEW}
    assert abs(alone["line"]) < whole / 4  # it is sent, not read
    assert 0 < alone["planned"] < whole
    # What is computed of windows takes what they take, and its own time.
    assert 0 < alone["line_past"] < alone["leaving"] < whole


def test_an_empty_store_is_told_apart_from_a_quick_one(tmp_path: Path, home: TripsHome) -> None:
    empty = online_store(tmp_path / "none.db", "trips"), tile_store(None, tmp_path / "none_live.db", "trips")
    assert read_us(opened(home, empty)[2], INPUTS, BY_VIEW) is None


def shown(home: TripsHome) -> dict[str, Any]:
    """What the ablation's page says, made anew by the installation's own asset."""
    definitions = house(home.profile, clamp=False)
    wanted = definitions.get_assets_def(asset_keys.ablation("late"))
    made = dg.materialize([wanted], resources=dict(definitions.resources or {}))
    (event,) = made.asset_materializations_for_node(wanted.op.name)
    return {name: value.value for name, value in event.metadata.items()}


def test_the_asset_shows_it(home: TripsHome) -> None:
    told = shown(home)
    whole, *others = (record.data for record in told["without"].records)
    assert whole["without"] == EVERYTHING
    assert float(whole["read_us"]) > float(next(o for o in others if o["without"] == "planned")["read_us"])
    assert told["read_us is of"].startswith("20 questions, those asked nearest to 2024-")
    home.profile.online_path.unlink()
    home.profile.live_path.unlink()
    told = shown(home)
    assert told["read_us is of"].startswith("nothing: the online store holds nothing of 20 questions, those asked")
    assert {record.data["read_us"] for record in told["without"].records} == {""}
