"""The drills of `ml-platform bench fire`, smaller: through real processes and HTTP, under load."""

from collections.abc import Iterator

import pytest

from ml_platform.bench.fire_drills import Account, kills, restarts, swaps
from ml_platform.bench.fire_world import FireWorld, fire_world

pytestmark = pytest.mark.long


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FireWorld]:
    with fire_world(tmp_path_factory.mktemp("fire"), trees=30) as made:
        yield made


def whole(account: Account) -> bool:
    """Nothing that was answered is lost, doubled or another version's."""
    return (account.lost, account.doubled, account.wrong) == (0, 0, 0) and account.answered > 500


def test_versions_are_exchanged_without_a_failed_or_wrong_answer(world: FireWorld) -> None:
    found = swaps(world, 10)
    assert whole(found.account), found
    assert (found.account.failed, found.unsettled) == (0, 0), found
    assert 0 < found.longest < 5  # 2 s on a quiet machine
    assert found.refused_by == found.workers == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_end_and_are_replaced_without_a_failed_request(world: FireWorld, workers: int) -> None:
    found = restarts(world, 2, 1, workers=workers)
    assert whole(found.account), found
    assert found.account.failed == 0, found


def test_killed_workers_lose_and_double_no_answer(world: FireWorld) -> None:
    found = kills(world, 5)
    assert whole(found.account), found
    assert found.account.failed > 0  # else nobody was under way when the kills came
