"""What the platform tells about itself as numbers: names, labels and meanings of all metrics of its exporter."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

PREFIX = "ml_platform_"
STATES = ("pass", "warn", "fail", "unknown")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """help: what it says, with its unit. labels: in order. kind: a counter never falls, also not over restarts."""

    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


# Times are seconds since 1970 of the platform's clock, which is the world's unless time is replayed.
METRICS: Mapping[str, Metric] = {
    "info": Metric(help="The project, and where Dagster's UI is.", labels=("project", "dagster")),
    "clock_timestamp_seconds": Metric(help="The platform's present."),
    "clock_replayed": Metric(help="Whether time is replayed."),
    "read_failed": Metric(help="Whether a part of the state could not be read.", labels=("part",)),
    "read_seconds": Metric(help="Seconds that reading a part took.", labels=("part",)),
    # Tables
    "table_newest_timestamp_seconds": Metric(help="End of the newest day that a table holds.", labels=("asset",)),
    "table_fresh_within_seconds": Metric(help="How old that may be.", labels=("asset",)),
    # Checks and deadlines as Dagster recorded them
    "check_state": Metric(help="1 for the state of a check's newest result.", labels=("asset", "check", "state")),
    "freshness_state": Metric(help="1 for the state of an asset's deadline.", labels=("asset", "state")),
    # Incidents
    "incident_open": Metric(
        help="1 while an incident lasts, 0 once it is over.",
        labels=("incident", "service", "kind", "asset", "place", "severity"),
    ),
    "incident_told": Metric(
        help="What it is; the value is the end of the newest day that said so.", labels=("incident", "sentence", "link")
    ),
    "incidents": Metric(
        help="Incidents that began since the platform serves.", labels=("service", "kind", "severity"), kind="counter"
    ),
    # Drift and performance
    "drift_distance": Metric(
        help="How far a feature's newest day is from its reference.", labels=("policy", "feature", "of")
    ),
    "drift_threshold": Metric(help="From which distance on it fails.", labels=("policy", "feature", "of")),
    "log_loss": Metric(help="Log-loss of the last 7 days of answers with labels.", labels=("service", "version")),
    "label_maturity": Metric(
        help="Share of the truths that arrived, of answers that are so many days old.", labels=("service", "age_days")
    ),
    "day_answers": Metric(help="Answers on the newest day.", labels=("service",)),
    "skew_values_compared": Metric(help="Served values recomputed at the newest look.", labels=("service",)),
    "skew_values_differing": Metric(help="Of these, those that differ.", labels=("service",)),
    # Decisions
    "decision_timestamp_seconds": Metric(
        help="When it was last decided whether to retrain.", labels=("policy", "model")
    ),
    "decision_answer": Metric(help="1 for the last answer.", labels=("policy", "answer")),
    "decisions": Metric(help="Decisions by their answer.", labels=("policy", "answer"), kind="counter"),
    "decision_measure": Metric(help="The numbers behind the last decision.", labels=("policy", "measure")),
    "decision_held": Metric(
        help="Whether that holds a retraining back, or would if something asked.", labels=("policy", "model", "by")
    ),
    "reviews_open": Metric(help="Drift that waits for a person's word.", labels=("policy", "model")),
    "retrainings_wanted": Metric(help="Retrainings that were decided.", labels=("policy", "model"), kind="counter"),
    "retrainings_consumed": Metric(help="Of these, those carried out.", labels=("policy", "model"), kind="counter"),
    "retraining_wanted_timestamp_seconds": Metric(
        help="Since when a retraining waits to be carried out; 0: none does.", labels=("policy", "model")
    ),
    # Models and rollouts
    "champion_version": Metric(help="The version that serves; 0: none.", labels=("model",)),
    "champion_since_timestamp_seconds": Metric(help="Since when it does.", labels=("model",)),
    "trained_timestamp_seconds": Metric(help="When a version was last trained.", labels=("model",)),
    "gate_state": Metric(help="1 for the gate's newest verdict.", labels=("model", "state")),
    "model_events": Metric(help="Lines of the ledger about a model.", labels=("model", "event"), kind="counter"),
    "rollout_phase": Metric(help="1 for the phase of the newest rollout.", labels=("service", "phase")),
    "rollout_share": Metric(help="Share of the units that the canary answers.", labels=("service",)),
    "rollout_since_timestamp_seconds": Metric(help="Since when it is in this step.", labels=("service",)),
    "rollout_evidence_needed": Metric(help="From which evidence on it is taken back or wins.", labels=("service",)),
    "rollout_evidence_against": Metric(help="That the canary is worse (e-value).", labels=("service", "guard")),
    "rollout_evidence_in_favour": Metric(help="That it is not worse (e-value).", labels=("service", "guard")),
    "rollout_units": Metric(help="Units of evidence.", labels=("service", "guard", "variant")),
    # The platform itself
    "run_failures": Metric(help="Steps that failed, as the ledger has them.", labels=("project",), kind="counter"),
    "ledger_state": Metric(help="1 for whether the ledger's lines are those that were written.", labels=("state",)),
    "alerts_taken": Metric(help="Messages that a channel took.", labels=("channel",), kind="counter"),
    "alerts_waiting": Metric(help="Messages that wait for a channel.", labels=("channel",)),
    "alerts_tries": Metric(help="Most times that a message was tried which waits.", labels=("channel",)),
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One number. name: of ``METRICS``; labels: all that it has."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def sample(name: str, value: float, **labels: str) -> Sample:
    """A sample whose labels are those that its metric has.

    Raises:
        KeyError: there is no such metric.
        ValueError: other labels.
    """
    if METRICS[name].labels != tuple(labels):
        raise ValueError(f"{name} has the labels {METRICS[name].labels}, not {tuple(labels)}")
    return Sample(name=name, value=float(value), labels=labels)


def one_of(name: str, state: str, states: Iterable[str], label: str, **labels: str) -> list[Sample]:
    """A 1 for the state that holds and a 0 for each other one, so that a state that ended is told of, too."""
    return [sample(name, float(each == state), **labels, **{label: each}) for each in states]
