# Trains, evaluates and decides; serves nothing. Build from the repository's root, as deploy/Dockerfile:
#   docker build -f deploy/training.Dockerfile -t ml-platform-training .
FROM python:3.11-slim
# LightGBM's OpenMP runtime; git tells run manifests the commit where there is one.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 git && rm -rf /var/lib/apt/lists/*
# Where wheels of torch's CPU build are found; without it pip takes the CUDA build (several GB).
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL} PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements.lock ./
RUN pip install "$(grep '^pip==' requirements.lock)" && pip install -r requirements.lock
COPY pyproject.toml README.md LICENSE workspace.yaml ./
COPY ml_platform ml_platform
COPY feature_defs feature_defs
RUN pip install --no-deps .
COPY deploy/dagster.yaml /dagster/dagster.yaml
ENV DAGSTER_HOME=/dagster ML_PLATFORM_HOME=/state
RUN useradd --uid 10001 --create-home platform && mkdir /state && chown platform /state /dagster
# By number, so that Kubernetes can see that it is not root.
USER 10001
VOLUME /state
# One daemon, never two: it evaluates the conditions, and the runs that it launches train in this container.
CMD ["dagster-daemon", "run", "-w", "workspace.yaml"]
