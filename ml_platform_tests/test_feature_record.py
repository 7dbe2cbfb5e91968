"""A feature that was declared otherwise when a live model was trained is refused; a new one beside it is not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.serving.agreement import agreements
from ml_platform.serving.champion import Champion, load_champion
from ml_platform.serving.desk import Desk
from ml_platform.spec import Active, Entity, FeatureView, Latest, ModelRefused, NoChampion, Window
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking import ModelVersion
from ml_platform.training.feature_record import (
    RECORD_FILE,
    FeatureRecord,
    changes,
    read_record,
    record_of,
    write_record,
)
from ml_platform_tests.serving_world import World, standard

HOUR = timedelta(hours=1)
VIEW = FeatureView(
    name="v",
    source="visits",
    entities=(Entity(name="who"),),
    description="",
    key=("id",),
    derive={"big": pl.col("a") > 1, "small": pl.col("a") < 1},
    features=(
        Window("a", "mean", over=(HOUR,)),
        Window("a", "last", over=(HOUR,)),
        Window("big", "share", over=(HOUR, 2 * HOUR)),
        Active(opened_at="at", closed_by=("ends", "left"), key=("id",), expires_after=HOUR, name="open"),
    ),
)
ALL = ["a_mean_1h", "a_last_1h", "big_share_1h", "big_share_2h", "open_1h"]
MEAN, LAST, BIG, OPEN = VIEW.features


def changed(**others: Any) -> list[str]:
    """The features that a changed view no longer serves to a model that was trained on the first one."""
    today = replace(VIEW, **others)
    return [name.removeprefix("v__") for name in changes(record_of([VIEW]), [today])]


CHANGED: list[tuple[dict[str, Any], list[str]]] = [
    ({"source": "others"}, ALL),
    ({"entities": (Entity(name="who", dtype="int64"),)}, ALL),
    ({"where": pl.col("a") > 0}, ALL),
    ({"time": "at"}, ALL[:-1]),
    ({"key": ("id", "at")}, ALL),  # other rows correct each other
    ({"derive": {**VIEW.derive, "big": pl.col("a") > 2}}, ["big_share_1h", "big_share_2h"]),
    ({"derive": {**VIEW.derive, "a": pl.col("a") * 2}}, ["a_mean_1h", "a_last_1h"]),
    ({"features": (replace(MEAN, column="b", name="a_mean"), LAST, BIG, OPEN)}, ["a_mean_1h"]),
    ({"features": (Window("a", "sum", over=(HOUR,), name="a_mean"), LAST, BIG, OPEN)}, ["a_mean_1h"]),
    ({"features": (Latest("a", name="a_mean_1h"), LAST, BIG, OPEN)}, ["a_mean_1h"]),
    ({"features": (MEAN, LAST, replace(BIG, over=(HOUR,)), OPEN)}, ["big_share_2h"]),
    ({"features": (MEAN, LAST, BIG, replace(OPEN, closed_by=("ends",)))}, ["open_1h"]),
    ({"features": (MEAN, LAST, BIG)}, ["open_1h"]),
]
UNCHANGED: list[dict[str, Any]] = [
    {"description": "said better", "owner": "team:other", "fresh_within": HOUR, "online_for": HOUR},
    {"entities": (Entity(name="who", description="said better"),)},
    {"derive": {**VIEW.derive, "small": pl.col("a") < 0, "more": pl.col("b")}},
    {"features": (*VIEW.features, Window("b", "mean", over=(HOUR,)))},
    {"features": (OPEN, replace(BIG, over=(2 * HOUR, HOUR, 3 * HOUR)), LAST, MEAN)},
    {"features": (MEAN, LAST, BIG, replace(OPEN, closed_by=("left", "ends")))},
]


@pytest.mark.parametrize(("others", "names"), CHANGED, ids=lambda value: str(value)[:40])
def test_what_changes_a_features_values_is_a_change_of_that_feature(others: dict[str, Any], names: list[str]) -> None:
    assert changed(**others) == names


@pytest.mark.parametrize("others", UNCHANGED, ids=lambda value: str(value)[:40])
def test_what_changes_no_value_is_none(others: dict[str, Any]) -> None:
    assert changed(**others) == []


def test_expressions_are_compared_within_one_polars_only() -> None:
    record = replace(record_of([VIEW]), polars="1.0")
    other_threshold = replace(VIEW, derive={"big": pl.col("a") > 2})
    other_column = replace(VIEW, derive={"big": pl.col("b") > 1})
    assert changes(record, [other_threshold]) == {}
    assert list(changes(record, [other_column])) == ["v__big_share_1h", "v__big_share_2h"]
    assert list(changes(record, [replace(VIEW, where=pl.col("a") > 0)])) == [f"v__{name}" for name in ALL]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, [VIEW])
    assert read_record(tmp_path) == record_of([VIEW])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"polars": "2", "features": {"a": 1}}', '{"features": []}'])
def test_a_damaged_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(ModelRefused, match=r"features\.json is damaged .*; restore it or train the model again"):
        read_record(tmp_path)


# In the registry and at the desk


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("record"))


def declared(tiny: World, **of_city_load: Any) -> dict[str, FeatureView]:
    return {**tiny.project.views, "city_load": replace(tiny.project.views["city_load"], **of_city_load)}


@pytest.fixture(scope="module")
def recorded(tiny: World, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """Trained on what is declared today."""
    folder = tiny.trained(tmp_path_factory.mktemp("recorded"))
    write_record(folder, tiny.project.views.values())
    return tiny.register(folder)


@pytest.fixture(scope="module")
def outdated(tiny: World, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """Trained on arrivals' mean and on today's line, both as they were declared once."""
    folder = tiny.trained(tmp_path_factory.mktemp("outdated"))
    views = declared(tiny, features=(Latest("load"), Latest("load", "int64", name="newest"), Latest("line")))
    write_record(folder, views.values())
    return tiny.register(folder)


def loaded(tiny: World, version: ModelVersion, views: dict[str, FeatureView], tmp_path: Path) -> Champion:
    return load_champion(tiny.tracking, Ledger(tiny.profile.ledger_path), version, tiny.spec.task, views, tmp_path)


def test_a_changed_feature_is_refused_with_its_cures(tiny: World, recorded: ModelVersion, tmp_path: Path) -> None:
    assert loaded(tiny, recorded, dict(tiny.project.views), tmp_path).version == str(recorded.version)
    features = (replace(Latest("load"), column="line", name="load"), Latest("line", "int64", name="newest"))
    says = (
        r"of the features it was trained on, city_load__load is declared otherwise now; restore the declaration, "
        r"declare the changed feature under a new name beside the old one, or train the model again "
        r"\(`ml-platform impact --changed` names the services\)"
    )
    with pytest.raises(ModelRefused, match=says):
        loaded(tiny, recorded, declared(tiny, features=features), tmp_path)


def test_a_new_feature_beside_the_old_one_is_not_refused(tiny: World, recorded: ModelVersion, tmp_path: Path) -> None:
    features = (*tiny.project.views["city_load"].features, Latest("line", name="load_2"))
    champion = loaded(tiny, recorded, declared(tiny, features=features), tmp_path)
    assert champion.feature_names == ("city_load__load", "city_load__newest", "line_past__delay_mean_1d")


def test_a_version_of_before_is_served_as_it_is(tiny: World, tmp_path: Path) -> None:
    views = declared(tiny, where=pl.col("load") > 0)
    assert loaded(tiny, tiny.tracking.version("late", 1), views, tmp_path).version == "1"


def impact_changed(tiny: World) -> Result:
    environment = {"ML_PLATFORM_PROJECT": "tiny", "ML_PLATFORM_HOME": str(tiny.profile.home)}
    return CliRunner().invoke(main, ["impact", "--changed"], env=environment)


def test_the_command_says_which_live_models_disagree(
    tiny: World, recorded: ModelVersion, outdated: ModelVersion
) -> None:
    first = impact_changed(tiny)
    assert first.exit_code == 0
    assert first.stdout == (
        "services/desk  unknown: late version 1 was stored without a record of its features, so it is served as it is\n"
        "services/idle  unknown: other has no champion yet\n"
    )
    tiny.tracking.promote("late", recorded.version)
    fine = impact_changed(tiny)
    assert fine.exit_code == 0
    assert fine.stdout.startswith(
        f"services/desk  pass: late version {recorded.version} was trained on features as they are declared today\n"
    )
    tiny.tracking.promote("late", outdated.version)
    wrong = impact_changed(tiny)
    assert wrong.exit_code == 1
    assert wrong.stdout.splitlines()[:3] == [
        f"services/desk  fail: late version {outdated.version} was trained on 2 of 4 features that changed since: "
        f"restore the declaration, declare the changed feature under a new name beside the old one, or train the model "
        f"again",
        "├── city_load__newest  is declared otherwise now",
        "└── city_load__line  is not declared any more",
    ]
    assert agreements(tiny.project, tiny.tracking)["desk"].state == "fail"


def test_the_desk_does_not_answer_with_it_and_says_why(tiny: World, outdated: ModelVersion) -> None:
    tiny.tracking.promote("late", outdated.version)
    desk = Desk.open(tiny.profile, "desk")
    with pytest.raises(NoChampion, match=rf"version {outdated.version} of late was refused: of the features it was"):
        desk.champion()
    tiny.tracking.promote("late", 1)
    desk.watch.look()
    assert desk.champion().version == "1"
    tiny.tracking.promote("late", outdated.version)
    desk.watch.look()
    assert desk.champion().version == "1"
    desk.log.close()


def test_a_record_names_the_polars_that_wrote_it() -> None:
    found = record_of([VIEW])
    assert isinstance(found, FeatureRecord)
    assert found.polars == pl.__version__
    assert {name: made is None for name, (_, made) in found.features.items()} == {
        "v__a_mean_1h": True,
        "v__a_last_1h": True,
        "v__big_share_1h": False,
        "v__big_share_2h": False,
        "v__open_1h": True,
    }
