"""The texts beside the code in an image's context."""

import json
from collections.abc import Mapping, Sequence

from ml_platform.serving.shipped import PORT, Shipped

_USER = 10001  # no user of the base image has it


def texts(shipped: Shipped, pins: Sequence[str], pip: str) -> Mapping[str, str]:
    """Name -> content. pins: lines of the requirements; pip: its locked version."""
    return {
        "requirements.txt": "".join(f"{line}\n" for line in pins),
        "Dockerfile": _dockerfile(shipped, pip),
        ".dockerignore": "Dockerfile\nbentofile.yaml\nREADME.md\n**/__pycache__\n",
        "shipped_service.py": _SERVICE,
        "bentofile.yaml": _bentofile(shipped),
        "README.md": _readme(shipped),
    }


_SERVICE = '''"""What `bentoml build` packs: exactly the version in this folder."""

from pathlib import Path

from ml_platform.serving.shipped import bento

service = bento(Path(__file__).resolve().parent)
'''


def _dockerfile(shipped: Shipped, pip: str) -> str:
    check = f"import urllib.request as ask; ask.urlopen('http://127.0.0.1:{PORT}/readyz', timeout=2)"
    return f"""\
# Version {shipped.version} of {shipped.model} for service {shipped.service}.
# Build here: docker build -t {shipped.service}:{shipped.version} .
FROM python:3.11-slim
# LightGBM's OpenMP runtime.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
# Where wheels of torch's CPU build are found; without it pip takes the CUDA build (several GB) for a network.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_EXTRA_INDEX_URL=${{PIP_EXTRA_INDEX_URL}} PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY requirements.txt ./
RUN pip install pip=={pip} && pip install -r requirements.txt
COPY . ./
RUN useradd --uid {_USER} --no-create-home server && mkdir /state && chown server /state
# By number, so that Kubernetes can see that it is not root.
USER {_USER}
ENV ML_PLATFORM_HOME=/state ML_PLATFORM_PROJECT={shipped.project} ML_PLATFORM_IMAGE=/app
# The prediction log, and the keys where they are not mounted.
VOLUME /state
EXPOSE {PORT}
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "{check}"]
# One worker, and no supervisor: whoever runs containers starts a new one when it ends.
ENTRYPOINT ["python", "-m", "ml_platform.serving.shipped", "/app"]
CMD ["--host", "0.0.0.0"]
"""


def _bentofile(shipped: Shipped) -> str:
    """YAML, of which JSON is a part."""
    body = {
        "service": "shipped_service:service",
        "name": shipped.service,
        "description": f"Version {shipped.version} of {shipped.model}.",
        "labels": {"model": shipped.model, "version": shipped.version},
        "include": ["*"],
        "exclude": ["__pycache__/", "Dockerfile"],
        "python": {"requirements_txt": "./requirements.txt", "lock_packages": False},  # they are locked already
        "docker": {"python_version": "3.11", "system_packages": ["libgomp1"]},
        "envs": [
            {"name": "ML_PLATFORM_HOME", "value": "/home/bentoml/state"},
            {"name": "ML_PLATFORM_PROJECT", "value": shipped.project},
            {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        ],
    }
    return json.dumps(body, indent=2) + "\n"


def _readme(shipped: Shipped) -> str:
    files = "".join(f"| {path} | `{digest}` |\n" for path, digest in sorted(shipped.digests.items()))
    line = shipped.allowed.get("line")
    by = f"by line {line} ({shipped.allowed['kind']}) of the ledger" if line else "by nobody's word: with --override"
    return f"""\
# Version {shipped.version} of {shipped.model}, service {shipped.service}

Made at {shipped.made.isoformat()}; it may serve {by}.

`docker build -t {shipped.service}:{shipped.version} .`, or `bentoml build --version v{shipped.version}` and `bentoml
containerize`; here: `python -m ml_platform.serving.shipped . --port {PORT}`. It refuses to start when a file of the
model is not one of these:

| file | SHA-256 |
|---|---|
{files}
Beyond loopback it wants keys in `/state/keys/{shipped.service}.json`, or `--open`. With
`ML_PLATFORM_PROFILE=production` it reads features from `ML_PLATFORM_REDIS_URL` and needs no other address.
"""
