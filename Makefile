# `make test` and `make demo` work on a fresh clone: they make .venv from constraints.txt first.
# Another Python: make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv
# Continuous integration adds `aot`, the compiler for TPUs, whose messages people need not see.
EXTRAS ?= dev
BIN := $(VENV)/bin
# Three workers on two cores, because many tests wait for processes, servers and browsers. A module's
# tests stay in one of them, so that what they share is compiled once. The order is that of
# tests/conftest.py: xdist would start the modules with the fewest tests last, and those are the slow
# ones.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: lint format check test docs torture gpu bench demo clean

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; PYTHON=... chooses one.")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# Style, format, types and import directions.
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What to run while editing: everything but the tests that compile a network, and the documentation
# site, which takes half a minute.
check: lint
	$(PYTEST) -m "not network" --ignore tests/test_site.py

test: lint
	$(PYTEST)

# The documentation site, in build/docs. A warning is an error, and so is a figure that no file of
# docs/results holds; `make test` checks both too.
docs: $(VENV)/.installed
	$(BIN)/python docs/results.py --check
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo The site is build/docs/index.html

# The fault campaign of docs/reliability.md; TORTURE="--minutes 5" passes options.
torture: $(VENV)/.installed
	$(BIN)/python -m tests.torture $(TORTURE)

# One record of a GPU within 25 minutes; GPU="--minutes 50 --folder DIR" passes options. On a machine
# with CUDA 13 the environment needs JAX for it: .venv/bin/pip install -c constraints.txt -e '.[cuda]'
gpu: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu_record $(GPU)

# The benchmarks of docs/performance.md, compared with the last ones of the same processor; for a
# machine that does nothing else. BENCH="--only retrieval" chooses.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.suite $(BENCH)

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.synthetic_rmgl --preset demo --workdir runs/demo --data-dir runs/data --baselines --figures

clean:
	rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
