"""The real Great Expectations on random frames: the same verdict and the same failing rows, of every shared type."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ml_platform.sources.observe import Finding, observe
from ml_platform.spec import expectations as gxe
from ml_platform_tests.expectation_world import SHARED, frame
from ml_platform_tests.gx_world import GreatExpectations, Told

FRAMES, A_FRAME = 60, 16


def _of_rows(finding: Finding) -> list[int] | None:
    return None if finding.unexpected is None else finding.unexpected.arg_true().to_list()


def _same(ours: Finding, theirs: Told) -> bool:
    success = ours.success is True
    if theirs.rows is None or ours.unexpected is None:
        return success == theirs.success
    return success == theirs.success and _of_rows(ours) == theirs.rows


@pytest.mark.long
def test_great_expectations_says_the_same() -> None:
    oracle, rng = GreatExpectations(), np.random.default_rng(20130401)
    compared: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    odd: list[str] = []
    for number in range(FRAMES):
        rows = frame(rng)
        asked = [SHARED[(number * A_FRAME + place) % len(SHARED)](rng) for place in range(A_FRAME)]
        named = [_renamed(each, str(place)) for place, each in enumerate(asked)]
        ours = observe(named, rows)
        for each, theirs in zip(named, oracle.asked(rows, named), strict=True):
            if theirs.raised:
                odd.append(f"{each.type} {each.kwargs} raised {theirs.raised[:200]} on {rows.height} rows")
                continue
            compared[each.type] += 1
            failed[each.type] += not theirs.success
            if not _same(ours[each.name], theirs):
                mine = ours[each.name]
                odd.append(
                    f"{each.type} {each.kwargs} on {rows.to_dict(as_series=False)}: we say {mine.success} "
                    f"{_of_rows(mine)} {mine.observed}, they {theirs.success} {theirs.rows} {theirs.result}"
                )
    assert not odd, f"{len(odd)} of {compared.total()} differ:\n" + "\n".join(odd[:20])
    assert set(compared) == {kind for kind, thing in gxe.BY_TYPE.items() if not thing.own} - NOT_COMPARED
    assert min(compared.values()) >= FRAMES * A_FRAME // len(SHARED)
    assert all(0 < failed[kind] < compared[kind] for kind in compared)


# Those that Great Expectations' pandas engine has not; SQL's patterns are compared with SQLite in test_expectations.py.
NOT_COMPARED = {
    "expect_column_values_to_match_like_pattern",
    "expect_column_values_to_not_match_like_pattern",
    "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_not_match_like_pattern_list",
    "expect_table_row_count_to_equal_other_table",
}


def _renamed(each: gxe.Expectation, name: str) -> gxe.Expectation:
    return replace(each, name=f"{name} {each.type}")
