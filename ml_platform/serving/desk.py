"""What answers a request: the open stores and the champion; plain Python, no server."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import groupby

from ml_platform.features.live import LiveViews
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.answers import Ordered, VectorPlan, grid_moment, records, score
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
from ml_platform.serving.choice import choose
from ml_platform.serving.events import Ingestor, rows_of
from ml_platform.serving.requests import (
    Row,
    RowRules,
    check_count,
    check_labels,
    check_moment,
    check_rows,
    plausible,
    refuse_forgotten,
    row_rules,
)
from ml_platform.spec import MissingHistory, ModelSpec, NoChampion, Project, RequestRefused, Service, UnknownName
from ml_platform.spec.calendar import day_of
from ml_platform.stores.forgotten import Forgotten, forgotten_in
from ml_platform.stores.online import Online
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.prediction_record import Prediction
from ml_platform.stores.tracking import Tracking


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of one request that are right by the champion's rules; ``asked_at`` None is now."""

    champion: Champion
    rows: Sequence[Row]
    asked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that one version answers as of one moment, and of each its question's number and its place there."""

    plan: VectorPlan
    asked_at: datetime
    as_of: datetime
    rows: list[Row]
    asked_by: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one question is answered: an id and a probability a row."""

    ids: list[str]
    probabilities: list[float]
    model_version: str


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
        """Look up, score and log before answering."""
        champion = self.champion()
        rows = check_rows(request.rows, self.rules_of(champion))
        questions = [self.question(champion, rows, request.asked_at, now)]
        groups = self.groups(questions, now)
        try:
            vectors = [group.plan.ordered(group.rows, group.asked_at, group.as_of) for group in groups]
        except MissingHistory as error:
            raise RequestRefused(str(error)) from error
        (found,) = self.complete(questions, groups, vectors, now)
        return PredictResponse(
            predictions=[
                Answer(prediction_id=prediction_id, probability=probability)
                for prediction_id, probability in zip(found.ids, found.probabilities, strict=True)
            ],
            model_version=found.model_version,
        )

    def question(self, champion: Champion, rows: Sequence[Row], asked_at: str | None, now: datetime) -> Question:
        """A question about rows that are right by ``rules_of`` the champion.

        Raises:
            RequestRefused: a row names what was forgotten, or ``asked_at`` is no moment that can be asked about.
        """
        refuse_forgotten(rows, self.forgotten)
        moment = None
        if asked_at is not None:
            times = plausible(self.project.starts, self.project.timezone, now)
            moment = check_moment(asked_at, "asked_at", *times)
        return Question(champion, rows, moment)

    def groups(self, questions: Sequence[Question], now: datetime) -> list[Group]:
        """The questions' rows by the version that answers them and the moment that they are asked as of."""
        grid = self.spec.task.grid
        groups: dict[tuple[int, datetime], Group] = {}
        for number, question in enumerate(questions):
            asked_at = question.asked_at or now
            chosen = choose(question.rows, question.champion)
            for place, (row, champion) in enumerate(zip(question.rows, chosen, strict=True)):
                group = groups.get((id(champion), asked_at))
                if group is None:
                    plan, as_of = self._plan(champion), grid_moment(asked_at, grid)
                    group = groups[id(champion), asked_at] = Group(plan, asked_at, as_of, [], [])
                group.rows.append(row)
                group.asked_by.append((number, place))
        return list(groups.values())

    def complete(
        self,
        questions: Sequence[Question],
        groups: Sequence[Group],
        vectors: Sequence[Sequence[Ordered]],
        now: datetime,
    ) -> list[Answered]:
        """Score the groups' rows and log them, all of a local day in one write, before anybody is answered.

        vectors: one a row of each group. ``model_version`` is that of the champion of each question.
        """
        logged: dict[date, list[Prediction]] = {}
        answered = [
            Answered([""] * len(question.rows), [0.0] * len(question.rows), question.champion.version)
            for question in questions
        ]
        for group, found in zip(groups, vectors, strict=True):
            champion, moments = group.plan.champion, (group.asked_at, group.as_of, now)
            answers = records(champion, self.rules.key, group.rows, found, score(champion, found), moments)
            logged.setdefault(day_of(group.asked_at, self.project.timezone), []).extend(answers)
            for (number, place), answer in zip(group.asked_by, answers, strict=True):
                answered[number].ids[place] = answer.prediction_id
                answered[number].probabilities[place] = answer.probability
        for day, answers in logged.items():
            self.log.append_predictions(self.service.name, day, answers)
        return answered

    def rules_of(self, champion: Champion) -> RowRules:
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
