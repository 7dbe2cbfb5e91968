"""Runs `feast apply` on the project's Feast repository, in a process of its own: Feast takes seconds to import."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from ml_platform.resources.profiles import Profile
from ml_platform.spec import DeclarationError, PlatformError, Project

# Feast imports PyTorch where it finds it, for what we do not use: a fourth of the time.
_FEAST = "import sys; sys.modules['torch'] = None; from feast.cli.cli import cli; cli()"
_TIMEOUT_SECONDS = 300  # ten times what it takes on a busy laptop


def repository(project: Project) -> Path:
    """The folder of the project's Feast repository.

    Raises:
        DeclarationError: it is not there or holds no feature_store.yaml.
    """
    try:
        spec = importlib.util.find_spec(project.features)
    except ModuleNotFoundError as error:
        raise DeclarationError(f"cannot find {project.features} ({error}); install it or correct the name") from error
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / "feature_store.yaml").exists():
        raise DeclarationError(f"the package {project.features} holds no feature_store.yaml; Feast needs one there")
    return folder


def apply(project: Project, profile: Profile) -> str:
    """Register every view, entity and service with Feast; returns what Feast said.

    Raises:
        PlatformError: Feast refused; its last lines are in the message.
    """
    folder = repository(project)
    profile.home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ML_PLATFORM_HOME": str(profile.home), "ML_PLATFORM_PROJECT": profile.project}
    command = [sys.executable, "-c", _FEAST, "-c", str(folder), "apply"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"`feast apply` on {folder} took over {_TIMEOUT_SECONDS} s; run it again") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise PlatformError(f"`feast apply` on {folder} failed; correct the views it names and run it again:\n{tail}")
    return done.stdout
