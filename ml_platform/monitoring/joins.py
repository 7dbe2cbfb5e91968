"""Do the columns of a row still belong together? A classifier two-sample test that looks for wrong joins.

A wrong join (rows of one table attached to the wrong rows of another) leaves every column's distribution as it was.
A classifier between a day and its reference is of no use on real data: it tells every day from others, by the weather
that all its rows share (on the flights of 2013 its area under the ROC curve is 1.000 on each clean day).

So the two samples are both of the day: its rows, and the same rows with one block of columns (what came from one view)
exchanged among them. Whatever the day is like, both share it. A classifier trained on earlier days, on rows and
exchanged rows of theirs, tells them apart as far as the block hangs together with the rest; a block that was joined
wrongly is exchanged already, so the two are alike and the area is .5. What is measured is how far the area falls below
the one of reference days that the classifier was not trained on, for each block: so the guilty view has a name.

The test is Lopez-Paz & Oquab's (2017), for independence (their section 3); exchanging within groups, here days, as in
Sen et al. 2017, "Model-powered conditional independence test".
"""

from collections.abc import Sequence

import numpy as np

from ml_platform import metrics
from ml_platform.monitoring.two_sample import Floats, Ints, sampled, trees
from ml_platform.spec.alarms import JointRule


def join_distances(
    current: Floats, reference: Floats, days: Ints, blocks: Sequence[Sequence[int]], rule: JointRule, seed: int
) -> Floats | None:
    """How much less each block hangs together with the others than on reference days, (blocks,), 0 to 1.

    Twice the fall of the area under the curve: a block that told everything of the others and now tells nothing
    is at 1; 0 is as usual or more.

    current: (rows, columns), NaN for missing. reference: likewise, ``days``: the day of each of its rows.
    blocks: the columns of each view. None: fewer than two blocks, too few rows, or reference rows of one day.
    """
    chance = np.random.default_rng(seed)
    kept = np.isin(days, np.unique(days)[::2])  # every other day: both halves see the whole season
    if len(blocks) < 2 or min(len(current), int(kept.sum()), int((~kept).sum())) < rule.min_rows:
        return None
    learned, held = (
        sampled(np.flatnonzero(part), rule.rows * times, chance) for part, times in ((kept, 2), (~kept, 1))
    )
    both = np.concatenate([reference[learned], exchanged(reference[learned], days[learned], blocks, chance)])
    booster = trees(both, np.repeat([0.0, 1.0], len(learned)), rule, seed)
    today = current[sampled(np.arange(len(current)), rule.rows, chance)]
    usual = _areas(booster, reference[held], days[held], blocks, chance)
    now = _areas(booster, today, np.zeros(len(today), dtype=np.int64), blocks, chance)
    return np.clip(2 * (usual - now), 0.0, 1.0)


def _areas(
    booster: object, rows: Floats, days: Ints, blocks: Sequence[Sequence[int]], chance: np.random.Generator
) -> Floats:
    """How well rows and the same with one block exchanged are told apart, (blocks,)."""
    labels = np.repeat([0.0, 1.0], len(rows))
    mixed = [exchanged(rows, days, [block], chance) for block in blocks]
    scores = np.asarray(booster.predict(np.concatenate([rows, *mixed]), num_threads=1)).reshape(-1, len(rows))  # type: ignore[attr-defined]
    return np.array([metrics.auc(labels, np.concatenate([scores[0], some])) for some in scores[1:]])


def exchanged(rows: Floats, days: Ints, blocks: Sequence[Sequence[int]], chance: np.random.Generator) -> Floats:
    """Each row with one block, drawn at random, taken from another row of its day."""
    order = np.lexsort((chance.random(len(rows)), days))  # days one after the other, each in random order
    first = np.concatenate([[True], days[order][1:] != days[order][:-1]])
    starts = np.flatnonzero(first)
    last = np.append(starts[1:], len(rows)) - 1
    before = np.arange(len(rows)) - 1
    before[starts] = last  # the day's first row takes from its last one
    partner = np.empty(len(rows), dtype=np.int64)
    partner[order] = order[before]
    mixed = rows.copy()
    which = chance.integers(len(blocks), size=len(rows))
    for number, columns in enumerate(blocks):
        taken = np.flatnonzero(which == number)
        mixed[taken[:, None], list(columns)] = rows[partner[taken][:, None], list(columns)]
    return mixed
