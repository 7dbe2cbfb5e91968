"""How often the rules of alarms speak while nothing is wrong, and whether they do at once when something is.

Run it: ``python -m ml_platform.bench.monitoring_alarms``. Made-up stationary and seasonal days, and the flights of
2013; beside the rules those that monitors come with. Faults are planted into the features of single days.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import click
import numpy as np

from ml_platform.bench.arms import machine
from ml_platform.bench.monitoring_days import Compared, Days, Floats
from ml_platform.bench.monitoring_flights import flights_days
from ml_platform.bench.monitoring_naive import BEFORE, naive
from ml_platform.bench.monitoring_planted import JOINT, SHARP, Fault
from ml_platform.bench.monitoring_worlds import seasonal, stationary
from ml_platform.bench.rollout_figures import share_of
from ml_platform.monitoring.conformal import followed
from ml_platform.monitoring.joins import join_distances
from ml_platform.monitoring.sharp import sharp_threshold
from ml_platform.spec.alarms import AlarmBudget, JointRule, Seasons, SharpRule

SEED = 20260202
RUNS, WEEKS = 20, 26
SEASONS, RULE, BUDGET, JOINT_RULE = Seasons(), SharpRule(), AlarmBudget(), JointRule()
PAGES_A_WEEK = 0.12  # at most, on the clean year
_WARM_UP = SEASONS.min_days + 7 * BUDGET.min_periods  # days until the first week is judged
_PLANTED_EVERY, _JOINED_EVERY = 12, 3  # days
_NAIVE_RUNS = 5  # they alarm nearly always or never, and sorting all columns is the most work here
_EARLIER = 8  # days that say what is usual of a wrong join
Echo = Callable[[str], object]


def measure(*, quick: bool = False, echo: Echo = click.echo) -> None:
    """Everything. ``quick``: two runs of each made-up world, and few dates of planted faults: to see that it works."""
    runs, chance = 2 if quick else RUNS, np.random.default_rng(SEED)
    began = time.perf_counter(), time.process_time()
    echo(f"{machine(['numpy', 'scipy', 'lightgbm'])}; a budget of {BUDGET.share:.0%} of the weeks may warn")
    for name, world in (("stationary", stationary), ("seasonal", seasonal)):
        made = [world(_WARM_UP + 7 * WEEKS, chance) for _ in range(runs)]
        echo(f"{name}: {runs} runs of {WEEKS} weeks, {len(made[0].names)} columns")
        _tell(made, [_judged(days) for days in made], echo)
    flights = flights_days()
    clean = _judged(flights)
    echo(f"flights 2013: {len(flights)} days, {len(flights.names)} served features")
    _tell([flights], [clean], echo)
    for line in planted(flights, clean, _PLANTED_EVERY * (6 if quick else 1), SHARP, chance):
        echo(line)
    for line in joined(flights, _PLANTED_EVERY * (6 if quick else 1), chance):
        echo(line)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    echo(f"{wall:.0f} s, {cpu:.0f} s CPU")


def _judged(days: Days) -> list[Compared]:
    """Every day that has enough days before it."""
    return [days.compared(place, SEASONS) for place in range(SEASONS.min_days, len(days))]


def _tell(worlds: Sequence[Days], judged: Sequence[Sequence[Compared]], echo: Echo) -> None:
    warned = [week for one in judged for week in warned_weeks(one, BUDGET)]
    found = share_of("weeks that warn, adaptive threshold", warned)
    inside = found.low <= BUDGET.share <= found.high
    echo(f"{found.line()}  the budget is {'inside' if inside else 'OUTSIDE'}")
    fixed = AlarmBudget(step=0, memory=BUDGET.memory)
    echo(share_of("  the same, not adaptive", [w for one in judged for w in warned_weeks(one, fixed)]).line())
    pages = [[bool(day.paged(RULE)) for day in one] for one in judged]
    weeks, paged = sum(map(len, pages)) / 7, sum(map(incidents, pages))
    short = "" if paged / weeks <= PAGES_A_WEEK else "  SHORT"
    days = sum(map(sum, pages))
    echo(
        f"  {'pages a week, sharp rule':72}{paged / weeks:>9.3f}  ({paged} on {days} days in {weeks:.0f} weeks){short}"
    )
    for name, alarms in naive_weeks(worlds).items():
        echo(share_of(f"weeks that alarm, {name}", alarms).line())


def warned_weeks(judged: Sequence[Compared], budget: AlarmBudget) -> list[bool]:
    """Whether each whole week warned, of those that had enough weeks before them."""
    weeks: dict[int, list[str]] = {}
    found = followed([(day.day, day.score) for day in judged], budget)
    for day, (_, verdict) in zip(judged, found, strict=True):
        weeks.setdefault((day.day.toordinal() - 1) // 7, []).append(verdict.state)
    return ["warn" in states for states in weeks.values() if "unknown" not in states and len(states) == 7]


def incidents(pages: Iterable[bool]) -> int:
    """How many stretches of days that page."""
    return sum(now and not before for before, now in pairwise([False, *pages]))


def naive_weeks(worlds: Sequence[Days]) -> Mapping[str, list[bool]]:
    """Rule -> whether it alarmed, of every week after the warm-up of the first worlds."""
    told = [
        naive(days, first) for days in worlds[:_NAIVE_RUNS] for first in range(max(_WARM_UP, BEFORE), len(days) - 6, 7)
    ]
    return {name: [one[name] for one in told] for name in told[0]}


def planted(
    days: Days, clean: Sequence[Compared], every: int, faults: Mapping[str, Fault], chance: np.random.Generator
) -> Iterator[str]:
    """How often each fault pages on its first day; a day that pages without it is left out."""
    quiet = [n for n, day in enumerate(clean) if n % every == 0 and not day.paged(RULE)]
    yield f"planted faults that page on their first day, {len(quiet)} dates"
    for name, fault in faults.items():
        hits = []
        for n in quiet:
            place = n + SEASONS.min_days
            rows = fault(days.rows(place), days.names, chance)
            hits.append(bool(days.compared(place, SEASONS, rows).paged(RULE)))
        yield share_of(name, hits).line()


def joined(days: Days, every: int, chance: np.random.Generator) -> Iterator[str]:
    """How often a wrong join pages on its first day: a view beyond what was usual on the days looked at before."""
    looked = range(SEASONS.min_days, len(days), _JOINED_EVERY)
    views = _views(days.names)
    began = time.process_time()
    clean = {place: _apart(days, place, days.rows(place), views) for place in looked}
    cost = (time.process_time() - began) / len(clean)
    bars = {place: _bars(clean, place) for place in looked[_EARLIER:]}
    yield f"wrong joins: columns exchanged among the rows of a day; {cost:.2f} s CPU a day looked at"
    yield share_of("clean days that page", [(clean[place] >= bars[place]).any() for place in bars]).line()
    for name, fault in JOINT.items():
        hits, named = [], []
        for place in list(bars)[:: every // _JOINED_EVERY]:
            far = _apart(days, place, fault(days.rows(place), days.names, chance), views)
            hits.append((far >= bars[place]).any())
            named.append(list(views)[int(np.argmax(far / bars[place]))])
        yield f"{share_of(name, hits).line()}  mostly named {max(set(named), key=named.count)}"


def _views(names: Sequence[str]) -> Mapping[str, list[int]]:
    begins = [name.partition("__")[0] for name in names]
    return {view: [n for n, one in enumerate(begins) if one == view] for view in dict.fromkeys(begins)}


def _apart(days: Days, place: int, rows: Floats, views: Mapping[str, list[int]]) -> Floats:
    first = max(0, place - SEASONS.recent_days)
    of = days.place[days.starts[first] : days.starts[place]]
    found = join_distances(rows, days.rows(first, place), of, list(views.values()), JOINT_RULE, place)
    return np.zeros(len(views)) if found is None else found


def _bars(clean: Mapping[int, Floats], place: int) -> Floats:
    earlier = [far for one, far in clean.items() if place - SEASONS.recent_days <= one < place]
    return sharp_threshold(np.max(earlier, axis=0), RULE)


@click.command()
@click.option("--quick", is_flag=True, help="Few runs and dates: to see that it works, not to quote.")
def main(quick: bool) -> None:
    """False alarms of the rules and of naive ones; faults seen on their first day."""
    measure(quick=quick)


if __name__ == "__main__":
    main()
