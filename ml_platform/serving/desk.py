"""What answers a request: the open stores and the champion; plain Python, no server."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from itertools import groupby
from time import perf_counter
from typing import Any

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
from ml_platform.serving.champion import Champion, ChampionWatch
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
from ml_platform.serving.traffic import CANARY, FALLBACK, Variant
from ml_platform.serving.trial import Fault, tried
from ml_platform.serving.versions import registry_watch, shipped_watch
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
from ml_platform.stores.prediction_record import Failure, Prediction

logger = logging.getLogger(__name__)
_VERSIONS = 3  # champion, canary, and one that was just exchanged


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of one request that are right by the champion's rules; ``asked_at`` None is now."""

    champion: Champion
    rows: Sequence[Row]
    asked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that one version answers as of one moment, and of each its question's number and its place there."""

    plan: VectorPlan[Champion]
    variant: Variant
    chance: float
    asked_at: datetime
    as_of: datetime
    rows: list[Row]
    asked_by: list[tuple[int, int]]

    @property
    def on_trial(self) -> bool:
        """Whether the version is one whose faults may not touch whoever asks."""
        return self.variant == CANARY

    def alone(self) -> Iterator["Group"]:
        """The same, each row in a group of its own."""
        for row, place in zip(self.rows, self.asked_by, strict=True):
            yield replace(self, rows=[row], asked_by=[place])


