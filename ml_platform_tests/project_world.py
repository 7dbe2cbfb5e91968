"""A small shop's package of declarations, written into a folder with a file changed here and there."""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.resources.projects import load_project
from ml_platform.spec import Project

FILES = {
    "__init__.py": """
from datetime import date
from ml_platform.spec import Project
project = Project(name="shop", features="{package}.repo", timezone="America/New_York", starts=date(2024, 3, 1),
    ready_from=date(2024, 3, 2), serves_from=date(2024, 3, 3), replay_until=date(2024, 3, 4))
""",
    "tables/__init__.py": "",
    "tables/sales.py": """
import polars as pl
from ml_platform.spec import SourceTable
sales = SourceTable(read=lambda start, end: pl.DataFrame(), key=("id",), description="", known_at_source="the till",
    columns={{"id": pl.String, "shop": pl.String, "paid": pl.Float64, "known_at": pl.Datetime("us", "UTC")}})
""",
    "repo/__init__.py": "",
    "repo/feature_store.yaml": "project: shop",
    "repo/views/__init__.py": "",
    "repo/views/shops.py": """
from datetime import timedelta
import polars as pl
from ml_platform.spec import Entity, FeatureView, Window
shops = FeatureView(source="sales", entities=(Entity(name="shop"),), description="",
    features=(Window("paid", "sum", over=(timedelta(hours=1),)),))
""",
    "models/__init__.py": "",
    "models/returns.py": """
from datetime import timedelta
import polars as pl
from ml_platform.spec import GatePolicy, Label, ModelSpec, Task
_task = Task(name="t", spine="sales", key="id", happens_at="known_at", lead=timedelta(0), grid=timedelta(hours=1),
    entities=("id", "shop"), categorical=(), description="",
    label=Label(table="sales", on=("id",), value=pl.col("paid") < 0, description=""))
returns = ModelSpec(task=_task, views=("shops",), estimator="lightgbm", parameters={{}}, description="",
    policy="weekly")
""",
    "policies/__init__.py": "",
    "policies/weekly.py": """
from ml_platform.spec import RetrainPolicy
weekly = RetrainPolicy()
""",
    "policies/inputs.py": """
from ml_platform.spec import DriftPolicy
inputs = DriftPolicy(service="desk")
""",
    "services/__init__.py": "",
    "services/desk.py": """
from ml_platform.spec import Service
desk = Service(model="returns", description="")
""",
}
_numbers = itertools.count()
Loader = Callable[..., Project]


@contextmanager
def loader(folder: Path) -> Iterator[Loader]:
    """Writes the small shop with some files changed (None: left out) or a text in one replaced, and loads it."""
    package = f"shop_{next(_numbers)}_of_these_tests"
    before = set(sys.modules)
    sys.path.insert(0, str(folder))

    def written(changed: dict[str, str | None] | None = None, *, at: str = "", old: str = "", new: str = "") -> Project:
        for name, text in (FILES | (changed or {})).items():
            if text is not None:
                path = folder / package / name
                path.parent.mkdir(parents=True, exist_ok=True)
                assert old in text or name != at
                path.write_text((text.replace(old, new) if name == at else text).format(package=package))
        return load_project(package)

    try:
        yield written
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if package in name:
                del sys.modules[name]
