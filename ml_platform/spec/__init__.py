"""The vocabulary: what can be declared, and the values that pass between stages. No I/O, no Dagster."""

from ml_platform.spec.errors import (
    ContractBroken,
    DeclarationError,
    HomeDamaged,
    HomeLocked,
    MissingHistory,
    ModelRefused,
    NoChampion,
    PlatformError,
    PortInUse,
    RequestRefused,
    SchemaChanged,
    ServiceError,
    SourceError,
    StateError,
    StoreUnavailable,
    TooFewLabels,
    UnknownName,
)
from ml_platform.spec.features import Active, Entity, Feature, FeatureView, Latest, Window
from ml_platform.spec.models import GatePolicy, Label, ModelSpec, Task, blend_of, scikit
from ml_platform.spec.policies import DriftPolicy, RetrainPolicy
from ml_platform.spec.project import Project
from ml_platform.spec.services import Service
from ml_platform.spec.tables import KNOWN_AT, Rule, SourceTable, between, invariant, is_in, not_null, refers_to
from ml_platform.spec.verdict import Verdict

__all__ = [
    "KNOWN_AT",
    "Active",
    "ContractBroken",
    "DeclarationError",
    "DriftPolicy",
    "Entity",
    "Feature",
    "FeatureView",
    "GatePolicy",
    "HomeDamaged",
    "HomeLocked",
    "Label",
    "Latest",
    "MissingHistory",
    "ModelRefused",
    "ModelSpec",
    "NoChampion",
    "PlatformError",
    "PortInUse",
    "Project",
    "RequestRefused",
    "RetrainPolicy",
    "Rule",
    "SchemaChanged",
    "Service",
    "ServiceError",
    "SourceError",
    "SourceTable",
    "StateError",
    "StoreUnavailable",
    "Task",
    "TooFewLabels",
    "UnknownName",
    "Verdict",
    "Window",
    "between",
    "blend_of",
    "invariant",
    "is_in",
    "not_null",
    "refers_to",
    "scikit",
]
