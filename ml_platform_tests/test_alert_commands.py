"""Who tells people: the command, the daemon's sensor, the replay's driver; killed at any moment."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from ml_platform.automation.sensors import TELLS
from ml_platform.cli import main
from ml_platform.definitions import house
from ml_platform.resources.profiles import Profile
from ml_platform.stores.channels import Channels
from ml_platform.stores.home import Home
from ml_platform.stores.outbox import Outbox
from ml_platform_tests.alert_world import PROJECT, Planted, incident, until
from ml_platform_tests.receivers import Webhook, receivers
from ml_platform_tests.replay_world import TripsHome
from ml_platform_tests.trips.world import SHIFTS_ON

TODAY = datetime.now(UTC).date()


def planted(home: Path) -> Planted:
    profile = Profile.at(home, project=PROJECT)
    Home(home).prepare(PROJECT)
    found = Planted(profile, TODAY)
    found.plant(incident("raw/weather.temp", TODAY))
    return found


def test_commands_send_and_say_what_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["alerts", *words])
        return done.exit_code, done.output.strip()

    planted(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    assert said("send")[1].startswith("no channel is set up")
    assert said("status") == (0, "nobody was ever to be told of anything")
    with receivers() as (webhook, _):
        monkeypatch.setenv("ML_PLATFORM_ALERTS_WEBHOOK", webhook.url)
        webhook.status = 500
        assert said("send") == (1, "0 messages were taken, 1 wait: the webhook answered 500: not now")
        code, text = said("status")
        assert text.startswith("raw/weather.temp: opened by webhook: not taken in 1 tries (the webhook answered 500")
        assert said("test")[0] == 1
        webhook.status = 200
        assert said("test") == (0, "webhook: taken")
        assert list(webhook.titles) == ["[warn] test: test"]
        Outbox(tmp_path / "alerts.db").path.unlink()
        assert said("send") == (0, "1 messages were taken, 0 wait")
        code, text = said("status")
        assert (code, text.partition(" at ")[0]) == (0, "raw/weather.temp: opened by webhook: taken")


def test_the_daemon_s_sensor_tells_and_is_only_there_where_there_is_a_channel(tmp_path: Path) -> None:
    world = planted(tmp_path)
    assert TELLS not in {each.name for each in house(world.profile, clamp=False).sensors or ()}
    with receivers() as (webhook, _):
        profile = replace(world.profile, channels=Channels(webhook=webhook.url))
        (sensor,) = (each for each in house(profile, clamp=False).sensors or () if each.name == TELLS)
        assert isinstance(sensor, dg.SensorDefinition)
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        for told in ("1 messages were taken, 0 wait", "0 messages were taken, 0 wait"):
            with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
                found = sensor.evaluate_tick(context)
            assert (found.skip_message, found.run_requests) == (told, [])
        assert list(webhook.titles.elements()) == ["[page] contract: raw/weather.temp"]


@pytest.mark.long
def test_killed_while_it_sends_it_says_it_again_with_the_same_key_and_loses_none(tmp_path: Path) -> None:
    """Each kill comes while a message is at the receiver, who takes it all the same: the worst moment."""
    world = planted(tmp_path)
    with receivers() as (webhook, _):
        for kill in range(3):
            webhook.seconds = 2.0
            before = len(webhook.arrived)
            process = sends(tmp_path, webhook)
            until(lambda so_far=before: len(webhook.arrived) > so_far, lambda: "a message at the receiver")  # type: ignore[misc]
            process.kill()
            process.wait()
            time.sleep(2.5)  # the receiver takes it
            assert len(webhook.bodies) == kill + 1
        webhook.seconds = 0.0
        others = [sends(tmp_path, webhook) for _ in range(2)]  # two at once: one sends
        assert {process.wait() for process in others} == {0}
        assert webhook.titles == {"[page] contract: raw/weather.temp": 4}
        assert len(set(webhook.keys)) == 1
        world.end(*world.open.values())
        assert sends(tmp_path, webhook).wait() == 0
        assert webhook.titles["[ended] contract: raw/weather.temp"] == 1


@pytest.mark.long
def test_a_replay_looks_after_each_midnight_and_nobody_is_paged_in_a_world_without_fault(
    home: TripsHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receivers() as (webhook, _):
        monkeypatch.setenv("ML_PLATFORM_ALERTS_WEBHOOK", webhook.url)
        assert Outbox(home.profile.outbox_path).looked() is None
        home.run(SHIFTS_ON)
        looked = Outbox(home.profile.outbox_path).looked()
        assert looked is not None
        assert looked >= SHIFTS_ON - timedelta(days=1)
        assert [title for title in webhook.titles if title.startswith("[page]")] == []
        assert set(webhook.titles.values()) <= {1}  # what of so few rows a day moved may wait for a person's word


def sends(home: Path, webhook: Webhook) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ML_PLATFORM_HOME": str(home), "ML_PLATFORM_ALERTS_WEBHOOK": webhook.url}
    return subprocess.Popen([sys.executable, "-m", "ml_platform.cli", "alerts", "send"], env=environment)
