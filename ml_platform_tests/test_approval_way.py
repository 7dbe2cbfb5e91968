"""The whole way on the trips: a challenger waits, a person lets it pass or not, somebody moves an alias in MLflow."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance
from ml_platform.automation.ticks import materialize
from ml_platform.definitions import house
from ml_platform.serving.approvals import Word, approve
from ml_platform.serving.assets import ALIASES, INTACT
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import HOLD, OF_A_MODEL, PROMOTION
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.replay_world import LAST, TripsHome, eve, folder_of_the_run, midnight_after, shared
from ml_platform_tests.trips.world import SHIFTS_ON

pytestmark = pytest.mark.long

WHO = ("--by", "ann", "--reason", "she looked at the slices")
NEXT = LAST + timedelta(days=1)


@pytest.fixture
def waiting(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TripsHome]:
    """The world shifted, a second version was trained, passed, and waits.

    A person is asked in the processes that are started here; the first model was promoted before that.
    """
    folder = folder_of_the_run(tmp_path_factory.getbasetemp())
    before = eve(folder)
    monkeypatch.setenv("TRIPS_APPROVAL", "person")
    made = shared(folder, "waiting", lambda home: _unapproved(before.copy(home.path)))
    yield made.copy(tmp_path / "home")
    shutil.rmtree(tmp_path)


def _unapproved(home: TripsHome) -> None:
    summary = home.run(LAST, behaviour="shifted")
    assert [event["version"] for event in summary["promotions"]] == ["1"]
    assert len(summary["retrainings"]) == 1  # and none because of who promotes


def deployed(home: TripsHome) -> tuple[str, dict[str, bool], dict[str, str]]:
    """Materialize the service as the graph does: what was done, the checks, and their words."""
    definitions, key = house(home.profile, clamp=False), asset_keys.service("desk")
    with open_instance(home.profile.dagster_home) as instance:
        report = materialize(definitions, instance, [key], at=home.clock())
        assert report.succeeded, report.failures
        event = instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        keys = [dg.AssetCheckKey(key, name) for name in (ALIASES, INTACT)]
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        found = {check.name: record.event.asset_check_evaluation for check, record in records.items()}
    action = str(event.asset_materialization.metadata["action"].value)
    return action, {name: one.passed for name, one in found.items()}, {n: str(o.description) for n, o in found.items()}


def said(home: TripsHome, *words: str) -> str:
    done = home.start(*words).wait()
    assert done.code == 0, done.said
    return done.said


def test_a_challenger_waits_until_a_person_lets_it_pass_and_the_next_day_brings_it(waiting: TripsHome) -> None:
    home = waiting
    (hold,) = home.ledger(HOLD, "late")
    assert hold.at >= midnight_after(SHIFTS_ON)
    assert hold.body["reason"].startswith(
        "version 2 passed the gate and awaits `ml-platform approve` (or `reject`): it beats the champion by +"
    )
    assert home.champion() == 1
    assert "version 2 was held: version 2 passed the gate and awaits `ml-platform approve`" in said(
        home, "history", "late"
    )

    # The word alone: its process is gone before it could deploy.
    tracking = Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts)
    ledger, now = Ledger(home.profile.ledger_path), Clock(home.profile.clock_path).now()
    approve(tracking, ledger, "late", 2, Word(by="ann", reason="better where it matters"), now)
    summary = home.run(NEXT, behaviour="shifted")
    assert [event["version"] for event in summary["promotions"]] == ["1", "2"]
    assert "approved by ann" in summary["promotions"][1]["reason"]
    assert home.champion() == 2
    assert home.ledger(PROMOTION, "late")[-1].at == midnight_after(NEXT)

    first = home.table("predictions/desk", NEXT)["asked_at"].min()
    assert "version 1 answered 100% of late" in said(home, "history", "late", "--at", first.isoformat())
    found = ledger.verify()
    assert found.passed, found.reason
    names = {"20240306", "20240307", "20240308", "20240309", "20240310"}  # how the ids of trips begin
    texts = [str(line.body) for line in ledger.about("late", OF_A_MODEL)]
    assert not [text for text in texts if any(f"{name}-" in text for name in names)]


def test_a_rejected_challenger_never_serves(waiting: TripsHome) -> None:
    assert "version 2 of late is rejected by ann" in said(waiting, "reject", "late", "2", *WHO)
    for _ in range(2):
        action, checks, _ = deployed(waiting)
        assert (action, checks) == ("refused", {ALIASES: True, INTACT: True})
    assert waiting.champion() == 1
    done = waiting.refused("approve", "late", "2", *WHO)
    assert "WordRefused: version 2 of late was rejected by ann" in done.said


def test_an_alias_moved_in_mlflow_fails_the_check_until_somebody_says_which_is_right(waiting: TripsHome) -> None:
    done = said(waiting, "approve", "late", "2", *WHO)
    assert "services/desk: promoted, champion is 2" in done
    assert waiting.champion() == 2

    Tracking(waiting.profile.mlflow_uri, waiting.profile.mlflow_artifacts)._client.set_registered_model_alias(
        "late", "champion", "1"
    )
    action, checks, words = deployed(waiting)
    assert (action, checks) == ("held", {ALIASES: False, INTACT: True})
    assert "alias champion of late was moved past the platform: it is version 1 in MLflow, version 2" in words[ALIASES]
    assert "`ml-platform adopt late 2 --by NAME --reason WHY` puts version 2 back" in words[ALIASES]

    assert "version 2 of late is champion, said ann" in said(waiting, "adopt", "late", "2", *WHO)
    assert waiting.champion() == 2
    _, checks, words = deployed(waiting)
    assert checks == {ALIASES: True, INTACT: True}
    assert words[ALIASES] == "the champion of late is version 2 in MLflow and in the ledger"
