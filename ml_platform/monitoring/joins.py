"""Do the columns of a row still belong together? A two-sample test that looks for wrong joins.

A wrong join (rows of one table attached to the wrong rows of another) leaves every column's distribution as it was.
A classifier between a day and its reference sees it, but on real data it tells every day from others already: by the
weather that all its rows share. So the classifier here is shown what to look for: rows of the reference days against
the same rows with one block of columns (what came from one view) exchanged among the rows of its day. What it learns
holds from day to day. Then it is asked, as the two-sample test is, for the area under the ROC curve between the rows of
the judged day and those of reference days that it was not trained on: .5 in expectation where the day is like them.

Contrasting rows with ones whose parts were exchanged is the way of classifier tests of independence (Lopez-Paz & Oquab
2017, section 3; Sen et al. 2017, "Model-powered conditional independence test").
"""

from collections.abc import Sequence

import numpy as np

from ml_platform import metrics
from ml_platform.monitoring.two_sample import Floats, Ints, trees
from ml_platform.spec.alarms import JointRule


def join_auc(
    current: Floats, reference: Floats, days: Ints, blocks: Sequence[Sequence[int]], rule: JointRule, seed: int
) -> float | None:
    """How much more the current rows look wrongly joined than rows of reference days; None: too little to say.

    current: (rows, columns), NaN for missing. reference: likewise, ``days``: the day of each of its rows.
    blocks: the columns of each view; fewer than two cannot be joined wrongly.
    """
    chance = np.random.default_rng(seed)
    held = np.isin(days, np.unique(days)[::2])  # every other day: both halves see the whole season
    if len(blocks) < 2 or min(len(current), int(held.sum()), int((~held).sum())) < rule.min_rows:
        return None
    judged = _chosen(current, rule.rows, chance)
    return float(np.mean([_asked(judged, reference, days, part, blocks, rule, chance) for part in (held, ~held)]))


def _asked(
    current: Floats,
    reference: Floats,
    days: Ints,
    held: np.ndarray,
    blocks: Sequence[Sequence[int]],
    rule: JointRule,
    chance: np.random.Generator,
) -> float:
    learned = np.flatnonzero(~held)
    learned = np.sort(chance.choice(learned, min(len(learned), 2 * rule.rows), replace=False))
    rows, of = reference[learned], days[learned]
    values = np.concatenate([rows, exchanged(rows, of, blocks, chance)])
    booster = trees(values, np.repeat([0.0, 1.0], len(rows)), rule, int(chance.integers(2**31)))
    others = _chosen(reference[held], rule.rows, chance)
    scores = np.asarray(booster.predict(np.concatenate([current, others]), num_threads=1))
    return metrics.auc(np.repeat([1.0, 0.0], [len(current), len(others)]), scores)


def exchanged(rows: Floats, days: Ints, blocks: Sequence[Sequence[int]], chance: np.random.Generator) -> Floats:
    """Each row with one block, drawn at random, taken from another row of its day."""
    order = np.lexsort((chance.random(len(rows)), days))  # days one after the other, each in random order
    mixed = rows.copy()
    which = chance.integers(len(blocks), size=len(rows))
    partner = np.empty(len(rows), dtype=np.int64)
    for day in np.unique(days):
        of_day = order[days[order] == day]
        partner[of_day] = np.roll(of_day, 1)
    for number, columns in enumerate(blocks):
        taken = np.flatnonzero(which == number)
        mixed[np.ix_(taken, columns)] = rows[np.ix_(partner[taken], columns)]
    return mixed


def _chosen(rows: Floats, most: int, chance: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[np.sort(chance.choice(len(rows), most, replace=False))]
