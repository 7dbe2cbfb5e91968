"""`ml-platform drill rollback`: bad versions are shipped on replayed traffic, through the real service and rollout.

The gate is left out, as if it had let them pass. Days that were served are played again: their events, questions and
truths in the order of time, each version from the same first day on, with a service, log and ledger of its own.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import click
import polars as pl

from ml_platform.drills.challengers import ALL, Base, Challenger
from ml_platform.drills.stage import Stage, stage
from ml_platform.features.follow import Delivered, follow_days
from ml_platform.replay.hours import HOUR, Hours
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.client import Client
from ml_platform.serving.deployment import deploy
from ml_platform.serving.events import Ingestor
from ml_platform.serving.process import running
from ml_platform.serving.referee import Referee
from ml_platform.serving.referee_process import open_referee
from ml_platform.serving.rollout_files import policy_of
from ml_platform.serving.rollout_page import shown
from ml_platform.serving.rollout_way import Way
from ml_platform.spec import DeclarationError, Project, Service, ServiceError
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATE, PROMOTION
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.rollout_state import Rollout
from ml_platform.stores.tiles_redis import tile_store
from ml_platform.stores.tracking import Tracking
from ml_platform.training.estimators import load
from ml_platform.training.feature_record import write_record
from ml_platform.training.steps import read_set
from ml_platform.training.training_set import PART, TRAIN

_WAIT = timedelta(seconds=20)
_FIRST = "1"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of one version.

    asked: questions until its end. touched: of them answered by it. failed: that it could not answer and the champion
    did. after: platform time from its beginning to its end.
    """

    challenger: Challenger
    end: Rollout
    asked: int
    touched: int
    failed: int
    after: timedelta

    @property
    def right(self) -> bool:
        """A good one is promoted, any other one stopped."""
        return self.end.phase == ("won" if self.challenger.good else "rolled_back")


def drill(
    base: Profile, service: Service, days: int, chosen: Sequence[Challenger], pages: Path, echo: Callable[[str], object]
) -> list[Told]:
    """Ship each version over the champion of the state folder ``base``, which is only read.

    pages: where each rollout's page is put.

    Raises:
        DeclarationError: the service has no rollout policy.
        MissingHistory: too few days were served.
    """
    project = load_project(base.project)
    policy = policy_of(project, service.name)
    if policy is None:
        raise DeclarationError(f"service {service.name} has no rollout policy, so nothing could be rolled back")
    with stage(base, project, service, days) as stood:
        echo(f"days {stood.days[0]} to {stood.days[-1]}, champion and {len(chosen)} versions are made ready")
        made = _register(stood, base, chosen)
        told = []
        for challenger, version in made.items():
            one = _play(stood, challenger, version, pages)
            told.append(one)
            echo(line_of(one))
    return told


def line_of(one: Told) -> str:
    """In a line."""
    where = one.end.phase.replace("_", " ")
    return (
        f"  {one.challenger.name:14} {'' if one.right else 'WRONGLY '}{where} after {one.asked:,} questions "
        f"({one.after / timedelta(hours=1):.0f} h); answered {one.touched} of them, failed {one.failed} unseen by "
        f"callers: {one.end.reason}"
    )


def _register(stood: Stage, base: Profile, chosen: Sequence[Challenger]) -> dict[Challenger, str]:
    """The champion of the real registry as version 1 of the stage's, the others behind it."""
    spec = stood.project.models[stood.service.model]
    real, any_play = Tracking(base.mlflow_uri, base.mlflow_artifacts), stood.play("registering")
    tracking = Tracking(any_play.mlflow_uri, any_play.mlflow_artifacts)
    views, found = stood.project.views_of(spec), {}
    with tempfile.TemporaryDirectory() as folder:
        files = real.download(real.champion(spec.name), Path(folder))
        champion = load(files)
        first = tracking.register(
            spec.name, files, estimator=champion.estimator, run_name="champion", parameters={}, metrics={}, tags={}
        )
        tracking.promote(spec.name, first.version)
        rows = read_set(stood.lake, spec).filter(pl.col(PART) == TRAIN)
        ready = Base(spec=spec, rows=rows, champion=champion, threads=os.cpu_count() or 1)
        for challenger in chosen:
            model = challenger.make(ready)
            draft = model.save(Path(folder) / challenger.name.replace(" ", "_"))
            write_record(draft, views)
            version = tracking.register(
                spec.name,
                draft,
                estimator=model.estimator,
                run_name=challenger.name,
                parameters={},
                metrics={},
                tags={},
            )
            found[challenger] = str(version.version)
    return found


