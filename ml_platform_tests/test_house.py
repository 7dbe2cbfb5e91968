"""Guards the architecture: who imports whom, what loads what, how a file looks."""

import ast
import configparser
import importlib
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml_platform.bench import loading
from ml_platform.spec import (
    DriftPolicy,
    Fault,
    FeatureView,
    ModelSpec,
    RequestView,
    RetrainPolicy,
    RolloutPolicy,
    Service,
    SourceTable,
)

ROOT = Path(__file__).parent.parent
HOUSE = sorted([*ROOT.glob("ml_platform/**/*.py"), *ROOT.glob("feature_defs/**/*.py")])
TESTS = sorted(ROOT.glob("ml_platform_tests/**/*.py"))
FLIGHTS = ROOT / "ml_platform" / "projects" / "flights"
DECLARATIONS = sorted(
    path
    for folder in [
        *(FLIGHTS / name for name in ("tables", "models", "policies", "services", "faults")),
        ROOT / "feature_defs/views",
    ]
    for path in folder.glob("[!_]*.py")
)
DECLARED = (SourceTable, FeatureView, RequestView, ModelSpec, DriftPolicy, RetrainPolicy, RolloutPolicy, Service, Fault)
# Names that Feast's interface gives to arguments and methods of an offline store.
DICTATED = {"ml_platform/features/feast_offline.py": {"entity_df", "_to_df_internal"}}
AVOIDED = {"pipeline", "manager", "handler", "helper", "helpers", "util", "utils", "processor", "df", "data2"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it, by full name."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


# What loads what


def test_loading_the_definitions_loads_nothing_heavy_and_writes_nothing(tmp_path, record_property):
    found = loading.load_once(folder=tmp_path)
    record_property("loading_seconds", found.seconds)
    assert found.assets > 0
    assert found.heavy == set()
    assert list(tmp_path.iterdir()) == []


def serving_runtime() -> list[str]:
    return [module_name(p) for p in HOUSE if p.parent.name == "serving" and p.stem not in ("assets", "checks")]


def test_stores_and_the_serving_process_load_no_dagster():
    plain = [module_name(p) for p in HOUSE if place(p).startswith(("ml_platform/stores/", "ml_platform/spec/"))]
    plain += ["ml_platform.metrics", "ml_platform.resources.profiles", *serving_runtime()]
    child = f"import sys, {', '.join(plain)}; print(sorted(m for m in sys.modules if m.startswith('dagster')))"
    done = subprocess.run([sys.executable, "-c", child], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"


def test_the_contract_against_dagster_names_every_serving_module():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / "setup.cfg")
    named = contracts["importlinter:contract:plain"]["source_modules"].split()
    assert sorted(set(serving_runtime()) - {"ml_platform.serving"} - set(named)) == []


def test_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_thin_modules_name_dagster():
    may = re.compile(
        r"ml_platform/(definitions|asset_keys|cli)\.py|ml_platform/(resources|automation|bench|replay)/.*"
        r"|ml_platform/\w+/(\w+_)?(assets|checks)\.py"
    )
    naming = {place(p) for p in HOUSE if any(name.split(".")[0].startswith("dagster") for name in imported(p))}
    assert sorted(path for path in naming if not may.fullmatch(path)) == []


def reads_a_variable(node: ast.AST) -> bool:
    """``os.getenv(...)``, ``os.environ[...]`` or ``os.environ.get(...)``; setting or handing on is none."""
    if isinstance(node, ast.Attribute):
        return node.attr == "getenv" or (node.attr == "get" and ast.unparse(node.value).endswith("environ"))
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Load) and ast.unparse(node.value).endswith("environ")
    return isinstance(node, ast.Compare) and any(ast.unparse(c).endswith("environ") for c in node.comparators)


def test_only_the_profile_reads_the_environment():
    reading = {place(path) for path in HOUSE for node in ast.walk(tree(path)) if reads_a_variable(node)}
    assert reading <= {"ml_platform/resources/profiles.py"}


