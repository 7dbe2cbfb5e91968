"""What answers a request: the open stores and the champion; plain Python, no server."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby

from ml_platform.features.live import LiveViews
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.answers import VectorPlan, grid_moment, records, score
from ml_platform.serving.bodies import (
    Answer,
    AsideRow,
    EventsRequest,
    EventsResponse,
    LabelRequest,
    LabelResponse,
    ModelResponse,
    PredictRequest,
    PredictResponse,
)
from ml_platform.serving.champion import Champion, ChampionWatch, load_champion, registry_errors
from ml_platform.serving.events import Ingestor, rows_of
from ml_platform.serving.requests import (
    RowRules,
    check_count,
    check_labels,
    check_moment,
    check_rows,
    plausible,
    refuse_forgotten,
    row_rules,
)
from ml_platform.spec import (
    MissingHistory,
    ModelSpec,
    NoChampion,
    Project,
    RequestRefused,
    Service,
    UnknownName,
    WindowsLost,
)
from ml_platform.spec.calendar import day_of
from ml_platform.stores.forgotten import Forgotten, forgotten_in
from ml_platform.stores.online import Online
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that a request needs, opened once."""

    project: Project
    service: Service
    spec: ModelSpec
    rules: RowRules
    online: Online
    live: LiveViews
    ingestor: Ingestor
    log: PredictionLog
    watch: ChampionWatch
    forgotten: Forgotten
    plans: list[VectorPlan] = field(default_factory=list)  # the one of the champion that answered last

    @classmethod
    def open(cls, profile: Profile, name: str) -> "Desk":
        """Open the stores and look for a champion once; there need not be one yet.

        Raises:
            UnknownName: the project declares no such service.
        """
        project = load_project(profile.project)
        if name not in project.services:
            raise UnknownName("service", name, project.services)
        service = project.services[name]
        spec = project.models[service.model]
        tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
        scratch = profile.home / "serving" / name
        scratch.mkdir(parents=True, exist_ok=True)
        watch = ChampionWatch(
            find=lambda: tracking.champion(spec.name),
            load=lambda version: load_champion(tracking, version, spec.task, project.all_views, scratch),
            passing=registry_errors(),
        )
        watch.look()
        ingestor = Ingestor.open(profile)
        return cls(
            project=project,
            service=service,
            spec=spec,
            rules=row_rules(spec.task, project.views_of(spec), service.max_rows),
            online=ingestor.online,
            live=ingestor.live,
            ingestor=ingestor,
            log=PredictionLog(profile.log_path),
            watch=watch,
            forgotten=forgotten_in(profile.home),
        )

    def champion(self) -> Champion:
        """The model that answers now.

        Raises:
            NoChampion: none was loaded yet.
        """
        current = self.watch.current
        if current is None:
            raise NoChampion(
                f"service {self.service.name} has no champion of {self.spec.name} to answer with "
                f"({self.watch.absent}); it will pick one up as soon as the registry has one"
            )
        return current

    def predict(self, request: PredictRequest, now: datetime) -> PredictResponse:
        """Look up, score and log before answering.

        Raises:
            RequestRefused: what is asked cannot be answered.
            WindowsLost: the store of live windows lost events that the answer depends on.
        """
        champion = self.champion()
        rows = check_rows(request.rows, self._rules(champion))
        refuse_forgotten(rows, self.forgotten)
        asked_at = now
        if request.asked_at is not None:
            times = plausible(self.project.starts, self.project.timezone, now)
            asked_at = check_moment(request.asked_at, "asked_at", *times)
        as_of = grid_moment(asked_at, self.spec.task.grid)
        try:
            vectors = self._plan(champion).read(rows, asked_at, as_of)
        except WindowsLost:
            raise  # nothing is wrong with the question
        except MissingHistory as error:
            raise RequestRefused(str(error)) from error
        probabilities = score(champion, vectors)
        moments = (asked_at, as_of, now)
        answers = records(champion, self.rules.key, rows, vectors, probabilities, moments)
        self.log.append_predictions(self.service.name, day_of(asked_at, self.project.timezone), answers)
        return PredictResponse(
            predictions=[Answer(prediction_id=a.prediction_id, probability=a.probability) for a in answers],
            model_version=champion.version,
        )

    def _rules(self, champion: Champion) -> RowRules:
        """As declared today; and a champion of before may still read what no view of its model asks for any more."""
        fields = champion.computed.fields if champion.computed else {}
        if fields.keys() <= self.rules.types.keys():
            return self.rules
        return replace(self.rules, types={**self.rules.types, **fields})

    def _plan(self, champion: Champion) -> VectorPlan:
        if not self.plans or self.plans[-1].champion is not champion:
            self.plans[:] = [VectorPlan(champion, self.online, self.live)]
        return self.plans[-1]

    def ingest(self, request: EventsRequest, now: datetime) -> EventsResponse:
        """Apply events of raw tables to the online features; all of them are read before any is applied.

        Raises:
            UnknownName: no such table of events.
            RequestRefused: too many rows, or one that is no row of its table; nothing was applied.
        """
        times = plausible(self.project.starts, self.project.timezone, now)
        check_count("events", sum(map(len, request.events.values())), self.service.max_rows)
        frames = {name: rows_of(self.ingestor.table(name), rows, times) for name, rows in request.events.items()}
        found = {name: self.ingestor.apply(name, rows) for name, rows in frames.items()}
        aside = [AsideRow(table=name, row=a.row, reason=a.reason) for name, bad in found.items() for a in bad]
        return EventsResponse(accepted=sum(map(len, frames.values())) - len(aside), set_aside=aside)

    def label(self, request: LabelRequest, now: datetime) -> LabelResponse:
        """Log truths under the local day on which they became known, but for those about what was forgotten."""
        times = plausible(self.project.starts, self.project.timezone, now)
        facts = [(label.prediction_id, label.value, label.known_at) for label in request.labels]
        truths = check_labels(facts, *times, self.service.max_rows)
        truths = [truth for truth in truths if not self.forgotten.holds(self.rules.key, truth.prediction_id)]
        truths.sort(key=lambda truth: truth.known_at)
        for day, known in groupby(truths, key=lambda truth: day_of(truth.known_at, self.project.timezone)):
            self.log.append_labels(self.service.name, day, list(known))
        return LabelResponse(accepted=len(truths))

    def model(self) -> ModelResponse:
        """What answers now."""
        champion = self.champion()
        return ModelResponse(
            name=champion.name,
            version=champion.version,
            loaded_at=champion.loaded_at.isoformat(),
            inputs=list(champion.inputs),
            refused=self.watch.refused,
        )
