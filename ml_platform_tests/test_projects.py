"""Finding a project's declarations: one file one thing; what is wrong is named with its file and its cure."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.features.registry import repository
from ml_platform.resources.projects import load_project
from ml_platform.spec import DeclarationError, UnknownName
from ml_platform_tests.project_world import FILES, Loader, loader


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Loader]:
    with loader(tmp_path) as loads:
        yield loads


def test_everything_is_found_by_its_file_name(load: Loader) -> None:
    found = load()
    kinds = (found.tables, found.views, found.models, found.retrain_policies, found.drift_policies, found.services)
    assert [list(kind) for kind in kinds] == [["sales"], ["shops"], ["returns"], ["weekly"], ["inputs"], ["desk"]]
    assert all(thing.name == name for kind in kinds for name, thing in kind.items())


def test_folders_may_be_absent_and_private_files_are_no_declarations(load: Loader) -> None:
    found = load(
        {name: None for name in FILES if name.startswith(("models", "policies", "services"))}
        | {"tables/_shared.py": "X = 1"}
    )
    assert (list(found.tables), found.models, found.services) == (["sales"], {}, {})


# What is wrong with one file

WRONG = {
    "a copy under the name of another": (
        {"tables/refunds.py": FILES["tables/sales.py"]},
        r"refunds\.py must declare one SourceTable named 'refunds' like its file, but declares sales; rename",
    ),
    "two in a file": (
        {"services/desk.py": FILES["services/desk.py"] + 'counter = Service(model="returns", description="")'},
        r"desk\.py must declare one Service named 'desk' like its file, but declares counter, desk",
    ),
    "the same thing twice": (
        {"tables/refunds.py": "from {package}.tables.sales import sales as refunds"},
        r"sales\.py declares the same thing as .*refunds\.py; keep one",
    ),
    "a name that is not the file's": (
        {"policies/weekly.py": 'from ml_platform.spec import RetrainPolicy\nweekly = RetrainPolicy(name="monthly")'},
        r"policies\.weekly declares a RetrainPolicy with name='monthly', which clashes with its file name; drop name=",
    ),
    "nothing in a file": ({"tables/empty.py": ""}, r"empty\.py declares no SourceTable; add one or remove the file"),
    "no policy in a policy's file": (
        {"policies/empty.py": "X = 1"},
        r"empty\.py declares no RetrainPolicy or DriftPolicy or RolloutPolicy; add one or remove the file",
    ),
    "something else in a folder": (
        {"tables/desk.py": FILES["services/desk.py"]},
        r"tables.desk\.py declares no SourceTable",
    ),
    "no project": ({"__init__.py": ""}, r"holds no `project = Project\(\.\.\.\)`; add one to .*__init__\.py"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_its_cure(load: Loader, name: str) -> None:
    changed, says = WRONG[name]
    with pytest.raises(DeclarationError, match=says):
        load(changed)


# What is wrong between files

UNKNOWN = {
    "a view's table": (
        "repo/views/shops.py",
        'source="sales"',
        'source="sale"',
        "source table named 'sale'; did you mean sales",
    ),
    "an entity": (
        "repo/views/shops.py",
        'name="shop"',
        'name="shops"',
        r"column of sales \(entity of view shops\) named 'shops'; did you mean shop",
    ),
    "a window's column": (
        "repo/views/shops.py",
        '"paid"',
        '"payed"',
        r"column of sales \(in view shops\) named 'payed'; did you mean paid",
    ),
    "a view's time": (
        "repo/views/shops.py",
        "description",
        'time="known", description',
        r"\(time of view shops\) named 'known'; did you mean known_at",
    ),
    "a derived column's root": (
        "repo/views/shops.py",
        'description=""',
        'description="", derive={{"free": pl.col("payd") == 0}}',
        r"column of sales \(derives free of view shops\) named 'payd'; did you mean paid",
    ),
    "a condition's column": (
        "repo/views/shops.py",
        'description=""',
        'description="", where=pl.col("free")',
        r"column of sales \(where of view shops\) named 'free'",
    ),
    "a task's key": (
        "models/returns.py",
        'key="id"',
        'key="ids"',
        r"column of sales \(in task t\) named 'ids'; did you mean id",
    ),
    "a label's column": (
        "models/returns.py",
        'pl.col("paid")',
        'pl.col("payed")',
        r"column of sales \(label of task t\) named 'payed'; did you mean paid",
    ),
    "a model's view": ("models/returns.py", '("shops",)', '("shop",)', "feature view named 'shop'; did you mean shops"),
    "a model's spine": (
        "models/returns.py",
        'spine="sales"',
        'spine="saless"',
        "source table named 'saless'; did you mean sales",
    ),
    "a kind of approval": (
        "models/returns.py",
        'estimator="lightgbm"',
        'estimator="lightgbm", gate=GatePolicy(approval="persn")',
        r"kind of approval \(gate of model returns\) named 'persn'; did you mean person",
    ),
    "a label's table": ("models/returns.py", 'table="sales"', 'table="x"', "source table named 'x'; known: sales"),
    "a model's policy": (
        "models/returns.py",
        '"weekly"',
        '"weekley"',
        "retraining policy named 'weekley'; did you mean weekly",
    ),
    "a service's model": ("services/desk.py", '"returns"', '"return"', "model named 'return'; did you mean returns"),
    "a drift policy's service": ("policies/inputs.py", '"desk"', '"disk"', "service named 'disk'; did you mean desk"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_comes_with_the_near_ones(load: Loader, name: str) -> None:
    at, old, new, says = UNKNOWN[name]
    with pytest.raises(UnknownName, match=says):
        load(at=at, old=old, new=new)


CLASHES = {
    "an entity of two types": (
        {
            "repo/views/other.py": FILES["repo/views/shops.py"]
            .replace("shops", "other")
            .replace('"shop"', '"shop", dtype="int64"')
        },
        "views other and shops declare the entity shop as int64 and as string",
    ),
    "a feature twice": (
        {
            "repo/views/shops.py": FILES["repo/views/shops.py"].replace(
                "timedelta(hours=1),", "timedelta(hours=1), timedelta(minutes=60)"
            )
        },
        "view shops declares paid_sum_1h twice; give one of them another name=",
    ),
    "an entity that the task does not have": (
        {"models/returns.py": FILES["models/returns.py"].replace('("id", "shop")', '("id",)')},
        "model returns uses view shops, whose entity shop is not among the task's entities",
    ),
    "a policy of two models": (
        {
            "models/other.py": FILES["models/returns.py"].replace("returns =", "other ="),
            "services/window.py": FILES["services/desk.py"].replace("desk", "window").replace("returns", "other"),
        },
        "models other and returns share the retraining policy 'weekly'",
    ),
    "a policy that nobody can judge by": (
        {"services/desk.py": None, "policies/inputs.py": None},
        "model returns has the retraining policy 'weekly', but no service answers with it",
    ),
    "a service that lets nobody wait": (
        {"services/desk.py": FILES["services/desk.py"].replace('model="returns"', 'most_waiting=0, model="returns"')},
        "service desk declares most_waiting=0 and answer_within=0:00:02; with these it could never answer",
    ),
    "trees by DDP": (
        {"models/returns.py": FILES["models/returns.py"].replace("views=", 'compute="ddp", views=')},
        "model returns: estimator lightgbm cannot be trained with compute='ddp': DDP is PyTorch's",
    ),
    "nobody to train": (
        {
            "models/returns.py": FILES["models/returns.py"]
            .replace("ModelSpec, Task", "ModelSpec, Task, Workers")
            .replace("views=", 'compute="ray", workers=Workers(count=0), views=')
        },
        "model returns declares workers with count=0; 1 is the least",
    ),
    "a window of hours": (
        {
            "policies/weekly.py": "from datetime import timedelta\nfrom ml_platform.spec import RetrainPolicy\n"
            "weekly = RetrainPolicy(window=timedelta(hours=36))"
        },
        "retraining policy weekly: it has the window 1 day, 12:00:00; it is judged by whole days",
    ),
    "a reference that is always too short": (
        {
            "policies/inputs.py": FILES["policies/inputs.py"]
            .replace('"desk"', '"desk", seasons=Seasons(recent_days=5, min_days=7)')
            .replace("DriftPolicy\n", "DriftPolicy, Seasons\n")
        },
        "drift policy inputs: it needs 7 days but looks back 5, so it could never judge",
    ),
}


@pytest.mark.parametrize("name", CLASHES)
def test_declarations_that_do_not_fit_together_are_refused(load: Loader, name: str) -> None:
    changed, says = CLASHES[name]
    with pytest.raises(DeclarationError, match=says):
        load(changed)


# What is not there


@pytest.mark.parametrize("package", ["shop_that_is_nowhere", "shop_that_is_nowhere.inside", "", ".shop", "shop-1"])
def test_a_missing_package_is_named_with_its_setting(package: str) -> None:
    with pytest.raises(DeclarationError, match="ML_PLATFORM_PROJECT names it"):
        load_project(package)


def test_a_package_that_lacks_what_it_imports_says_what(load: Loader) -> None:
    with pytest.raises(DeclarationError, match="No module named 'shop_tools_nowhere'"):
        load({"__init__.py": "import shop_tools_nowhere"})


def test_a_missing_feature_repository_is_named(load: Loader) -> None:
    with pytest.raises(DeclarationError, match=r"cannot import 'no_such_repo'.*names it as its Feast repository"):
        load(at="__init__.py", old="{package}.repo", new="no_such_repo")


def test_a_feature_repository_without_its_yaml_is_refused(load: Loader) -> None:
    found = load()
    folder = repository(found)
    (folder / "feature_store.yaml").unlink()
    with pytest.raises(DeclarationError, match=r"\.repo holds no feature_store\.yaml; Feast needs one there"):
        repository(found)
    shutil.rmtree(folder)
    for absent in ("nowhere_at_all", "nowhere_at_all.repo"):
        with pytest.raises(DeclarationError, match="nowhere_at_all"):
            repository(replace(found, features=absent))
