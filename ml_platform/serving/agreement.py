"""Whether the features that live models were trained on are still declared as they were then."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_platform.spec import ModelRefused, NoChampion, Project, Verdict
from ml_platform.stores.tracking import Tracking
from ml_platform.training.feature_record import CURES, changes, read_record


def agreements(project: Project, tracking: Tracking) -> dict[str, Verdict]:
    """For every service whether its champion may be fed with today's features; the measures name those that differ."""
    judged = {name: _agreement(project, tracking, name) for name in {s.model: s for s in project.services.values()}}
    return {service.name: judged[service.model] for service in project.services.values()}


def _agreement(project: Project, tracking: Tracking, model: str) -> Verdict:
    try:
        version = tracking.champion(model)
        with tempfile.TemporaryDirectory() as folder:
            record = read_record(tracking.download(version, Path(folder)))
    except NoChampion:
        return Verdict.unknown(f"{model} has no champion yet")
    except ModelRefused as error:
        return Verdict(state="fail", reason=f"{model} version {version.version}: {error}")
    champion = f"{model} version {version.version}"
    if record is None:
        return Verdict.unknown(f"{champion} was stored without a record of its features, so it is served as it is")
    found = changes(record, project.all_views.values())
    if found:
        reason = (
            f"{champion} was trained on {len(found)} of {len(record.features)} features that changed since: {CURES}"
        )
        return Verdict(state="fail", reason=reason, measures=found)
    return Verdict(state="pass", reason=f"{champion} was trained on features as they are declared today")


def lines(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    """What to read: a line a service, and one for each feature that changed."""
    for service, verdict in verdicts.items():
        yield f"services/{service}  {verdict.state}: {verdict.reason}"
        marks = ["├── "] * (len(verdict.measures) - 1) + ["└── "]
        for mark, (name, what) in zip(marks, verdict.measures.items(), strict=False):
            yield f"{mark}{name}  {what}"