@dataclass(frozen=True, slots=True)
class Answered:
    """What one question is answered: an id and a probability a row.

    model_version: of the question's champion. others: of the rows that another version answered (a canary's share), by
    the row's place.
    """

    ids: list[str]
    probabilities: list[float]
    model_version: str
    others: dict[int, str] = field(default_factory=dict)

    def predictions(self) -> list[dict[str, Any]]:
        """As they are sent: with each row's version where that is not the champion's."""
        rows: list[dict[str, Any]] = [
            {"prediction_id": prediction_id, "probability": probability}
            for prediction_id, probability in zip(self.ids, self.probabilities, strict=True)
        ]
        for place, version in self.others.items():
            rows[place]["model_version"] = version
        return rows


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
    plans: list[VectorPlan[Champion]] = field(default_factory=list)  # of the versions that answered last

    @classmethod
    def open(cls, profile: Profile, name: str, *, watched: bool = True) -> "Desk":
        """Open the stores and look for a champion once; there need not be one yet.

        watched: a canary answers only while a referee gives signs of life.

        Raises:
            UnknownName: the project declares no such service.
        """
        project = load_project(profile.project)
        if name not in project.services:
            raise UnknownName("service", name, project.services)
        service = project.services[name]
        spec = project.models[service.model]
        watch = shipped_watch(profile, project, service) or registry_watch(profile, project, service, watched=watched)
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
        rows = check_rows(request.rows, self.rules_of(champion))
        questions = [self.question(champion, rows, request.asked_at, now)]
        groups = self.groups(questions, now)
        try:
            vectors = [self._again(group) for group in groups]
        except WindowsLost:
            raise  # nothing is wrong with the question
        except MissingHistory as error:
            raise RequestRefused(str(error)) from error
        (found,) = self.complete(questions, groups, vectors, now)
        return PredictResponse(
            predictions=[Answer(**row) for row in found.predictions()],
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
            chosen = choose(question.rows, question.champion, self.watch.serving)
            for place, (row, (champion, variant, chance)) in enumerate(zip(question.rows, chosen, strict=True)):
                group = groups.get((id(champion), asked_at))
                if group is None:
                    plan, as_of = self._plan(champion), grid_moment(asked_at, grid)
                    group = Group(plan, variant, chance, asked_at, as_of, [], [])
                    groups[id(champion), asked_at] = group
                group.rows.append(row)
                group.asked_by.append((number, place))
        return list(groups.values())

    def read(self, group: Group, read: Callable[[], list[Ordered]]) -> list[Ordered] | Fault:
        """The group's vectors; of a version on trial also why there are none."""
        return tried(read) if group.on_trial else read()

    def complete(
        self,
        questions: Sequence[Question],
        groups: Sequence[Group],
        vectors: Sequence[Sequence[Ordered] | Fault],
        now: datetime,
    ) -> list[Answered]:
        """Score the groups' rows and log them, all of a local day in one write, before anybody is answered.

        What a canary cannot answer is logged as its failure, and answered by the champion.

        vectors: one a row of each group.
        """
        logged: dict[date, list[Prediction]] = {}
        failed: dict[date, list[Failure]] = {}
        answered = [
            Answered([""] * len(question.rows), [0.0] * len(question.rows), question.champion.version)
            for question in questions
        ]
        for group, found in zip(groups, vectors, strict=True):
            answers, failures = self._answers(group, found, questions, now)
            day = day_of(group.asked_at, self.project.timezone)
            logged.setdefault(day, []).extend(answers)
            if failures:
                failed.setdefault(day, []).extend(failures)
            for (number, place), answer in zip(group.asked_by, answers, strict=True):
                answered[number].ids[place] = answer.prediction_id
                answered[number].probabilities[place] = answer.probability
                if answer.model_version != answered[number].model_version:
                    answered[number].others[place] = answer.model_version
        for day, failures in failed.items():
            self.log.append_failures(self.service.name, day, failures)
        for day, answers in logged.items():
            self.log.append_predictions(self.service.name, day, answers)
        return answered

    def _answers(
        self, group: Group, found: Sequence[Ordered] | Fault, questions: Sequence[Question], now: datetime
    ) -> tuple[list[Prediction], list[Failure]]:
        if not group.on_trial:
            assert not isinstance(found, Fault), "only a version on trial is excused"
            return self._scored(group, found, now), []
        answers = found if isinstance(found, Fault) else tried(partial(self._scored, group, found, now))
        if not isinstance(answers, Fault):
            return answers, []
        if len(group.rows) > 1:  # one row's fault is not the others'
            apart = [self._answers(one, self._again(one), questions, now) for one in group.alone()]
            return [a for given, _ in apart for a in given], [f for _, failures in apart for f in failures]
        return self._instead(group, answers, questions[group.asked_by[0][0]].champion, now)

    def _again(self, group: Group) -> list[Ordered] | Fault:
        return self.read(group, lambda: group.plan.ordered(group.rows, group.asked_at, group.as_of))

    def _instead(
        self, group: Group, fault: Fault, champion: Champion, now: datetime
    ) -> tuple[list[Prediction], list[Failure]]:
        """The champion's answer to what the canary failed at."""
        version = group.plan.champion
        logger.warning("canary version %s failed and the champion answered: %s", version.version, fault.reason)
        failure = Failure(
            prediction_id=str(group.rows[0][self.rules.key]),
            model=version.name,
            model_version=version.version,
            asked_at=group.asked_at,
            answered_at=now,
            entities=group.rows[0],
            variant=group.variant,
            chance=group.chance,
            reason=fault.reason,
        )
        instead = replace(group, plan=self._plan(champion), variant=FALLBACK, chance=group.chance)
        vectors = instead.plan.ordered(instead.rows, instead.asked_at, instead.as_of)
        return self._scored(instead, vectors, now), [failure]

    def _scored(self, group: Group, vectors: Sequence[Ordered], now: datetime) -> list[Prediction]:
        """While there is a canary the first row is scored alone and timed: versions are asked more or less together."""
        champion, seconds = group.plan.champion, None
        serving = self.watch.serving
        if serving is None or serving.canary is None:
            probabilities = score(champion, vectors)
        else:
            began = perf_counter()
            probabilities = score(champion, vectors[:1])
            seconds = perf_counter() - began
            if len(vectors) > 1:
                probabilities += score(champion, vectors[1:])
        moments = (group.asked_at, group.as_of, now)
        part = (group.variant, group.chance, seconds)
        return records(champion, self.rules.key, group.rows, vectors, probabilities, moments, part)

    def rules_of(self, champion: Champion) -> RowRules:
        """As declared today; and a champion of before may still read what no view of its model asks for any more."""
        fields = champion.computed.fields if champion.computed else {}
        if fields.keys() <= self.rules.types.keys():
            return self.rules
        return replace(self.rules, types={**self.rules.types, **fields})

    def _plan(self, champion: Champion) -> VectorPlan[Champion]:
        for plan in self.plans:
            if plan.champion is champion:
                return plan
        plan = VectorPlan(champion, self.online, self.live)
        self.plans[:] = [plan, *self.plans[: _VERSIONS - 1]]
        return plan

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
        champion, serving = self.champion(), self.watch.serving
        canary = serving.canary if serving else None
        return ModelResponse(
            name=champion.name,
            version=champion.version,
            loaded_at=champion.loaded_at.isoformat(),
            inputs=list(champion.inputs),
            refused=self.watch.refused,
            canary=canary.version if canary else None,
            share=serving.split.share if serving and canary else 0.0,
            rollout=serving.change if serving else 0,
        )