def _play(stood: Stage, challenger: Challenger, version: str, pages: Path) -> Told:
    profile = stood.play(challenger.name.replace(" ", "_"))
    ledger, clock = Ledger(profile.ledger_path), Clock(profile.clock_path)
    tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
    begin = day_start(stood.days[0], stood.project.timezone)
    clock.set(begin)
    _tell(ledger, stood.service.model, version, begin)
    way = Way.of(stood.project, stood.service.name, profile)
    assert way is not None, "there is a policy"
    deploy(stood.service, tracking, ledger, begin, way=way)
    with running(replace(profile, keys="open"), stood.service.name) as process:
        end = _until_ended(stood, profile, Client(process.url), open_referee(profile, stood.service.name), clock)
    deploy(stood.service, tracking, ledger, clock.now(), way=way)
    tracking.promote(stood.service.model, int(_FIRST))  # for the next one
    pages.mkdir(parents=True, exist_ok=True)
    _, page = shown(way.policy, end, way.file, profile.reports_path)
    shutil.copy(page, pages / f"drill-{challenger.name.replace(' ', '-')}.html")
    log = PredictionLog(profile.log_path).predictions(stood.service.name)
    asked = log.filter(pl.col("asked_at") < end.since)
    return Told(
        challenger=challenger,
        end=end,
        asked=asked.height,
        touched=log.filter(pl.col("variant") == "canary").height,
        failed=log.filter(pl.col("variant") == "fallback").height,
        after=end.since - end.begun,
    )


def _tell(ledger: Ledger, model: str, version: str, at: datetime) -> None:
    """As if the champion had been promoted and the version had passed the gate."""
    first = {"alias": "champion", "version": _FIRST, "before": None, "reason": "the drill's champion", "gate": None}
    ledger.write(PROMOTION, model, f"v{_FIRST}", at - HOUR, {**first, "approval": None})
    passed = {"version": version, "state": "pass", "reason": "the drill leaves the gate out", "champion": _FIRST}
    ledger.write(GATE, model, f"v{version}", at, {**passed, "measures": {}})


def _until_ended(stood: Stage, profile: Profile, client: Client, referee: Referee, clock: Clock) -> Rollout:
    """Hour by hour, as the main job; the referee looks after each."""
    ingestor, delivered = Ingestor.open(profile), Delivered()
    log = PredictionLog(profile.log_path)
    begin = day_start(stood.days[0], stood.project.timezone)
    _await(client, referee)
    with closing(Hours(stood.project, stood.service, stood.lake, log, ingestor, delivered)) as hours:
        for before in _hours(stood):
            now = before + HOUR
            hours.ingest(before, now)
            clock.set(now)
            hours.deliver(client, before, now, begin).wait()
            _close_day(stood, profile, before, now)
            referee.look(now)
            if not _stands(referee).runs:
                break
            _await(client, referee)
    return _stands(referee)


def _stands(referee: Referee) -> Rollout:
    found = referee.file.read()
    assert found is not None, "the deployment began it"
    return found


def _hours(stood: Stage) -> Iterator[datetime]:
    begin = day_start(stood.days[0], stood.project.timezone)
    end = day_start(stood.days[-1] + timedelta(days=1), stood.project.timezone)
    while begin < end:
        yield begin
        begin += HOUR


def _close_day(stood: Stage, profile: Profile, before: datetime, now: datetime) -> None:
    """What the day's assets do for the windows."""
    timezone = stood.project.timezone
    day = day_of(before, timezone)
    if day_of(now, timezone) == day:
        return
    tiles = tile_store(None, profile.live_path, stood.project.name)
    for view in stood.project.feature_views_of(stood.project.models[stood.service.model]):
        follow_days(view, stood.project, stood.lake, tiles, [day], now)


def _await(client: Client, referee: Referee) -> None:
    stands, deadline = _stands(referee), time.monotonic() + _WAIT.total_seconds()
    while client.model()["rollout"] != stands.change:
        if time.monotonic() > deadline:
            raise ServiceError(f"the drill's service does not answer as its rollout stands ({stands.phase})")
        time.sleep(0.05)


@click.command()
@click.argument("service", required=False)
@click.option("--days", default=8, show_default=True, help="So many of the days that were served last are played.")
@click.option("--only", multiple=True, type=click.Choice([each.name for each in ALL]), help="Not all versions.")
def rollback(service: str | None, days: int, only: tuple[str, ...]) -> None:
    """Ship four bad versions and a good one on replayed traffic: when was each stopped, whom did it touch?

    The state folder is only read; exit code 1 if a bad one was not stopped or the good one not promoted.
    """
    profile = Profile.from_environment()
    project: Project = load_project(profile.project)
    name = service or next(iter(project.services))
    chosen = [each for each in ALL if not only or each.name in only]
    told = drill(profile, project.services[name], days, chosen, profile.reports_path, click.echo)
    click.echo(f"pages: {profile.reports_path}/drill-*.html")
    if not all(one.right for one in told):
        raise click.exceptions.Exit(1)
