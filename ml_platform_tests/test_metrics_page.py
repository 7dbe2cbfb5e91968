"""The platform's metrics page over a real port; what rules and dashboards name stands on it, or on a service's."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ml_platform.automation.standing import standing
from ml_platform.monitoring.conditions import TOLD_OTHERWISE
from ml_platform.monitoring.dashboards import DASHBOARDS
from ml_platform.monitoring.dashboards_json import as_json
from ml_platform.monitoring.exporter import Exporter, exporter
from ml_platform.monitoring.metrics_server import metrics_server
from ml_platform.monitoring.samples import METRICS, PREFIX, sample
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.meters import Meters
from ml_platform.spec import PortInUse
from ml_platform.stores.ledger import Ledger
from ml_platform_tests.alert_world import DEPLOY, PROJECT
from ml_platform_tests.services import must
from ml_platform_tests.standing_world import NOW, record_a_check, told_by_everything

Page = dict[str, dict[frozenset[tuple[str, str]], float]]
OF_PROMETHEUS = {"up", "ALERTS"}
OF_TARGETS = {"service", "instance", "job", "le", "alertstate", "severity"}
NAMED = re.compile(r"(?<![:\w.])(ml_platform[:_][\w:]+)(?:\{([^}]*)\})?")
RULES = [DEPLOY / "prometheus" / name for name in ("platform.yaml", "serving.yaml")]


@contextmanager
def served(found: Exporter) -> Iterator[int]:
    with metrics_server(found, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def fetched(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def parsed(text: str) -> Page:
    page: Page = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            page.setdefault(one.name, {})[frozenset(one.labels.items())] = one.value
    return page


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return told_by_everything(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def page(profile: Profile) -> Page:
    with served(exporter(profile, load_project(PROJECT))) as port:
        status, text = fetched(port, "/metrics")
        assert status == 200
        assert fetched(port, "/livez") == (200, "ok\n")
        assert fetched(port, "/")[0] == 404
        return parsed(text)


def of_service() -> Page:
    """The page of a serving process, as far as it is ours, once something was counted."""
    registry = CollectorRegistry()
    meters = Meters("delay", registry)
    meters._counts["/predict", 503] = 1
    meters._timed["/predict"] = [1.0] * 16
    meters.flush()
    return parsed(generate_latest(registry).decode())


def value(page: Page, name: str, **labels: str) -> float:
    found = [number for own, number in page[PREFIX + name].items() if labels.items() <= dict(own).items()]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]


def test_every_metric_is_on_the_page_with_its_labels(page: Page) -> None:
    for name, metric in METRICS.items():
        full = PREFIX + name + ("_total" if metric.kind == "counter" else "")
        assert full in page, f"nothing tells {full}"
        assert {label for own in page[full] for label, _ in own} == set(metric.labels)
    assert set(page["ml_platform_read_failed"].values()) == {0}


def test_what_it_says_is_what_the_state_holds(page: Page) -> None:
    assert value(page, "clock_timestamp_seconds") == NOW.timestamp()
    assert value(page, "clock_replayed") == 1
    assert NOW.timestamp() - value(page, "table_newest_timestamp_seconds", asset="raw/weather") == 60
    assert value(page, "log_loss", service="delay", version="3") == pytest.approx(0.5)
    assert value(page, "label_maturity", age_days="0") == 0.8
    assert value(page, "drift_distance", feature="temp") == 0.2
    assert len(page["ml_platform_drift_distance"]) == 1  # of the other nothing is known
    assert value(page, "skew_values_differing") == 0
    assert value(page, "decision_answer", answer="wait") == 1
    assert value(page, "decisions_total", answer="wait") == 2
    assert value(page, "retrainings_wanted_total") == 1
    assert value(page, "retrainings_consumed_total") == 0
    assert value(page, "reviews_open", model="delay_lightgbm") == 1
    assert value(page, "decision_held", by="breaker") == 0
    waits = NOW.timestamp() - value(page, "retraining_wanted_timestamp_seconds")
    assert waits == 2 * 86400
    assert value(page, "champion_version", model="delay_lightgbm") == 1  # rolled back
    assert value(page, "model_events_total", model="delay_lightgbm", event="rollback") == 1
    assert value(page, "model_events_total", model="delay_torch", event="rollback") == 0
    assert value(page, "rollout_phase", phase="canary") == 1
    assert value(page, "rollout_evidence_in_favour", guard="loss") == 12
    assert value(page, "rollout_units", guard="loss", variant="champion") == 400
    assert value(page, "check_state", check="ledger_intact", state="unknown") == 1
    assert value(page, "check_state", check="aliases", state="fail") == 1
    assert value(page, "freshness_state", asset="services/delay", state="warn") == 1
    assert value(page, "alerts_waiting", channel="mail") == 1


def test_an_incident_is_told_while_it_lasts_and_as_over_afterwards(page: Page) -> None:
    told = {
        (dict(own)["place"], dict(own)["severity"]): number for own, number in page["ml_platform_incident_open"].items()
    }
    assert told == {
        ("raw/weather.temp", "page"): 1,
        ("raw/weather.temp", "warn"): 0,
        ("raw/planes.seats", "page"): 0,
        ("raw/planes.seats", "warn"): 1,
        ("raw/flight_outcomes.arr_delay", "page"): 0,
        ("raw/flight_outcomes.arr_delay", "warn"): 0,
    }
    sentences = {dict(own)["link"]: dict(own)["sentence"] for own in page["ml_platform_incident_told"]}
    assert '<wrong> & "odd"' in sentences["http://127.0.0.1:3001/assets/raw/weather"]


def test_an_empty_folder_says_what_there_is_to_say_and_is_left_empty(tmp_path: Path) -> None:
    found = exporter(Profile.at(tmp_path / "none", project=PROJECT), load_project(PROJECT))
    with served(found) as port:
        page = parsed(fetched(port, "/metrics")[1])
        with pytest.raises(PortInUse, match="choose another --port"):
            metrics_server(found, "127.0.0.1", port)
    assert value(page, "clock_replayed") == 0
    assert set(page["ml_platform_read_failed"].values()) == {0}
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_read_is_told_and_hides_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    profile = Profile.at(tmp_path, project=PROJECT)
    profile.ledger_path.write_bytes(b"no database" * 500)
    (profile.serving_path / "delay").mkdir(parents=True)
    (profile.serving_path / "delay" / "rollout.json").write_text("{}")
    with served(exporter(profile, load_project(PROJECT))) as port:
        page = parsed(fetched(port, "/metrics")[1])
    failed = {dict(own)["part"] for own, number in page["ml_platform_read_failed"].items() if number}
    assert failed == {"ledger", "chain", "rollouts"}
    assert "the part ledger cannot be read: the ledger" in caplog.text
    assert "ml_platform_clock_timestamp_seconds" in page


@pytest.mark.service("postgres")
def test_in_production_checks_are_read_from_where_dagster_records_them(tmp_path: Path, postgres_url: str) -> None:
    record_a_check(tmp_path / "elsewhere", postgres_url)
    found = {(one.check, one.state) for one in standing(tmp_path / "none", postgres_url)}
    assert found == {("ledger_intact", "unknown"), ("aliases", "fail"), (None, "warn")}
    assert not (tmp_path / "none").exists()


def test_looking_writes_nothing(profile: Profile) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = (path for path in profile.home.rglob("*") if path.is_file())
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    exporter(profile, load_project(PROJECT)).samples()  # SQLite's own files may come with the first look
    before = files()
    exporter(profile, load_project(PROJECT)).samples()
    assert files() == before
    assert Ledger(profile.ledger_path).verify().state == "pass"


def test_a_sample_has_the_labels_of_its_metric() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        sample("log_loss", 1.0, service="delay")
    with pytest.raises(KeyError):
        sample("gone", 1.0)


# What others name


def queries() -> Iterator[tuple[str, str]]:
    """Where it stands, and the PromQL."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard.panels:
            yield from ((f"{name}: {panel.title}", query) for query in panel.queries.values())
        yield from ((f"{name}: ${variable}", query) for variable, query in dashboard.variables.items())
    for path in RULES:
        yield from ((path.name, line) for line in path.read_text().splitlines())


