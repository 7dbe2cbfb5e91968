"""MLflow's own pages on an embedded state, in a process of their own that ends with who started it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ml_platform.resources.profiles import Profile, pages_on
from ml_platform.serving.mlflow_ui import start_mlflow_ui
from ml_platform.serving.process import listen
from ml_platform.spec import PortInUse
from ml_platform_tests.registry_world import MODEL, Registry

SECONDS = 90  # MLflow's server takes five seconds to import; a busy machine is given much
# Becomes another program, as `ml-platform ui` does: the server has to live on, and to end with that.
PARENT = """
import os, sys
from pathlib import Path
from ml_platform.resources.profiles import Profile
from ml_platform.serving.mlflow_ui import start_mlflow_ui
print(start_mlflow_ui(Profile.at(Path(sys.argv[1])), "127.0.0.1", 0), flush=True)
os.execv("/bin/sleep", ["sleep", "600"])
"""


def answered(address: str, asked: dict[str, Any] | None = None) -> bytes:
    """What the server says, once it answers."""
    deadline = time.monotonic() + SECONDS
    body = None if asked is None else json.dumps(asked).encode()
    while True:
        try:
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return bytes(answer.read())
        except (ConnectionError, urllib.error.URLError):
            assert time.monotonic() < deadline, address
            time.sleep(0.2)


def listens(port: int) -> bool:
    try:
        listen("127.0.0.1", port).close()
    except PortInUse:
        return True
    return False


@pytest.mark.long
def test_it_shows_the_registered_versions_and_ends_with_its_parent(tmp_path: Path) -> None:
    registry = Registry.fresh(tmp_path / "home")
    registry.train()
    command = [sys.executable, "-c", PARENT, str(registry.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        pages = pages_on(3001, port)
        assert b"<title>MLflow</title>" in answered(f"{pages.mlflow}/")
        asked = f"{pages.mlflow}/ajax-api/2.0/mlflow/registered-models/get?name={MODEL}"
        found = json.loads(answered(asked))["registered_model"]
        assert found["latest_versions"][0]["version"] == "1"
        assert listens(port)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while listens(port):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.2)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            start_mlflow_ui(Profile.at(tmp_path), "127.0.0.1", port)


@pytest.mark.parametrize(
    ("address", "pages"),
    [
        ("https://mlflow.example/", "https://mlflow.example"),
        ("postgresql+psycopg2://user:secret@host/mlflow", "http://127.0.0.1:3002"),
    ],
)
def test_a_server_shows_its_own_pages_and_no_password_is_shown(address: str, pages: str) -> None:
    told = dict.fromkeys(
        ("ML_PLATFORM_LAKE", "ML_PLATFORM_MLFLOW_ARTIFACTS", "ML_PLATFORM_POSTGRES_URL", "ML_PLATFORM_REDIS_URL"), "x"
    )
    profile = Profile.from_environment({**told, "ML_PLATFORM_PROFILE": "production", "ML_PLATFORM_MLFLOW_URI": address})
    assert profile.pages.mlflow == pages


@pytest.mark.parametrize(
    ("set_to", "mlflow", "dagster"),
    [
        ({}, "http://127.0.0.1:3002", "http://127.0.0.1:3001"),
        ({"ML_PLATFORM_MLFLOW_UI": "https://mlflow.example/"}, "https://mlflow.example", "http://127.0.0.1:3001"),
        ({"ML_PLATFORM_DAGSTER_UI": "https://dagster.example"}, "http://127.0.0.1:3002", "https://dagster.example"),
    ],
)
def test_settings_say_where_people_find_the_pages(set_to: dict[str, str], mlflow: str, dagster: str) -> None:
    pages = Profile.from_environment(set_to).pages
    assert (pages.mlflow, pages.dagster) == (mlflow, dagster)
    assert pages.mlflow_run("1", "abc") == f"{mlflow}/#/experiments/1/runs/abc"
    assert pages.dagster_asset("models/delay") == f"{dagster}/assets/models/delay"
