"""The main job: bootstrap, serve, and replay real days through the running service."""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.runs import abandon_runs
from ml_platform.automation.ticks import RunReport, materialize_range, tick
from ml_platform.definitions import house
from ml_platform.features.follow import Delivered
from ml_platform.monitoring.telling import tell_people
from ml_platform.replay.hours import HOUR, Delivery, Hours
from ml_platform.replay.state import ReplayState, bootstrapped_paths, state_path
from ml_platform.replay.summary import Summary, summarize
from ml_platform.resources.bound import bound
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving import garbage
from ml_platform.serving.client import Client
from ml_platform.serving.events import Ingestor
from ml_platform.serving.process import running
from ml_platform.serving.referee import Referee
from ml_platform.serving.referee_process import open_referee
from ml_platform.serving.rollout_files import policy_of
from ml_platform.spec import NoChampion, PlatformError, Project, Service, ServiceError
from ml_platform.spec.calendar import STARTS_AFTER_MIDNIGHT, day_of, day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import FAILURE
from ml_platform.stores.tracking import quiet_mlflow

# "Just after midnight": the day's partition is closed at midnight itself.
AFTER_MIDNIGHT = timedelta(minutes=1)
_SWAP_WITHIN_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the display shows: where the replay is and what it did since it was started."""

    doing: str
    now: datetime
    last: datetime
    predictions: int = 0
    labels: int = 0
    requested: int = 0
    summary: Summary | None = None


@dataclass
class _Work:
    """What the hours work with; ``sent`` is the hour that is on its way."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    client: Client
    hours: Hours
    referee: Referee | None = None
    sent: Delivery | None = None


Listener = Callable[[Progress], None]


