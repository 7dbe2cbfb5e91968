"""What is wrong beside incidents, by the platform's own numbers: the same conditions as Prometheus' rules for it.

`deploy/prometheus/platform.yaml` holds the rules; a test compares the two on the same numbers.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from ml_platform.monitoring.samples import Sample
from ml_platform.spec.alerts import Alert, Signal
from ml_platform.spec.incidents import Severity

# What incidents are made of, and where no is an answer: the gate's.
TOLD_OTHERWISE = ("raw", "features", "drift", "profiles", "incidents", "evaluations", "contests")
WAITS_LONG = timedelta(days=2)  # a training takes minutes; a night that failed is made up for in the next


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Something that holds now. key: of the same condition at any time; ``alerts`` tells its returns apart."""

    key: str
    name: str
    place: str
    severity: Severity
    signal: Signal = "data"
    sentence: str


def conditions(samples: Iterable[Sample], now: datetime) -> list[Condition]:
    """What holds by the samples of the parts ``tables``, ``checks`` and ``ledger``. ``now``: the platform's time."""
    by_name: dict[str, list[Sample]] = {}
    for one in samples:
        by_name.setdefault(one.name, []).append(one)
    return [*_stale(by_name, now), *_failing(by_name), *_waiting(by_name, now), *_for_a_person(by_name)]


def alerts(found: Iterable[Condition], noted: Mapping[str, Alert], today: date) -> list[Alert]:
    """The conditions as alerts: one that was noted and lasts keeps its beginning, another begins today.

    One that ended and returns on the same day is not told of anew: it has not settled.
    """
    lasting = {one.rpartition("@")[0]: alert for one, alert in noted.items() if alert.ended is None}
    return [_alert(one, lasting[one.key].began if one.key in lasting else today) for one in found]


def over(found: Iterable[Condition], noted: Mapping[str, Alert]) -> Collection[str]:
    """Ids of alerts made of conditions that hold no more."""
    held = {one.key for one in found}
    return [
        one for one, alert in noted.items() if "@" in one and alert.ended is None and one.rpartition("@")[0] not in held
    ]


def _alert(one: Condition, began: date) -> Alert:
    return Alert(
        id=f"{one.key}@{began}",
        name=one.name,
        place=one.place,
        severity=one.severity,
        signal=one.signal,
        sentence=one.sentence,
        began=began,
    )


def _stale(by_name: Mapping[str, list[Sample]], now: datetime) -> Iterator[Condition]:
    allowed = {one.labels["asset"]: one.value for one in by_name.get("table_fresh_within_seconds", ())}
    for one in by_name.get("table_newest_timestamp_seconds", ()):
        asset, age = one.labels["asset"], now.timestamp() - one.value
        if age > allowed[asset]:
            hours, limit = age / 3600, allowed[asset] / 3600
            ends = datetime.fromtimestamp(one.value, UTC)
            yield Condition(
                key=f"stale/{asset}",
                name="stale table",
                place=asset,
                severity="page" if asset.startswith("raw/") else "warn",
                sentence=f"The newest day of {asset} ended at {ends:%Y-%m-%d %H:%M} UTC, {hours:.0f} hours ago; "
                f"{limit:.0f} are allowed. Look at the asset's last run, then at what delivers its rows.",
            )


def _failing(by_name: Mapping[str, list[Sample]]) -> Iterator[Condition]:
    for one in by_name.get("check_state", ()):
        asset, check = one.labels["asset"], one.labels["check"]
        if one.labels["state"] == "fail" and one.value and asset.partition("/")[0] not in TOLD_OTHERWISE:
            yield Condition(
                key=f"check/{asset}/{check}",
                name="failed check",
                place=asset,
                severity="page",
                sentence=f"The check {check} of {asset} fails; its reason stands on the asset's page under Checks.",
            )


def _waiting(by_name: Mapping[str, list[Sample]], now: datetime) -> Iterator[Condition]:
    for one in by_name.get("retraining_wanted_timestamp_seconds", ()):
        waited = now.timestamp() - one.value
        if one.value and waited > WAITS_LONG.total_seconds():
            policy, model = one.labels["policy"], one.labels["model"]
            yield Condition(
                key=f"retraining/{policy}",
                name="retraining waits",
                place=f"retrain/{policy}",
                severity="page",
                signal="operation",
                sentence=f"A retraining of {model} has been wanted for {waited / 86400:.0f} days and was not carried "
                f"out; look at the last runs of training_sets/{model}, models/{model} and evaluations/{model}.",
            )


def _for_a_person(by_name: Mapping[str, list[Sample]]) -> Iterator[Condition]:
    for one in by_name.get("reviews_open", ()):
        policy, model = one.labels["policy"], one.labels["model"]
        if one.value:
            yield Condition(
                key=f"review/{policy}/{model}",
                name="drift waits for a word",
                place=f"decisions/{policy}",
                severity="warn",
                sentence=f"Drift that no policy of {model} answers waits for a person: `ml-platform why {model}` names "
                f"it and what to say.",
            )
    for one in by_name.get("decision_held", ()):
        policy, model = one.labels["policy"], one.labels["model"]
        if one.value and one.labels["by"] == "breaker":
            yield Condition(
                key=f"breaker/{policy}/{model}",
                name="retraining stopped",
                place=f"decisions/{policy}",
                severity="warn",
                sentence=f"{model} was retrained again and again and nothing was promoted, so it is not retrained any "
                f"more; `ml-platform why {model}` says what lets it go on.",
            )
