"""The walk names exactly the earliest drifted ancestors; one cause is one incident, from its first day to its last."""

from collections.abc import Iterator
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring.root_cause import Cause, Evidence, Finding, Graph, carried_on, causes, earliest
from ml_platform.spec.incidents import Incident, incident_rows, incidents_of
from ml_platform.spec.lineage import Column

DAY = date(2024, 5, 10)
NODES = [Column("raw" if n < 4 else "features", f"t{n // 2}", f"c{n}") for n in range(9)]


def back(days: int) -> date:
    return DAY - timedelta(days=days)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Graph, set[tuple[Column, date]], set[tuple[Column, date]]]:
    """A random lineage (an edge leads from a node to earlier ones), what drifted when, what was judged today."""
    parents = {
        node: draw(st.lists(st.sampled_from(NODES[:n]), max_size=3, unique=True)) for n, node in enumerate(NODES) if n
    }
    looks_back = {node: draw(st.integers(0, 3)) for node in NODES}
    drifted = draw(st.sets(st.tuples(st.sampled_from(NODES), st.integers(0, 6).map(back)), max_size=8))
    judged = draw(st.sets(st.sampled_from(NODES)))
    return Graph(parents=parents, looks_back=looks_back), drifted, {(node, DAY) for node in judged}


def paths(
    graph: Graph, drifted: set[tuple[Column, date]], judged: set[tuple[Column, date]], node: Column, first: date
) -> Iterator[list[tuple[Column, date]]]:
    """Every way up that only goes through what drifted, or was not judged, within what it looks back on."""
    yield [(node, first)]
    before = first - timedelta(days=graph.looks_back[node])
    for parent in graph.parents.get(node, ()):
        if any(one == parent and before <= day <= DAY for one, day in drifted) or (parent, DAY) not in judged:
            for path in paths(graph, drifted, judged, parent, before):
                yield [(node, first), *path]


def finding(node: Column, day: date = DAY, kind: str = "drift") -> Finding:
    return Finding(node=node, day=day, kind=kind, sentence=f"{day}: {node} moved")  # type: ignore[arg-type]


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_the_walk_names_exactly_the_earliest_drifted_ancestors(
    world: tuple[Graph, set[tuple[Column, date]], set[tuple[Column, date]]],
) -> None:
    graph, drifted, judged = world
    symptom = NODES[-1]
    ways = list(paths(graph, drifted, judged, symptom, DAY))
    since: dict[Column, date] = {}
    for node, first in (step for way in ways for step in way):
        since[node] = min(first, since.get(node, first))
    moved = {n for n, first in since.items() if any(one == n and first <= day <= DAY for one, day in drifted)} | {
        symptom
    }
    names = [[node for node, _ in way] for way in ways]
    expected = {
        node for node in moved if not any(node in way and moved & set(way[way.index(node) + 1 :]) for way in names)
    }
    evidence = Evidence.of([finding(*one) for one in drifted], judged)
    assert earliest(graph, evidence, symptom, DAY) == {node: since[node] for node in expected}


