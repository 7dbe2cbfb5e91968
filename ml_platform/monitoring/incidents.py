"""A service's incidents, day by day: reads what other assets found, walks to the causes, carries incidents on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import polars as pl

from ml_platform.monitoring.cause_graph import LABEL, below, cause_graph, reached, served_node
from ml_platform.monitoring.drift import drift
from ml_platform.monitoring.evidence import Judged, changed_code, missing_days, moved, refused, row_counts
from ml_platform.monitoring.profile_table import table_of
from ml_platform.monitoring.root_cause import Cause, Evidence, Finding, Graph, carried_on, causes
from ml_platform.monitoring.watched import read_profiles
from ml_platform.sources.columns import marks_of
from ml_platform.spec import DriftPolicy, Project, Service, SharpRule
from ml_platform.spec.calendar import days_between
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.incidents import Incident, incident_rows, incidents_of
from ml_platform.spec.lineage import Column
from ml_platform.stores.delta import PARTITION, Lake

REACH_DAYS = 35  # windows look back at most four weeks
STANDING_DAYS = 7  # as long as a refused day is tried again by itself; after that a person has to
# What explains: moved farther than any day it is compared with, be it little. Of a day that 72 reports make as well.
EXPLAINS = SharpRule(min_distance=0.1, odds=1.0)
_FEWEST_ROWS = 24
_RAW_DAYS = 3
_VERSIONS = {"family": pl.String, "table": pl.String, "version": pl.String, PARTITION: pl.Date}


def table_name(service: str) -> str:
    """Where a service's incidents lie in the lake, in rows of `spec.incidents.SCHEMA` with their day."""
    return f"incidents/{service}"


def days_to_look_at(lake: Lake, service: str, last: date) -> list[date]:
    """The days up to ``last`` that were not looked at yet, at most a week, and ``last`` in any case.

    A day that was looked at stays as it was told then: what is mended later ends an incident, it does not undo it.
    """
    looked = lake.read(_looked_name(service))[PARTITION].max() if lake.exists(_looked_name(service)) else None
    first = last if not isinstance(looked, date) else min(looked + timedelta(days=1), last)
    return days_between(max(first, last - timedelta(days=STANDING_DAYS - 1)), last)


def _looked_name(service: str) -> str:
    return f"incident_versions/{service}"


def look(project: Project, service: Service, lake: Lake, days: Sequence[date]) -> list[Incident]:
    """Find the causes of each of these days, in order, and write down how the incidents stand at its end.

    Returns:
        Those of the last day: open, or closed by it.
    """
    graph, name = cause_graph(project, service), table_name(service.name)
    note_versions(lake, project, service, days)
    found = everything_found(project, service, lake, days)
    standing = _before(lake, name, days[0])
    for day in days:
        stood, joined = _standing(project, lake, day)
        own = _with_joined(graph, joined)
        symptoms = [one for one in found.symptoms if one.day == day]
        raw, judged = raw_moved(project, lake, graph, symptoms, day)
        evidence = Evidence.of([*found.findings, *stood, *raw], [*found.judged, *judged])
        told = _with_standing(own, causes(own, evidence, symptoms, day), stood)
        told += _alone(own, told, found.findings, day)
        standing = carried_on(standing, told, day, service.name, day in found.judged_days)
        lake.replace(name, incident_rows(standing).with_columns(pl.lit(day).alias(PARTITION)), [day])
    return standing


