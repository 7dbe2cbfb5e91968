"""What began it: from what drifted, up the lineage of columns, to the earliest that drifted; and incidents over days.

Nodes are columns (`spec.lineage.Column`); one without a name is a table, a view or a model as a whole and stands above
its columns. The walk goes up through what drifted and what nobody could judge; it does not go through what was judged
and found as usual, since what came through there would show there. Of what drifted on its way it names those above
which nothing did. A value made of the last days may show today what went in days ago, so each step up looks back
further.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from ml_platform.spec.incidents import Incident, IncidentKind, Severity
from ml_platform.spec.lineage import Column

# What stands in the lake as long as it lasts: whether it is over can be said on any day.
STANDING: tuple[IncidentKind, ...] = ("schema", "contract", "feed")
# Which of several findings about one node tells most: the first of these.
_MOST_TELLING: tuple[IncidentKind, ...] = (
    "schema", "contract", "feed", "rows", "nulls", "code", "drift", "unexplained",
)  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something was found about a node on a day; ``sentence`` says what, with its numbers, and names node and day."""

    node: Column
    day: date
    kind: IncidentKind
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """parents: node -> the nodes that it is made of; one that is missing has none. No cycle.

    looks_back: node -> how many days before a day its value on that day depends on what its parents were; 0 where it is
    missing.
    """

    parents: Mapping[Column, Collection[Column]]
    looks_back: Mapping[Column, int]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of the nodes' days: every finding, and the nodes' days that were judged, with or without one."""

    findings: Mapping[Column, Sequence[Finding]]
    judged: frozenset[tuple[Column, date]]

    @classmethod
    def of(cls, findings: Iterable[Finding], judged: Iterable[tuple[Column, date]]) -> "Evidence":
        """Sorted by node."""
        found: dict[Column, list[Finding]] = {}
        for finding in findings:
            found.setdefault(finding.node, []).append(finding)
        return cls(findings=found, judged=frozenset(judged))

    def within(self, node: Column, first: date, last: date) -> list[Finding]:
        """The findings about a node in [first, last]."""
        return [one for one in self.findings.get(node, ()) if first <= one.day <= last]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What began something on a day; ``symptoms``: what drifted because of it, the cause not among them."""

    node: Column
    kind: IncidentKind
    sentence: str
    symptoms: frozenset[Column]


def earliest(graph: Graph, evidence: Evidence, symptom: Column, day: date) -> dict[Column, date]:
    """The earliest drifted ancestors of what drifted on a day, each with the day from which on it is looked at.

    The symptom itself, if nothing above it drifted.
    """
    since, above = {symptom: day}, dict[Column, set[Column]]()
    waiting = [symptom]
    while waiting:
        node = waiting.pop()
        first = since[node] - timedelta(days=graph.looks_back.get(node, 0))
        for parent in graph.parents.get(node, ()):
            drifted = bool(evidence.within(parent, first, day))
            if not drifted and (parent, day) in evidence.judged:
                continue
            above.setdefault(node, set()).add(parent)
            if first < since.get(parent, date.max):
                since[parent] = first
                waiting.append(parent)
    drifted_nodes = {node for node in since if node == symptom or evidence.within(node, since[node], day)}
    return {node: since[node] for node in drifted_nodes if not _reached(above, node) & drifted_nodes}


def _reached(above: Mapping[Column, Collection[Column]], node: Column) -> set[Column]:
    found, waiting = set[Column](), [node]
    while waiting:
        new = set(above.get(waiting.pop(), ())) - found
        found |= new
        waiting.extend(new)
    return found


def causes(graph: Graph, evidence: Evidence, symptoms: Iterable[Finding], day: date) -> list[Cause]:
    """The causes of all that drifted on a day, one a cause with all its symptoms.

    Features of one view, above which nothing drifted, have one cause: the view.
    """
    found: dict[Column, dict[Column, Finding]] = {}
    for symptom in symptoms:
        for node, since in earliest(graph, evidence, symptom.node, day).items():
            told = symptom if node == symptom.node else _most_telling(evidence.within(node, since, day))
            # A feature above which nothing drifted: its view is where to look.
            found.setdefault(_whole(node), {})[symptom.node] = told
    return [_cause(node, by_symptom) for node, by_symptom in sorted(found.items())]


