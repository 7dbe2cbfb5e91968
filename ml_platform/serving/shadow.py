"""What the other version would have answered: asked behind the workers, logged, compared and never served."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from ml_platform.features.live import LiveViews
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.answers import Ordered, VectorPlan, score
from ml_platform.serving.champion import Champion, load_champion
from ml_platform.serving.events import Ingestor
from ml_platform.serving.priority import let_others
from ml_platform.serving.traffic import CANARY, CHAMPION
from ml_platform.serving.trial import Fault, tried
from ml_platform.spec import MissingHistory, Project, StoreUnavailable
from ml_platform.spec.calendar import day_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.log_tail import Record
from ml_platform.stores.online import Online
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.prediction_record import Shadowed
from ml_platform.stores.rollout_state import Rollout
from ml_platform.stores.tracking import Tracking


@dataclass
class ShadowScorer:
    """Scores answers of one service by the other version of its rollout, and logs what comes out."""

    project: Project
    service: str
    tracking: Tracking
    ledger: Ledger
    online: Online
    live: LiveViews
    log: PredictionLog
    scratch: Path
    _plans: dict[str, VectorPlan[Champion]] = field(default_factory=dict)

    @classmethod
    def open(cls, profile: Profile, service: str) -> "ShadowScorer":
        """With the stores of the profile."""
        ingestor = Ingestor.open(profile)
        scratch = profile.home / "serving" / service
        scratch.mkdir(parents=True, exist_ok=True)
        return cls(
            project=load_project(profile.project),
            service=service,
            tracking=Tracking(profile.mlflow_uri, profile.mlflow_artifacts),
            ledger=Ledger(profile.ledger_path),
            online=ingestor.online,
            live=ingestor.live,
            log=PredictionLog(profile.log_path),
            scratch=scratch,
        )

    def __call__(self, rollout: Rollout, records: Sequence[Record]) -> list[Record]:
        """One record an answer: who would have answered, and what; ``probability`` is None where it failed.

        Answers of which the features cannot be had any more are left out: that says nothing of the version.
        """
        versions = {CHAMPION: rollout.champion, CANARY: rollout.canary}
        for version in [*self._plans]:
            if version not in versions.values():
                del self._plans[version]
        found: list[Shadowed] = []
        for (other, asked_at, as_of), some in _together(records):
            let_others()
            plan = self._plan(versions[other])
            try:
                vectors = self._vectors(plan, some, asked_at, as_of)
            except (MissingHistory, StoreUnavailable):
                continue
            answers = _answers(plan.champion, vectors)
            for record, (probability, reason) in zip(some, answers, strict=True):
                found.append(
                    Shadowed(
                        prediction_id=record["id"],
                        variant=other,
                        model_version=versions[other],
                        probability=probability,
                        asked_at=asked_at,
                        answered_at=Clock.wall(),
                        reason=reason,
                    )
                )
        for day, each in groupby(found, key=lambda one: day_of(one.asked_at, self.project.timezone)):
            self.log.append_shadows(self.service, day, [*each])
        return [one.record() for one in found]

    def _plan(self, version: str) -> VectorPlan[Champion]:
        if version not in self._plans:
            model = self.project.services[self.service].model
            task, views = self.project.models[model].task, self.project.all_views
            found = self.tracking.version(model, int(version))
            loaded = load_champion(self.tracking, self.ledger, found, task, views, self.scratch)
            self._plans[version] = VectorPlan(loaded, self.online, self.live)
        return self._plans[version]

    def _vectors(
        self, plan: VectorPlan[Champion], records: Sequence[Record], asked_at: datetime, as_of: datetime
    ) -> Sequence[Ordered]:
        """From the log where that holds all inputs: then both versions answer the very same row."""
        champion = plan.champion
        known = set(records[0]["names"])
        if not known.issuperset(champion.feature_names):
            return plan.ordered([record["entities"] for record in records], asked_at, as_of)
        places = [records[0]["names"].index(name) for name in champion.feature_names]
        return [
            (
                *[record["entities"][name] for name in champion.categorical],
                *[record["features"][place] for place in places],
            )
            for record in records
        ]


def _together(records: Sequence[Record]) -> Iterable[tuple[tuple[Any, datetime, datetime], list[Record]]]:
    """Answers that the same version is to be asked about as of the same moment, with the same features logged."""

    def key(record: Record) -> tuple[str, str, str, str]:
        other = CHAMPION if record["variant"] == CANARY else CANARY
        return other, record["asked_at"], record["as_of"], record["version"]

    for (other, asked_at, as_of, _), some in groupby(sorted(records, key=key), key=key):
        yield (other, datetime.fromisoformat(asked_at), datetime.fromisoformat(as_of)), [*some]


def _answers(champion: Champion, vectors: Sequence[Ordered]) -> list[tuple[float | None, str | None]]:
    """A probability a vector, or why there is none; one row's fault is not the others'."""
    found = tried(lambda: score(champion, vectors))
    if not isinstance(found, Fault):
        return [(probability, None) for probability in found]
    if len(vectors) == 1:
        return [(None, found.reason)]
    return [answer for vector in vectors for answer in _answers(champion, [vector])]
