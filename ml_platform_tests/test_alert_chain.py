"""From a planted incident to a message, through a real Prometheus and a real Alertmanager."""

import re
import time
from collections import Counter
from html import unescape
from pathlib import Path

import pytest

from ml_platform.monitoring.dashboards import DASHBOARDS
from ml_platform_tests.alert_world import Chain, chain, incident, until
from ml_platform_tests.receivers import text_of

needs = pytest.mark.service("prometheus", "alertmanager")
SETTLES = 6  # seconds: several scrapes, evaluations and groups; a message that comes twice would come in them


def quiet(world: Chain) -> None:
    """Nothing comes any more."""
    before = len(world.webhook.bodies), len(world.mail.mails)
    time.sleep(SETTLES)
    assert (len(world.webhook.bodies), len(world.mail.mails)) == before


def panels() -> list[str]:
    """What the dashboards ask, with Grafana's variables set to everything."""
    found = [query for each in DASHBOARDS.values() for panel in each.panels for query in panel.queries.values()]
    return [re.sub(r"\$\w+", ".*", query) for query in found]


def arrives(world: Chain, told: Counter[str], mailed: Counter[str]) -> None:
    """Exactly these titles and subjects, so often, since the beginning."""
    until(
        lambda: (world.webhook.titles, world.mail.subjects) == (told, mailed),
        lambda: f"{told} and {mailed}; there came {world.webhook.titles} and {world.mail.subjects}",
    )


@needs
@pytest.mark.long
def test_each_incident_is_told_once_and_its_end_once_whatever_is_killed(tmp_path: Path) -> None:
    with chain(tmp_path) as world:
        day = world.planted.day
        cause = incident("raw/weather.temp", day)
        symptom = incident("features/weather_now.temp_last_6h", day, kind="drift")
        warning = incident("raw/planes.seats", day, kind="nulls", severity="warn")
        told = Counter({"[page] contract: raw/weather.temp": 1, "[warn] nulls: raw/planes.seats": 1})
        mailed = Counter({"[page] contract: raw/weather.temp": 1})

        world.planted.plant(cause, symptom, warning)
        arrives(world, told, mailed)
        quiet(world)
        (body,) = (one["attachments"][0] for one in world.webhook.bodies if "page" in one["attachments"][0]["title"])
        assert body["title_link"] == "http://dagster.example/assets/raw/weather"
        assert unescape(body["text"]).strip() == cause.sentence != body["text"].strip()
        assert body["color"] == "danger"
        assert text_of(world.mail.mails[0]).split("\n") == [cause.sentence, "", body["title_link"], ""]
        assert world.mail.receivers == [["on-call@example.com"]]

        assert [query for query in panels() if not world.understands(query)] == []
        world.exporter.kill()
        quiet(world)
        world.exporter.start()
        quiet(world)
        world.alertmanager.kill()
        late = incident("raw/flight_outcomes.arr_delay", day)
        world.planted.plant(late)
        time.sleep(SETTLES)
        world.alertmanager.start()
        told["[page] contract: raw/flight_outcomes.arr_delay"] += 1
        mailed["[page] contract: raw/flight_outcomes.arr_delay"] += 1
        arrives(world, told, mailed)
        world.prometheus.kill()
        world.prometheus.start()
        quiet(world)

        world.exporter.kill()
        world.planted.end(cause, symptom, warning)
        world.exporter.start()
        told += Counter({"[ended] contract: raw/weather.temp": 1, "[ended] nulls: raw/planes.seats": 1})
        mailed["[ended] contract: raw/weather.temp"] += 1
        arrives(world, told, mailed)
        quiet(world)
        assert (world.webhook.titles, world.mail.subjects) == (told, mailed)