def test_every_metric_and_label_that_rules_and_dashboards_name_is_on_a_page(page: Page) -> None:
    pages = {**page, **of_service()}
    labels = {name: {label for own in found for label, _ in own} | OF_TARGETS for name, found in pages.items()}
    recorded = {name for path in RULES for name in re.findall(r"record: (\S+)", path.read_text())}
    used = set()
    for place, query in queries():
        for name, chosen in NAMED.findall(re.sub(r"%q|#.*", "", query)):
            assert name in pages or name in recorded, f"{place} names {name}, which nobody tells"
            named = set(re.findall(r"(\w+) ?(?:=~|!~|!=|=)", chosen))
            assert named <= labels.get(name, named), f"{place}: {name} has no label {named - labels[name]}"
            used.add(name)
    assert len(used) > 40
    assert {f"{PREFIX}rollout_evidence_against", f"{PREFIX}request_seconds_bucket", f"{PREFIX}log_loss"} <= used


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_shipped_dashboards_are_as_declared_and_lie_on_the_grid(name: str) -> None:
    text = (DEPLOY / "grafana" / f"{name}.json").read_text()
    assert text == as_json(DASHBOARDS[name])
    body = json.loads(text)
    taken = set()
    for panel in body["panels"]:
        place = panel["gridPos"]
        cells = {(x, place["y"]) for x in range(place["x"], place["x"] + place["w"])}
        assert not cells & taken
        assert max(cells)[0] < 24
        taken |= cells
        assert panel["description"]
    source = (DEPLOY / "grafana" / "provisioning" / "datasources" / "ml_platform.yaml").read_text()
    assert f"uid: {body['panels'][0]['datasource']['uid']}" in source
    variables = {each["name"] for each in body["templating"]["list"]}
    expressions = [each["expr"] for panel in body["panels"] for each in panel["targets"]]
    assert {name for text in expressions for name in re.findall(r"\$(\w+)", text)} <= variables


