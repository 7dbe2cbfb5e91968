"""Every asset of the shipped project has a freshness policy and a contract, or says why it has none."""

from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation.none_because import NO_CONTRACT, NO_FRESHNESS
from ml_platform.definitions import house
from ml_platform.resources.profiles import Profile


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dg.Definitions, dict[dg.AssetKey, dg.AssetSpec]]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ML_PLATFORM_HOME", str(home))
        profile = Profile.from_environment()
    definitions = house(profile, clamp=False)
    return definitions, {spec.key: spec for spec in definitions.resolve_all_asset_specs()}


def test_every_asset_has_a_freshness_policy_or_a_reason_for_none(
    specs: tuple[dg.Definitions, dict[dg.AssetKey, dg.AssetSpec]],
) -> None:
    definitions, found = specs
    graph = definitions.resolve_asset_graph()
    assert len(found) > 60
    without = {key for key, spec in found.items() if spec.freshness_policy is None}
    silent = [key.to_user_string() for key in without if key.path[0] not in NO_FRESHNESS]
    assert silent == []
    by_the_day = [key.to_user_string() for key in without if graph.get(key).partitions_def is not None]
    assert by_the_day == []  # what is made every day can be late
    for key in without:
        assert found[key].metadata["no freshness policy"] == NO_FRESHNESS[key.path[0]]
    assert {key.path[0] for key in without} == NO_FRESHNESS.keys()  # no reason outlives what it was given for


def test_every_asset_has_a_contract_or_a_reason_for_none(
    specs: tuple[dg.Definitions, dict[dg.AssetKey, dg.AssetSpec]],
) -> None:
    definitions, found = specs
    graph = definitions.resolve_asset_graph()
    checked = {check.asset_key for check in graph.asset_check_keys}
    without = found.keys() - checked
    silent = [key.to_user_string() for key in without if key.path[0] not in NO_CONTRACT]
    assert silent == []
    for key in without:
        assert found[key].metadata["no contract"] == NO_CONTRACT[key.path[0]]
    assert {key.path[0] for key in without} == NO_CONTRACT.keys()
    assert not {key.path[0] for key in checked} & NO_CONTRACT.keys()
    raw = [key for key in found if key.path[0] == "raw"]
    assert len(raw) == 7
    for key in raw:
        assert {check.name for check in graph.asset_check_keys if check.asset_key == key} >= {"contract", "columns"}
