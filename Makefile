# `make run` and `make test` need Python 3.11 and nothing else: they make .venv from the locked versions first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Options for the command behind the target: make run ARGS="--until 2013-06-30", make test ARGS="-k windows".
ARGS ?=

.PHONY: run ui services test test-long test-slow lint types contracts validate check format lock clean help

run: $(READY)  ## the main job: bootstrap, serve, replay real days
	$(BIN)/ml-platform run $(ARGS)

ui: $(READY)  ## Dagster's UI and daemon on the same state
	$(BIN)/ml-platform ui $(ARGS)

services:  ## Prometheus, Alertmanager and nginx for the tests, from Debian's archive into .debian
	.ci/services

test: $(READY)  ## the default tests
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

test-long: $(READY)  ## real processes, driven and killed; CI runs them, too
	$(BIN)/pytest -n 2 --dist loadfile -m long $(ARGS)

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/pytest -m slow $(ARGS)

lint: $(READY)  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)  ## who may import whom, from setup.cfg
	$(BIN)/lint-imports

validate: $(READY)  ## the definitions load as Dagster loads them
	$(BIN)/dagster definitions validate -w workspace.yaml

check: test test-long lint types contracts validate  ## all of it

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last: an interrupted installation is taken up again. The locked pip comes first, because the one
# that Python 3.11 brings takes a minute and a half longer to read the lock.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is not there or is not Python 3.11; install Python 3.11 or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked versions into $(VENV); this takes some minutes the first time"
	$(PIP) "$$(grep '^pip==' requirements.lock)"
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

# The newest versions that pyproject.toml allows; torch's local tag (+cpu) is dropped, for it names a build, not a version.
lock:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[test,ray]'
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+[a-z0-9.]*$$//' \
	  | $(BIN)/python -c 'import re, sys; print("".join(sorted(re.sub("[._]", "-", n.lower()) + s + v for n, s, v in (line.partition("==") for line in sys.stdin))), end="")' > requirements.lock
	$(MAKE) $(READY)

clean:  ## the environment and what tools cached; the state folder stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build ml_platform.egg-info

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ :/'