@given(worlds(), st.sets(st.sampled_from(NODES[:8]), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_planted_causes_that_spread_to_all_that_is_made_of_them_are_found(
    world: tuple[Graph, set[tuple[Column, date]], set[tuple[Column, date]]], planted: set[Column]
) -> None:
    graph = world[0]

    def ancestors(node: Column) -> set[Column]:
        return {node}.union(*(ancestors(parent) for parent in graph.parents.get(node, ())))

    spread = [node for node in NODES if ancestors(node) & planted]
    evidence = Evidence.of([finding(node) for node in spread], [(node, DAY) for node in NODES])
    found = causes(graph, evidence, [finding(node) for node in spread if node.family == "features"], DAY)
    for symptom in (node for node in spread if node.family == "features"):
        own = {node for node in ancestors(symptom) & planted if not (ancestors(node) - {node}) & planted}
        named = {one.node for one in found if symptom in one.symptoms or symptom == one.node}
        assert named == {Column("features", one.table, "") if one.family == "features" else one for one in own}


HEAT, WIND = (Column("features", "now", name) for name in ("heat", "wind"))
TEMP, GUST, TABLE = Column("raw", "weather", "temp"), Column("raw", "weather", "gust"), Column("raw", "weather", "")
CODE = Column("features", "now", "")
GRAPH = Graph(
    parents={HEAT: [TEMP, CODE], WIND: [GUST, CODE], TEMP: [TABLE], GUST: [TABLE]}, looks_back={HEAT: 1, WIND: 1}
)


def on(day: date, symptoms: list[Column], *found: Finding, judged: tuple[Column, ...] = (TEMP, GUST)) -> list[Cause]:
    evidence = Evidence.of(found, [(node, day) for node in judged])
    return causes(GRAPH, evidence, [finding(node, day) for node in symptoms], day)


def test_a_column_a_table_the_code_or_nothing_began_it() -> None:
    (one,) = on(DAY, [HEAT], finding(TEMP))
    assert (one.node, one.kind, one.symptoms) == (TEMP, "drift", {HEAT})
    (one,) = on(DAY, [HEAT, WIND], finding(TEMP), finding(GUST), finding(TABLE, kind="rows"))
    assert (one.node, one.kind, one.symptoms) == (TABLE, "rows", {HEAT, WIND})
    (one,) = on(DAY, [HEAT, WIND], finding(CODE, kind="code"))
    assert (one.node, one.kind, one.symptoms) == (CODE, "code", {HEAT, WIND})
    (one,) = on(DAY, [HEAT, WIND])
    assert (one.node, one.kind, one.symptoms) == (CODE, "unexplained", {HEAT, WIND})
    assert "nothing that it is made of changed" in one.sentence
    two = on(DAY, [HEAT, WIND], finding(TEMP, kind="contract"), finding(GUST, kind="nulls"))
    assert {(one.node, one.kind, *one.symptoms) for one in two} == {(TEMP, "contract", HEAT), (GUST, "nulls", WIND)}


def test_what_went_in_yesterday_is_still_the_cause_of_what_looks_back_on_it() -> None:
    (one,) = on(DAY, [HEAT], finding(TEMP, back(1)))
    assert one.node == TEMP
    (one,) = on(DAY, [HEAT], finding(TEMP, back(2)))
    assert one.kind == "unexplained"


def follow(days: list[tuple[list[Cause], bool]]) -> list[list[Incident]]:
    found: list[list[Incident]] = [[]]
    for number, (found_on, judged) in enumerate(days):
        found.append(carried_on(found[-1], found_on, DAY + timedelta(days=number), "svc", judged))
    return found[1:]


def test_an_incident_stays_one_while_it_lasts_and_is_closed_when_it_ended() -> None:
    day = [DAY + timedelta(days=n) for n in range(6)]
    first = on(day[0], [HEAT], finding(TEMP, day[0]))
    second = on(day[1], [HEAT, WIND], finding(TEMP, day[1]))
    unexplained = on(day[3], [HEAT])
    told = follow([(first, True), (second, True), ([], False), (unexplained, True), ([], True), ([], True)])
    assert [[(one.cause, one.opened_on, one.last_seen, one.closed_on) for one in end] for end in told] == [
        [("raw/weather.temp", day[0], day[0], None)],
        [("features/now", day[1], day[1], None), ("raw/weather.temp", day[0], day[1], None)],
        [("features/now", day[1], day[1], None), ("raw/weather.temp", day[0], day[1], None)],  # unknown closes nothing
        [("features/now", day[1], day[1], day[3]), ("raw/weather.temp", day[0], day[3], None)],
        [("raw/weather.temp", day[0], day[3], day[4])],
        [],
    ]
    assert told[1][1].id == told[0][0].id == f"svc:raw/weather.temp:{DAY}"
    assert told[1][1].symptoms == ("features/now.heat",)
    assert f"Since {DAY}" in told[1][1].sentence
    assert "It touches features/now.heat. Look at raw/weather first." in told[0][0].sentence


def test_a_cause_that_returns_is_another_incident() -> None:
    day = [DAY + timedelta(days=n) for n in range(3)]
    told = follow([(on(day[n], [HEAT], finding(TEMP, day[n])) if n != 1 else [], True) for n in range(3)])
    assert [len(end) for end in told] == [1, 1, 1]
    assert told[2][0].id != told[0][0].id
    assert told[2][0].opened_on == day[2]


@given(st.lists(st.sets(st.sampled_from([TEMP, GUST, TABLE])), min_size=1, max_size=8), st.data())
@settings(max_examples=50, deadline=None)
def test_every_cause_of_every_day_is_in_exactly_one_open_incident(days: list[set[Column]], data: st.DataObject) -> None:
    before: list[Incident] = []
    for number, nodes in enumerate(days):
        day, judged = DAY + timedelta(days=number), data.draw(st.booleans())
        found = [Cause(node=node, kind="drift", sentence=f"{node} broke", symptoms=frozenset({HEAT})) for node in nodes]
        after = carried_on(before, found, day, "svc", judged)
        still = {one.cause for one in after if one.closed_on is None and one.last_seen == day}
        assert still == {str(node) for node in nodes}
        assert len({one.id for one in after}) == len(after)
        assert incidents_of(incident_rows(after)) == after
        for one in after:
            if one.closed_on is not None:
                assert judged
                assert one.last_seen < one.closed_on == day
        lost = {one.id for one in before if one.closed_on is None} - {one.id for one in after}
        assert not lost
        before = after
