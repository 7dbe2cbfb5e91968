"""`ml-platform impact`: what depends on a table, a column or a feature, as a tree."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.resources.projects import load_project
from ml_platform.spec import UnknownName
from ml_platform.spec.impact import Branch, impact

FLIGHTS, TRIPS = "ml_platform.projects.flights", "ml_platform_tests.trips"


def run(*arguments: str, project: str = TRIPS, home: Path = Path("/nowhere")) -> Result:
    environment = {"ML_PLATFORM_PROJECT": project, "ML_PLATFORM_HOME": str(home)}
    return CliRunner().invoke(main, ["impact", *arguments], env=environment)


MINUTES_LATE = """\
raw/ended.minutes_late
├── features/line_past.minutes_late_mean_6h
├── features/line_past.minutes_late_mean_1d
├── features/line_past.minutes_late_count_6h
├── features/line_past.minutes_late_count_1d
├── features/leaving.of_late
└── models/late  through 5 of its features and its label
    ├── decisions/lateness  retrains it
    └── services/desk  answers with it
        └── drift/inputs  watches its inputs
"""
MILES = """\
features/planned.miles
└── models/late  through 1 of its features
    ├── decisions/lateness  retrains it
    └── services/desk  answers with it
        └── drift/inputs  watches its inputs
"""


LEAVES = """\
raw/asked.leaves
├── raw/asked  its rule leaves_not_null
├── features/leaving.at_night
├── features/leaving.notice
└── models/late  through 2 of its features and its question
    ├── decisions/lateness  retrains it
    └── services/desk  answers with it
        └── drift/inputs  watches its inputs
"""
COUNT = """\
features/line_past.minutes_late_count_6h
├── features/leaving.of_late
└── models/late  through 2 of its features
    ├── decisions/lateness  retrains it
    └── services/desk  answers with it
        └── drift/inputs  watches its inputs
"""


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("raw/ended.minutes_late", MINUTES_LATE),
        ("features/planned.miles", MILES),
        ("raw/asked.leaves", LEAVES),
        ("features/line_past.minutes_late_count_6h", COUNT),
    ],
)
def test_impact_prints_a_tree(address: str, says: str) -> None:
    done = run(address)
    assert (done.exit_code, done.stdout) == (0, says)


def test_impact_of_a_table_of_a_contract_and_of_nothing() -> None:
    whole = run("raw/asked").stdout
    assert "└── models/late  through 3 of its features and its question" in whole
    assert "its rule" not in whole
    # A later row with the same key takes the place of the earlier one.
    assert "├── features/line_past.minutes_late_mean_6h" in run("raw/ended.trip").stdout
    assert (
        "└── raw/flight_schedules  its rule carrier_in_airlines" in run("raw/airlines.carrier", project=FLIGHTS).stdout
    )
    assert "├── raw/flight_outcomes  its rule dest_in_airports" in run("raw/airports", project=FLIGHTS).stdout
    assert run("raw/airports.alt", project=FLIGHTS).stdout == "raw/airports.alt  nothing depends on it\n"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("raw/endet.trip", "there is no source table named 'endet'; did you mean ended?"),
        ("raw/ended.minutes", "there is no column of raw/ended named 'minutes'; did you mean minutes_late or line?"),
        ("raw/ended.", "there is no column of raw/ended named ''; known: known_at, line, minutes_late, trip"),
        ("features/plan", "there is no feature view named 'plan'; did you mean planned"),
        ("features/leaving.of_lat", "there is no feature of features/leaving named 'of_lat'; did you mean of_late?"),
        ("features/planned.mile", "there is no feature of features/planned named 'mile'; did you mean miles?"),
        ("ended.trip", "there is no raw table, column or feature named 'ended.trip'; did you mean raw/ended.trip"),
        ("", "known: features/<view>, features/<view>.<feature>, raw/<table>, raw/<table>.<column>"),
    ],
)
def test_an_unknown_address_is_refused_with_the_near_ones(address: str, says: str) -> None:
    done = run(address)
    assert done.exit_code == 1
    assert done.stderr.startswith("UnknownName: ")
    assert says in done.stderr
    with pytest.raises(UnknownName):
        impact(load_project(TRIPS), address)


@pytest.mark.parametrize("arguments", [[], ["raw/ended", "--changed"]])
def test_one_question_at_a_time(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "give an ADDRESS such as raw/weather.temp, or --changed, and not both" in done.stderr


def test_a_tree_is_drawn_with_its_branches() -> None:
    leaf = Branch("leaf", "how")
    tree = Branch("root", below=(Branch("first", below=(leaf, leaf)), Branch("last", below=(leaf,))))
    assert list(tree.lines()) == [
        "root",
        "├── first",
        "│   ├── leaf  how",
        "│   └── leaf  how",
        "└── last",
        "    └── leaf  how",
    ]
