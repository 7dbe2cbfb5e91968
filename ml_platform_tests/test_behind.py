"""What stands behind a place, and that Alertmanager's rules and the platform's own messages go by the same."""

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.cli import main
from ml_platform.monitoring.alerts import told
from ml_platform.monitoring.inhibitions import MARKER
from ml_platform.resources.projects import load_project
from ml_platform.spec import Project
from ml_platform.spec.alerts import Alert
from ml_platform.spec.behind import behind, places
from ml_platform.spec.lineage import feature_columns, label_columns, request_columns, spine_columns
from ml_platform_tests.alert_world import DEPLOY, PROJECT

FLIGHTS, TRIPS = PROJECT, "ml_platform_tests.trips"
SHIPPED = DEPLOY / "alertmanager" / "alertmanager.yml"
DAY = date(2024, 3, 1)


@lru_cache
def reaches(package: str) -> dict[str, frozenset[str]]:
    project = load_project(package)
    return {place: behind(project, place) for place in places(project)}


def values_made_of(project: Project) -> dict[str, set[str]]:
    """Column -> the features, models and labels whose values are made of it, by brute force over the declarations."""
    made: dict[str, set[str]] = {}
    for view in project.views.values():
        for name, columns in feature_columns(view, project.tables).items():
            for column in columns:
                made.setdefault(str(column), set()).add(f"features/{view.name}.{name}")
    for request in project.request_views.values():
        for name, columns in request_columns(request, project).items():
            for column in columns:
                made.setdefault(str(column), set()).add(f"features/{request.name}.{name}")
    for spec in project.models.values():
        used = {f"features/{view.name}.{name}" for view in project.views_of(spec) for name in view.schema()}
        used |= {str(column) for column in spine_columns(spec, project.tables)}
        used |= {str(column) for column in label_columns(spec.task, project.tables)}
        for name in used:
            made.setdefault(name, set()).add(f"models/{spec.name}")
    return made


@pytest.mark.parametrize("package", [FLIGHTS, TRIPS])
def test_features_and_models_behind_a_column_are_those_made_of_it(package: str) -> None:
    project = load_project(package)
    made = values_made_of(project)
    for place, reach in reaches(package).items():
        if "." not in place:
            continue
        found, waiting = set[str](), [place]
        while waiting:
            new = made.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        told_of = {each for each in reach if "." in each and each.startswith("features/")}
        assert told_of == {each for each in found if each.startswith("features/")}, place
        assert found - told_of <= reach, place  # models, also by a label


@pytest.mark.parametrize("package", [FLIGHTS, TRIPS])
def test_of_two_places_at_most_one_speaks_for_the_other(package: str) -> None:
    """Otherwise two alarms would silence each other, and nobody would be told of either."""
    found = reaches(package)
    assert [place for place, reach in found.items() if place in reach] == []
    pairs = [(one, other) for one, reach in found.items() for other in reach if one in found.get(other, ())]
    assert pairs == []


def test_a_service_s_loop_stands_behind_what_it_is_made_of() -> None:
    found = reaches(FLIGHTS)
    loop = {"models/delay_lightgbm", "services/delay", "predictions/delay", "performance/delay", "decisions/delay"}
    assert loop | {"drift/delay_inputs", "labels/delay", "retrain/delay"} <= found["raw/flight_outcomes.arr_delay"]
    assert "labels/delay" not in found["raw/weather.temp"]
    assert "raw/weather" not in found["raw/weather.temp"]
    assert "raw/weather.temp" in found["raw/weather"]
    assert {"features/weather_now"} <= found["raw/weather"]
    assert "features/weather_now" not in found["raw/weather.temp"]
    assert found["performance/delay"] == {"decisions/delay", "retrain/delay"}
    assert behind(load_project(FLIGHTS), "raw/gone.long_ago") == frozenset({"reviews/flights", "profiles/raw/gone"})


class Rule:
    """An inhibition rule, as Alertmanager understands it."""

    def __init__(self, rule: dict[str, list[str]]) -> None:
        self.source, self.target = _matchers(rule["source_matchers"]), _matchers(rule["target_matchers"])
        self.equal = rule.get("equal", [])

    def silences(self, source: dict[str, str], target: dict[str, str]) -> bool:
        same = all(source[label] == target[label] for label in self.equal)
        return same and _all(self.source, source) and _all(self.target, target)