def _whole(node: Column) -> Column:
    return replace(node, name="") if node.family == "features" else node


def _most_telling(findings: Sequence[Finding]) -> Finding:
    return min(findings, key=lambda one: (_MOST_TELLING.index(one.kind), -one.day.toordinal()))


def _cause(node: Column, by_symptom: Mapping[Column, Finding]) -> Cause:
    told = list(by_symptom.values())
    own = [finding for finding in told if finding.node == node]
    first = _most_telling(own or told)
    symptoms = frozenset(by_symptom) - {node}
    if own and (symptoms or node.family == "raw"):
        return Cause(node=node, kind=first.kind, sentence=first.sentence, symptoms=symptoms)
    sentence = f"{first.sentence}; nothing that it is made of changed"
    return Cause(node=node, kind="unexplained", sentence=sentence, symptoms=symptoms)


def carried_on(
    before: Iterable[Incident], found: Iterable[Cause], day: date, service: str, judged: bool
) -> list[Incident]:
    """The incidents at the end of a day: those that go on, new ones, and those that the day closed.

    before: as they stood at the end of the day before. found: the day's causes. judged: whether what was served could
        be judged on the day; on one on which it could not, only what stands in the lake while it lasts is closed.

    What drifts without any cause to be found, and is a symptom of an incident that is open, is still that one.
    """
    open_ones = {one.cause: one for one in before if one.closed_on is None}
    seen: dict[str, Incident] = {}
    for cause in sorted(found, key=lambda one: (one.kind == "unexplained", one.node)):
        key = _which(cause, open_ones)
        old = seen.get(key) or open_ones.get(key)
        names = {str(one) for one in cause.symptoms} | ({str(cause.node)} - {key})
        if old is None:
            seen[key] = _new(cause, names, day, service)
            continue
        same = key == str(cause.node) and cause.kind != "unexplained"
        seen[key] = replace(
            old,
            kind=cause.kind if same else old.kind,
            last_seen=day,
            symptoms=tuple(sorted({*old.symptoms, *names})),
            sentence=_told(cause, day, old.opened_on) if same else old.sentence,
        )
    ended = [one for key, one in open_ones.items() if key not in seen]
    left = [replace(one, closed_on=day) if judged or one.kind in STANDING else one for one in ended]
    return sorted([*seen.values(), *left], key=lambda one: one.id)


def _which(cause: Cause, open_ones: Mapping[str, Incident]) -> str:
    """The open incident that a cause is: its own; if nothing explains it, one that explained a symptom of it before."""
    own, names = str(cause.node), {str(one) for one in cause.symptoms}
    if cause.kind != "unexplained":
        return own
    explained = {key: one for key, one in open_ones.items() if one.kind != "unexplained"}
    return next((key for key, one in sorted(explained.items()) if (names | {own}) & set(one.symptoms)), own)


def _new(cause: Cause, symptoms: Collection[str], day: date, service: str) -> Incident:
    node = cause.node
    return Incident(
        id=f"{service}:{node}:{day}", service=service, kind=cause.kind, severity=severity(cause),
        family=node.family, table=node.table, column=node.name, opened_on=day, last_seen=day,
        symptoms=tuple(sorted(symptoms)), sentence=_told(cause, day, day),
    )  # fmt: skip


def severity(cause: Cause) -> Severity:
    """What touches nothing that the service reads can wait; so can rows and values that moved without a symptom."""
    return "page" if cause.symptoms or cause.node.family != "raw" else "warn"


def _told(cause: Cause, day: date, since: date) -> str:
    names = sorted(map(str, cause.symptoms))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    touched = f" It touches {', '.join(names[:_SHOWN])}{more}." if names else " It touches nothing that is served."
    lasting = f" Since {since}." if since < day else ""
    return f"{cause.sentence}.{touched}{lasting} Look at {cause.node.family}/{cause.node.table} first."
