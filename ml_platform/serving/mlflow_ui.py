"""MLflow's pages where it has no server, beside Dagster's: one process on a socket that the parent bound.

`mlflow ui` would do, too, but starts four workers and a queue of jobs, and does not end with who started it.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from ml_platform.resources.profiles import Profile
from ml_platform.serving.child import end_with_parent
from ml_platform.serving.process import listen
from ml_platform.stores.tracking import Tracking, quiet_mlflow


def start_mlflow_ui(profile: Profile, host: str, port: int) -> int:
    """Start it for as long as this process lives, whatever program it becomes; returns the port (0: any free one).

    Call it from the main thread: the kernel ends the child with the thread that started it.

    Raises:
        PortInUse: somebody else listens there. ServiceError: the address cannot be had for another reason.
    """
    log = profile.home / "mlflow" / "ui.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ml_platform.serving.mlflow_ui", "--parent", str(os.getpid())]
    with listen(host, port) as listening, log.open("ab") as output:
        subprocess.Popen(
            [*command, "--fd", str(listening.fileno())],
            env={**os.environ, "ML_PLATFORM_HOME": str(profile.home)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(listening.fileno(),),
            start_new_session=True,  # Ctrl-C in a terminal is for the parent, whose end is ours
        )
        bound: int = listening.getsockname()[1]
    return bound


def run(profile: Profile, listening: socket.socket) -> None:
    """Show the profile's MLflow on the socket until SIGTERM or SIGINT."""
    quiet_mlflow()
    import uvicorn
    from mlflow import server

    tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
    tracking.names()  # makes the tables where nothing was ever registered
    os.environ[server.BACKEND_STORE_URI_ENV_VAR] = os.environ[server.REGISTRY_STORE_URI_ENV_VAR] = tracking.uri
    os.environ[server.ARTIFACT_ROOT_ENV_VAR] = tracking.artifacts
    from mlflow.server.fastapi_app import app  # reads those

    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m ml_platform.serving.mlflow_ui``: for the parent, not for people (they have ``ml-platform ui``)."""
    parser = argparse.ArgumentParser(description="MLflow's UI on an inherited socket.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    asked = parser.parse_args(arguments)
    end_with_parent(asked.parent, by_signal=True)
    run(Profile.from_environment(), socket.socket(fileno=asked.fd))


if __name__ == "__main__":
    main()