def _matchers(found: list[str]) -> list[tuple[str, str, str]]:
    parsed = [re.fullmatch(r'(\w+)(=~|!=|=)"(.*)"', each) for each in found]
    assert all(parsed)
    return [(each[1], each[2], each[3].replace("\\\\", "\\")) for each in parsed if each]


@lru_cache(maxsize=200_000)
def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _all(matchers: list[tuple[str, str, str]], labels: dict[str, str]) -> bool:
    for label, sign, value in matchers:
        is_so = _matches(value, labels[label]) if sign == "=~" else labels[label] == value
        if is_so == (sign == "!="):
            return False
    return True


@lru_cache
def rules() -> list[Rule]:
    return [Rule(each) for each in yaml.safe_load(SHIPPED.read_text())["inhibit_rules"]]


def labels_of(place: str, severity: str = "page", signal: str = "data", name: str = "Incident") -> dict[str, str]:
    return {"place": place, "severity": severity, "signal": signal, "alertname": name}


def test_the_shipped_rules_silence_exactly_what_stands_behind() -> None:
    found = reaches(FLIGHTS)
    known = sorted({*found, *(each for reach in found.values() for each in reach)})
    for source in known:
        mine = [rule for rule in rules() if _all(rule.source, labels_of(source))]
        silenced = {target for target in known for rule in mine if rule.silences(labels_of(source), labels_of(target))}
        assert silenced == found.get(source, frozenset()), source


def test_the_shipped_rules_are_those_of_the_project() -> None:
    done = CliRunner().invoke(main, ["alerts", "inhibitions", str(SHIPPED), "--check"])
    assert (done.exit_code, done.output.strip()) == (0, "the rules are those of the project")


def test_rules_of_another_project_are_found_and_written(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(f"route: {{receiver: mine}}\n{MARKER}\nold: []\n")
    monkeypatch.setenv("ML_PLATFORM_PROJECT", TRIPS)
    assert CliRunner().invoke(main, ["alerts", "inhibitions", str(file), "--check"]).exit_code == 1
    assert CliRunner().invoke(main, ["alerts", "inhibitions", str(file)]).exit_code == 0
    written = yaml.safe_load(file.read_text())
    assert written["route"] == {"receiver": "mine"}
    assert "raw/asked" in file.read_text()
    assert "old" not in written
    (tmp_path / "none.yml").write_text("route: {}\n")
    done = CliRunner().invoke(main, ["alerts", "inhibitions", str(tmp_path / "none.yml")])
    assert done.exit_code == 1
    assert "has no line" in done.output


@st.composite
def alarms(draw: st.DrawFn) -> list[Alert]:
    """Some at once, of neighbouring places, so that most sets silence something."""
    near = [place for place in reaches(FLIGHTS) if "weather" in place or "delay" in place]
    drawn = draw(st.lists(st.tuples(st.sampled_from(near), *_kinds()), max_size=6))
    return [
        Alert(
            id=str(number),
            name="Incident" if is_incident else "Other",
            place=place,
            severity=severity,  # type: ignore[arg-type]
            signal="data" if is_incident else signal,  # type: ignore[arg-type]
            sentence="",
            began=DAY,
            is_incident=is_incident,
        )
        for number, (place, severity, signal, is_incident) in enumerate(drawn)
    ]


def _kinds() -> Iterator[st.SearchStrategy[object]]:
    yield st.sampled_from(["page", "warn"])
    yield st.sampled_from(["data", "data", "operation", "event"])
    yield st.booleans()


@settings(max_examples=80, deadline=None)
@given(alarms())
def test_the_platform_silences_what_alertmanager_does(given_alarms: list[Alert]) -> None:
    found = told(given_alarms, lambda place: reaches(FLIGHTS).get(place, frozenset()), DAY)
    all_labels = {one.id: labels_of(one.place, one.severity, one.signal, one.name) for one in given_alarms}
    left = {
        one.id
        for one in given_alarms
        if not any(
            rule.silences(all_labels[other.id], all_labels[one.id])
            for other in given_alarms
            for rule in rules()
            if other is not one
        )
    }
    assert {one.id for one in found} == left
