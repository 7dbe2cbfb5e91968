"""A project: an importable package of declarations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from ml_platform.spec.features import FeatureView
from ml_platform.spec.models import ModelSpec
from ml_platform.spec.policies import DriftPolicy, RetrainPolicy
from ml_platform.spec.request_views import RequestView, View
from ml_platform.spec.rollouts import RolloutPolicy
from ml_platform.spec.services import Service
from ml_platform.spec.tables import SourceTable


@dataclass(frozen=True, kw_only=True)
class Project:
    """What the package's ``__init__`` declares as ``project``; the rest is found in its folders.

    features: the importable package that holds the Feast repository (``views/`` with one file a view).
    starts, ends: first and last day of data in ``timezone``; ``ends`` is ``None`` for a live source.
    ready_from: first day whose features have enough history to train on.
    serves_from: the day the replay's clock starts, once the model was bootstrapped on all days before it.
    replay_until: the last day that a replay covers unless asked for another.
    """

    name: str
    features: str
    timezone: str
    starts: date
    ready_from: date
    serves_from: date
    replay_until: date
    ends: date | None = None
    description: str = ""
    tables: Mapping[str, SourceTable] = field(default_factory=dict)
    views: Mapping[str, FeatureView] = field(default_factory=dict)
    request_views: Mapping[str, RequestView] = field(default_factory=dict)
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    retrain_policies: Mapping[str, RetrainPolicy] = field(default_factory=dict)
    drift_policies: Mapping[str, DriftPolicy] = field(default_factory=dict)
    rollout_policies: Mapping[str, RolloutPolicy] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)

    @property
    def all_views(self) -> dict[str, View]:
        """What a model may name in its views: the stored ones and those computed when asked."""
        return {**self.views, **self.request_views}

    def challengers_of(self, spec: ModelSpec) -> tuple[ModelSpec, ...]:
        """The models that compete for its place."""
        return tuple(other for other in self.models.values() if other.challenges == spec.name)

    def views_of(self, spec: ModelSpec) -> list[View]:
        """The model's views, in its order."""
        return [self.all_views[name] for name in spec.views]

    def feature_views_of(self, spec: ModelSpec) -> list[FeatureView]:
        """Those of the model's views that are computed from raw tables."""
        return [self.views[name] for name in spec.views if name in self.views]

    def request_views_of(self, spec: ModelSpec) -> list[RequestView]:
        """Those of the model's views that are computed when asked."""
        return [self.request_views[name] for name in spec.views if name in self.request_views]
