"""How long the definitions take to load in a fresh process, and what they drag in.

Run it: ``python -m ml_platform.bench.loading``.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

# Imported inside the functions that use them, never by loading the definitions.
HEAVY = frozenset(
    [
        "feast",
        "torch",
        "mlflow",
        "evidently",
        "great_expectations",
        "bentoml",
        "lightgbm",
        "pandas",
        "ray",
        "matplotlib",
        "sklearn",
    ]
)
LIMIT_SECONDS = 2.5

# Resolves whatever the module offers, as Dagster does when it loads a code location.
_CHILD = """
import json, sys, time
started = time.perf_counter()
import importlib
import dagster as dg
from dagster.components.definitions import LazyDefinitions
offered = vars(importlib.import_module(sys.argv[1])).values()
found = [value for value in offered if isinstance(value, dg.Definitions | LazyDefinitions)]
definitions = [v if isinstance(v, dg.Definitions) else v() for v in found]
for each in definitions:
    dg.Definitions.validate_loadable(each)
seconds = time.perf_counter() - started
assets = sum(len(list(each.resolve_asset_graph().get_all_asset_keys())) for each in definitions)
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"seconds": seconds, "assets": assets, "modules": modules}))
"""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """One load in a fresh process: wall seconds from the first import to resolved, and the packages then loaded."""

    seconds: float
    assets: int
    modules: frozenset[str]

    @property
    def heavy(self) -> frozenset[str]:
        """The packages that should not have been loaded."""
        return self.modules & HEAVY


def load_once(module: str = "ml_platform.definitions", folder: Path | None = None) -> Loading:
    """Load the definitions of ``module`` in a fresh process that runs in ``folder``.

    Raises:
        subprocess.CalledProcessError: they do not load; the reason went to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, module], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Loading(seconds=found["seconds"], assets=found["assets"], modules=frozenset(found["modules"]))


@click.command()
@click.option("--times", default=5, show_default=True, help="Fresh processes to take the median of.")
def main(times: int) -> None:
    """Print the median seconds of loading, the number of assets and what heavy packages came with them."""
    runs = [load_once() for _ in range(times)]
    seconds = sorted(run.seconds for run in runs)
    click.echo(
        f"definitions: {runs[0].assets} assets in {median(seconds):.2f} s (median of {times}, "
        f"{seconds[0]:.2f} to {seconds[-1]:.2f}; at most {LIMIT_SECONDS} wanted); "
        f"heavy packages loaded: {', '.join(sorted(runs[0].heavy)) or 'none'}"
    )


if __name__ == "__main__":
    main()