def _before(lake: Lake, name: str, day: date) -> list[Incident]:
    if not lake.exists(name):
        return []
    rows = lake.read(name, last=day - timedelta(days=1))
    newest = pl.col(PARTITION) == pl.col(PARTITION).max()
    # A day without any incident has no rows: what stood before a gap was closed before it.
    return incidents_of(rows.filter(newest).filter(pl.col("closed_on").is_null()))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the days hold, as far back as values look: ``symptoms`` is what drifted of what was served, answered or
    learned; ``judged_days``: the days on which that was judged at all."""

    findings: list[Finding]
    judged: frozenset[Judged]
    symptoms: list[Finding]
    judged_days: frozenset[date]


def everything_found(project: Project, service: Service, lake: Lake, days: Sequence[date]) -> Found:
    """Drift of what was served, numbers of rows, code and model versions."""
    first, last = days[0] - timedelta(days=REACH_DAYS), days[-1]
    served = [_served(project, service, lake, policy, first, last) for policy in project.drift_policies]
    symptoms = [one for found, _ in served for one in found]
    judged_served = [one for _, judged in served for one in judged]
    others = [*_rows(project, lake, first, last)]
    versions = lake.read(_looked_name(service.name), first=first, last=last)
    others.append(changed_code(versions, days_between(first, last)))
    return Found(
        findings=[*symptoms, *(one for found, _ in others for one in found)],
        judged=frozenset([*judged_served, *(one for _, judged in others for one in judged)]),
        symptoms=symptoms,
        judged_days=frozenset(day for _, day in judged_served),
    )


def _served(
    project: Project, service: Service, lake: Lake, name: str, first: date, last: date
) -> tuple[list[Finding], list[Judged]]:
    policy, table = project.drift_policies[name], f"drift/{name}"
    if policy.service != service.name or not lake.exists(table):
        return [], []
    rows = lake.read(table, first=first, last=last)
    of_labels = {LABEL: Column("labels", service.name, LABEL)}
    nodes = {one: served_node(project, service.name, one) for one in rows["feature"].unique()}
    return moved(rows, of_labels if policy.of == "labels" else nodes, policy.sharp)


def raw_moved(
    project: Project, lake: Lake, graph: Graph, symptoms: Sequence[Finding], day: date
) -> tuple[list[Finding], list[Judged]]:
    """Raw columns behind what drifted that moved beyond anything usual, on the day or up to two days before.

    Only asked where there is something to explain, so what counts is less than what would page by itself.
    """
    above = set[Column]().union(*(reached(graph, one.node) for one in symptoms))
    findings, judged = list[Finding](), list[Judged]()
    for name in sorted(
        {node.table for node in above if node.family == "raw" and project.tables[node.table].partitioned}
    ):
        nodes = {one: Column("raw", name, one) for one in project.tables[name].columns}
        policy = DriftPolicy(table=name, min_rows=_FEWEST_ROWS, sharp=EXPLAINS)
        for back in range(_RAW_DAYS):
            on = day - timedelta(days=back)
            rows = drift(read_profiles(lake, ("raw", name), on, policy.seasons), on, policy)[1]
            found, looked_at = moved(rows.with_columns(pl.lit(on).alias(PARTITION)), nodes, EXPLAINS)
            findings += found
            judged += looked_at
    return findings, judged


def _rows(project: Project, lake: Lake, first: date, last: date) -> Iterator[tuple[list[Finding], list[Judged]]]:
    for name, table in project.tables.items():
        profiles = table_of(("raw", name))
        if table.partitioned and lake.exists(profiles):
            rows = lake.read(profiles, first=first - timedelta(days=REACH_DAYS), last=last)
            counts = dict(rows.group_by(PARTITION).agg(pl.col("rows").max()).iter_rows())
            yield row_counts(name, counts, days_between(first, last))


def _standing(project: Project, lake: Lake, day: date) -> tuple[list[Finding], dict[Column, Column]]:
    """What stands in the lake on a day: refused columns and days that are missing, until they are mended."""
    days = days_between(day - timedelta(days=STANDING_DAYS - 1), day)
    found: list[Finding] = []
    joined: dict[Column, Column] = {}
    for name, table in project.tables.items():
        refusals, together = refused(name, marks_of(lake, name, days if table.partitioned else None), day)
        joined |= together
        found += refusals
        if table.partitioned and not table.may_be_empty:
            missing = missing_days(name, lake.days(f"raw/{name}"), _broken(lake, name, days), days)
            found += [replace(one, day=day) for one in missing]
    return found, joined


def _broken(lake: Lake, table: str, days: Sequence[date]) -> dict[date, str]:
    """Day -> the rules that its rows in quarantine broke; only asked for days of which raw holds nothing."""
    name = f"quarantine/{table}"
    if not lake.exists(name) or not set(days) - lake.days(f"raw/{table}"):
        return {}
    rows = lake.read(name, first=days[0], last=days[-1]).select(PARTITION, pl.col("reason").str.split(", "))
    rules = rows.explode("reason").unique().sort("reason").group_by(PARTITION).agg("reason")
    return {day: ", ".join(names) for day, names in rules.iter_rows()}


def _with_joined(graph: Graph, joined: Mapping[Column, Column]) -> Graph:
    """Columns that one rule refused have one cause: the first of them stands above the others."""
    parents = {node: frozenset(graph.parents.get(node, ())) | {leader} for node, leader in joined.items()}
    return replace(graph, parents={**graph.parents, **parents})


def _with_standing(graph: Graph, found: Iterable[Cause], stood: Sequence[Finding]) -> list[Cause]:
    """What stands still is a symptom, too, of whatever it stands still for, drifted or not."""
    by_node = {cause.node: cause for cause in found}
    leaders = {one.node for one in stood}
    for finding in stood:
        if any(parent in leaders for parent in graph.parents.get(finding.node, ())):
            continue  # its table, or the first column of the same rule, tells of it
        waiting = {node for node in below(graph, finding.node) if node.family == "features"}
        old = by_node.get(finding.node)
        symptoms = frozenset(waiting) | (old.symptoms if old else frozenset())
        by_node[finding.node] = Cause(
            node=finding.node, kind=finding.kind, sentence=finding.sentence, symptoms=symptoms
        )
    return list(by_node.values())


def _alone(graph: Graph, told: Sequence[Cause], findings: Iterable[Finding], day: date) -> list[Cause]:
    """Numbers of rows far from usual are told although nothing drifted with them yet."""
    known = {cause.node for cause in told}
    return [
        Cause(node=one.node, kind=one.kind, sentence=one.sentence, symptoms=frozenset())
        for one in findings
        if one.day == day and one.kind == "rows" and one.node not in known
    ]


def note_versions(lake: Lake, project: Project, service: Service, days: Sequence[date]) -> None:
    """Write down by which declarations and model versions the answers of these days came about."""
    spec = project.models[service.model]
    views = [("features", view.name, fingerprint(view)) for view in project.views_of(spec)]
    rows = [(*view, day) for view in views for day in days]
    answers = f"predictions/{service.name}"
    if lake.exists(answers):
        given = lake.scan(answers, first=days[0], last=days[-1]).select(PARTITION, "model_version").unique().collect()
        for day in days:
            versions = given.filter(pl.col(PARTITION) == day)["model_version"].cast(pl.String).sort()
            if versions.len():
                rows.append(("models", spec.name, f"version {' and '.join(versions)}", day))
    lake.replace(_looked_name(service.name), pl.DataFrame(rows, _VERSIONS, orient="row"), days)