def test_rules_and_the_platform_s_own_conditions_leave_the_same_checks_to_others() -> None:
    (named,) = re.findall(r'check_state\{state="fail", asset!~"\(([^)]*)\)', RULES[0].read_text())
    assert tuple(named.split("|")) == TOLD_OTHERWISE
    names = set(re.findall(r"- alert: (\w+)", RULES[0].read_text()))
    assert {"StaleTable", "FailedCheck", "RetrainingWaits", "DriftWaitsForWord", "RetrainingStopped"} <= names


@pytest.mark.service("promtool")
@pytest.mark.parametrize("name", ["platform", "serving"])
def test_the_rules_do_what_their_tests_say(name: str) -> None:
    command = [must("promtool"), "test", "rules", f"{name}_test.yaml"]
    done = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.service("promtool", "amtool")
def test_prometheus_and_alertmanager_take_the_files(tmp_path: Path) -> None:
    for path in (DEPLOY / "prometheus").glob("*.y*ml"):
        (tmp_path / path.name).write_text(path.read_text().replace("/etc/prometheus/", f"{tmp_path}/"))
    (tmp_path / "key").touch()
    for name in ("alertmanager.yml", "ml_platform.tmpl"):
        text = (DEPLOY / "alertmanager" / name).read_text()
        (tmp_path / name).write_text(text.replace("/etc/alertmanager/", f"{tmp_path}/"))
    for command in (
        [must("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        [must("amtool"), "check-config", tmp_path / "alertmanager.yml"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_schema_knows_every_field_of_a_dashboard(name: str) -> None:
    """What it does not know it drops. Grafana's own export writes a variable's ``definition``, and nothing reads it."""

    def lost(body: dict[str, Any]) -> list[str]:
        return list(_missing(body, json.loads(JSONEncoder().encode(Dashboard.from_json(body)))))

    shipped = json.loads(as_json(DASHBOARDS[name]))
    assert [path for path in lost(shipped) if not path.endswith(".definition")] == []
    shipped["panels"][0]["fieldConfg"] = {}
    assert ".panels[0].fieldConfg" in lost(shipped)


def _missing(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where something stands in ``wanted`` that is not, or is another, in ``found``."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            if name in found:
                yield from _missing(value, found[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _missing(*pair, f"{path}[{number}]")
    elif wanted != found:
        yield path