class Replay:
    """One state folder's replay; ``run`` goes on where the folder says it stands."""

    def __init__(self, profile: Profile, listener: Listener) -> None:
        """Nothing is read or made before ``run``."""
        self.profile = profile
        self.project: Project = load_project(profile.project)
        self.service: Service = _only_service(self.project)
        self.listener = listener
        self.clock = Clock(profile.clock_path)
        self.stores = bound(profile, self.project)
        self._ledger = Ledger(profile.ledger_path)
        self._path = state_path(profile.home)
        self._progress = Progress(doing="starting", now=self._starts, last=self._starts)

    @property
    def _starts(self) -> datetime:
        return day_start(self.project.serves_from, self.project.timezone) + STARTS_AFTER_MIDNIGHT

    def run(self, until: date) -> Summary:
        """Replay up to the end of the local day ``until``; returns what the record says about all days so far.

        Raises:
            PlatformError: the folder cannot be used, a day lies outside the data, or the bootstrap failed.
        """
        self._check(until)
        home = Home(self.profile.home)
        home.prepare(self.profile.project)
        with home.locked("run"):
            state = self._begun()
            write_dagster_yaml(self.profile.dagster_home, replayed=True)
            with open_instance(self.profile.dagster_home) as instance:
                abandon_runs(instance)
                if state.completed is None:
                    state = self._bootstrap(instance, state)
                end = day_start(until + timedelta(days=1), self.project.timezone)
                if state.completed is not None and state.completed < end:
                    state = self._replay(instance, state, end)
            return summarize(self.profile, self.project, self.service, state)

    def _begun(self) -> ReplayState:
        """Where the folder stands. A bootstrap that did not end begins again with nothing, if it began with nothing.

        A kill leaves halves that nobody mends: MLflow takes seconds to make its database.
        """
        state = ReplayState.load(self._path)
        if state is not None and state.completed is not None:
            return state
        mine = bootstrapped_paths(self.profile)
        if state is not None:
            for path in mine:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        fresh = ReplayState(started=self._starts)
        if mine and not any(path.exists() for path in mine):
            fresh.save(self._path)
        return fresh

    def _check(self, until: date) -> None:
        last = self.project.ends or until
        if not self.project.serves_from <= until <= last:
            raise PlatformError(
                f"the replay of {self.project.name} can go on until a day from {self.project.serves_from} to {last}; "
                f"{until} is outside: choose another --until"
            )
        midnight = day_start(until, self.project.timezone)
        if midnight.minute:
            raise PlatformError(
                f"a replay goes by full hours of UTC, but midnight in {self.project.timezone} is at {midnight:%H:%M}; "
                f"declare the project in a timezone whose days begin on a full hour"
            )

    def _bootstrap(self, instance: dg.DagsterInstance, state: ReplayState) -> ReplayState:
        """Everything up to the day before serving, in one run over the range of days, and the first model."""
        began = time.perf_counter()
        self.clock.set(state.started)
        definitions = house(self.profile, clamp=False)
        keys = bootstrapped(definitions.resolve_asset_graph(), self.project)
        self._tell(doing="bootstrap: raw tables, features, first model", now=state.started, last=state.started)
        last = self.project.serves_from - timedelta(days=1)
        reports = materialize_range(
            definitions, instance, keys, self.project.starts, last, at=state.started, on_run=self._ran
        )
        failures = [failure for report in reports for failure in report.failures]
        if failures:
            raise PlatformError(
                f"the bootstrap failed in {failures[0].step}: {failures[0].message}\nMend the cause and run the same "
                f"command again."
            )
        work = sum(report.work_seconds for report in reports)
        spent = time.perf_counter() - began
        state = replace(
            state,
            completed=state.started,
            work_seconds=work,
            orchestration_seconds=sum(report.seconds for report in reports) - work,
            seconds=spent,
        )
        state.save(self._path)
        return state

    def _replay(self, instance: dg.DagsterInstance, state: ReplayState, end: datetime) -> ReplayState:
        """Hour by hour; an hour is complete, and saved as such, once all its questions are answered."""
        delivered = Delivered()
        definitions = house(self.profile, clamp=False, delivered=delivered)
        lake, log = (self.stores[name] for name in ("lake", "prediction_log"))
        hours = Hours(self.project, self.service, lake, log, Ingestor.open(self.profile), delivered)  # type: ignore[arg-type]
        # Seconds of imports, while the service does its own; what needs MLflow waits for them.
        threading.Thread(target=quiet_mlflow, daemon=True).start()
        ships = policy_of(self.project, self.service.name) is not None
        own = replace(self.profile, keys="open")  # on loopback, for this replay alone
        with running(own, self.service.name) as process, closing(hours):
            work = _Work(
                definitions=definitions,
                instance=instance,
                client=Client(process.url),
                hours=hours,
                referee=open_referee(self.profile, self.service.name) if ships else None,
            )
            self._await_champion(work.client)
            garbage.settle()
            assert state.completed is not None
            before = state.completed
            self._tell(last=end)
            while before < end:
                now = before + HOUR
                began = time.perf_counter()
                state = self._hour(work, state, before, now)
                state = replace(state, seconds=state.seconds + time.perf_counter() - began)
                before = now
            return self._arrive(work, replace(state, completed=end))

    def _hour(self, work: "_Work", state: ReplayState, before: datetime, now: datetime) -> ReplayState:
        """Everything of (before, now], in the order of time; it is on its way when this returns, but for a midnight's.

        The day that ends is judged when all its questions are answered.
        """
        work.hours.ingest(before, now)  # while the hour before is being answered
        state = self._arrive(work, replace(state, completed=before))
        self._judge_rollout(work, before)
        self.clock.set(now)
        work.sent = work.hours.deliver(work.client, before, now, state.started)
        if _is_midnight(now, self.project.timezone):
            state = self._day(work, self._arrive(work, state), now)
        self._tell(doing="replaying", now=now)
        return state

    def _arrive(self, work: "_Work", state: ReplayState) -> ReplayState:
        """Wait until what was sent is answered, and save how far that is."""
        if work.sent:
            asked, learned = work.sent.wait()
            work.sent = None
            self._tell(predictions=self._progress.predictions + asked, labels=self._progress.labels + learned)
        state.save(self._path)
        return state

    def _day(self, work: "_Work", state: ReplayState, now: datetime) -> ReplayState:
        """Evaluate the conditions and make what they ask for; the cursor is saved after the runs."""
        self._tell(doing="evaluating conditions", now=now)
        result = tick(work.definitions, work.instance, now + AFTER_MIDNIGHT, state.cursor, on_run=self._ran)
        inside = sum(run.work_seconds for run in result.runs)
        state = replace(
            state,
            cursor=result.cursor,
            work_seconds=state.work_seconds + inside,
            orchestration_seconds=state.orchestration_seconds + result.evaluation_seconds + result.run_seconds - inside,
        )
        state.save(self._path)
        tell_people(self.profile, self.project)
        self._await_champion(work.client)
        self._await_rollout(work)
        summary = summarize(self.profile, self.project, self.service, state)
        self._tell(requested=self._progress.requested + len(result.requested), summary=summary)
        return state

    def _judge_rollout(self, work: "_Work", now: datetime) -> None:
        """As the referee beside a service does all the time: here by the hour, of replayed time, so that a replay that
        was killed goes on as one that was not."""
        if work.referee is not None:
            work.referee.look(now)
            self._await_rollout(work)

    def _await_rollout(self, work: "_Work") -> None:
        """Wait until the service answers as the rollout stands."""
        if work.referee is None or (stands := work.referee.file.read()) is None:
            return
        deadline = time.monotonic() + _SWAP_WITHIN_SECONDS
        while work.client.model()["rollout"] != stands.change:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the service {self.service.name} does not answer as its rollout stands ({stands.phase}, "
                    f"{stands.share:.0%}) after {_SWAP_WITHIN_SECONDS} s; its log is "
                    f"{self.profile.log_path}/service-{self.service.name}.txt"
                )
            time.sleep(0.05)

    def _await_champion(self, client: Client) -> None:
        """Wait until the service serves the registry's champion, so that the next hour is answered by it."""
        tracking = self.stores["tracking"]
        wanted = str(tracking.champion_version(self.service.model))  # type: ignore[attr-defined]
        deadline = time.monotonic() + _SWAP_WITHIN_SECONDS
        served = None
        while time.monotonic() < deadline:
            try:
                served = str(client.model()["version"])
            except ServiceError as error:
                served = str(error)
            if served == wanted:
                return
            time.sleep(0.1)
        raise NoChampion(
            f"the service {self.service.name} does not serve version {wanted} of {self.service.model} after "
            f"{_SWAP_WITHIN_SECONDS} s ({served}); its log is {self.profile.log_path}/service-{self.service.name}.txt"
        )

    def _ran(self, report: RunReport) -> None:
        for failure in report.failures:
            reason = words_of(failure.message, report.run_id)
            body = {"step": failure.step, "partition": report.partition, "reason": reason}
            self._ledger.write(FAILURE, self.project.name, f"{report.run_id}/{failure.step}", self.clock.now(), body)
        shown = ", ".join(key.to_user_string() for key in report.keys[:3])
        self._tell(doing=f"{shown}{' ...' if len(report.keys) > 3 else ''}")

    def _tell(self, **changes: object) -> None:
        self._progress = replace(self._progress, **changes)  # type: ignore[arg-type]
        self.listener(self._progress)