# The platform's time comes from the clock alone; the service and MLflow stamp the wall's time beside it.
KEEPS_ANY_ERROR = "ml_platform/serving/trial.py"  # of a version on trial
MAY_LOOK_AT_THE_WALL = {
    "ml_platform/stores/clock.py",
    "ml_platform/serving/service.py",
    "ml_platform/serving/champion.py",
    "ml_platform/stores/mlmodel.py",
    "ml_platform/stores/tracking_entries.py",
}


def test_only_the_clock_and_two_edges_look_at_the_wall_clock():
    looks = re.compile(r"(datetime|date)\.(now|utcnow|today)|time\.time(_ns)?")
    calls = [(path, node) for path in HOUSE for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert {place(path) for path, call in calls if looks.fullmatch(ast.unparse(call.func))} <= MAY_LOOK_AT_THE_WALL


# How a file looks


@pytest.mark.parametrize("path", [*HOUSE, *TESTS], ids=place)
def test_a_file_keeps_the_rules(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "split it"
    comments = [t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT]
    assert [c for c in comments if re.search(r"\b(TODO|FIXME|XXX)\b", c)] == []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", "annotations as strings break Dagster's factories"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: name the exception"
            goes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            goes_on = goes_on or place(path) == KEEPS_ANY_ERROR
            assert goes_on or not broad, f"line {node.lineno}: too broad; only cleaning up before `raise` may be"
        if isinstance(node, ast.Name):
            assert node.id != "NotImplementedError", f"line {node.lineno}: a stub"


@pytest.mark.parametrize("path", [*HOUSE, *TESTS], ids=place)
def test_names_are_words_of_the_house(path):
    names = {path.stem}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name))
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    names -= DICTATED.get(place(path), set())
    words = {word.lower(): name for name in names for word in name.split("_")}
    assert {words[word] for word in words.keys() & AVOIDED} == set()


def test_no_folder_has_an_avoided_name():
    assert [place(p) for p in HOUSE if set(re.split(r"[/_.]", place(p.parent))) & AVOIDED] == []


# Declarations


@pytest.mark.parametrize("path", DECLARATIONS, ids=place)
def test_a_declaration_file_declares_the_one_thing_it_is_named_after(path):
    module = importlib.import_module(module_name(path))
    declared = {key: value for key, value in vars(module).items() if isinstance(value, DECLARED) and key[0] != "_"}
    assert list(declared) == [path.stem]
    assert declared[path.stem].description.strip()
    own = {
        name.id
        for node in tree(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }
    assert {name for name in own if not name.isupper() and name[0] != "_"} == {path.stem}
    assert not [n.name for n in tree(path).body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"]


# What is installed


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in [*project["dependencies"], *extras["test"], *extras["ray"]]]


def peers() -> list[Requirement]:
    """What benchmarks alone may import."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [Requirement(line) for line in extras["bench"]]


def locked() -> dict[str, str]:
    return dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())


def test_the_lock_holds_names_and_exact_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    version = r"([0-9]+!)?[0-9][0-9a-z.]*"  # an epoch before it is part of a version, too
    assert [line for line in lines if not re.fullmatch(rf"[a-z0-9-]+=={version}", line)] == []
    assert lines == sorted(set(lines), key=lambda line: line.split("==")[0])


def test_the_lock_satisfies_every_dependency():
    pins = locked()
    unmet = [str(r) for r in requirements() if pins.get(canonicalize_name(r.name), "") not in r.specifier]
    assert unmet == []


def undeclared(paths: list[Path], allowed: list[Requirement]) -> list[str]:
    declared = {canonicalize_name(requirement.name) for requirement in allowed}
    offered = packages_distributions()
    own = {"ml_platform", "feature_defs", "ml_platform_tests"}
    tops = {name.split(".")[0] for path in paths for name in imported(path)} - own - sys.stdlib_module_names
    return sorted(top for top in tops if not {canonicalize_name(d) for d in offered.get(top, [top])} & declared)


def test_every_imported_package_is_a_declared_dependency():
    bench = [path for path in HOUSE if path.parent.name == "bench"]
    assert undeclared([path for path in HOUSE if path not in bench], requirements()) == []
    assert undeclared(bench, [*requirements(), *peers()]) == []