def words_of(message: str, run_id: str) -> str:
    """What the ledger keeps of an error: others than the platform's own may show values of rows."""
    name, _, _ = message.partition(":")
    return message if name.startswith("ml_platform.") else f"{name}; its words stand in Dagster's log of run {run_id}"


# What the running service writes has no history before it; pages for people are made when there is something to show.
NOT_BOOTSTRAPPED = ("batch_predictions", "decisions", "drift_reports", "rollouts")
OF_MODELS = ("training_sets", "models", "evaluations")


def bootstrapped(graph: BaseAssetGraph[Any], project: Project) -> list[dg.AssetKey]:
    """What the graph makes by itself, and the registry that it is told of.

    Of the models those that are served or that a policy trains. The others, and what has no condition (studies,
    contests, ablations), are made when somebody asks for them.
    """
    served = {service.model for service in project.services.values()}

    def wanted(key: dg.AssetKey) -> bool:
        family, name = key.path[0], key.path[-1]
        if family in OF_MODELS:
            return name in served or project.models[name].policy is not None
        by_itself = graph.get(key).automation_condition is not None
        return key == asset_keys.feature_registry() or (by_itself and family not in NOT_BOOTSTRAPPED)

    return [key for key in graph.materializable_asset_keys if wanted(key)]


def _only_service(project: Project) -> Service:
    if len(project.services) != 1:
        raise PlatformError(
            f"a replay drives one service; {project.name} declares {len(project.services)}: "
            f"{', '.join(project.services)}"
        )
    return next(iter(project.services.values()))


def _is_midnight(moment: datetime, timezone: str) -> bool:
    return day_start(day_of(moment, timezone), timezone) == moment
