# `make test` and `make demo` work on a fresh clone: they make .venv from constraints.txt first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiled programs are kept between runs, so that a second test run is faster than the first.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5

.PHONY: test lint format demo clean

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; PYTHON=... chooses one.")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A module's tests stay in one worker, so that what they share is compiled once.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.synthetic_rmgl --preset demo --workdir runs/demo --data_dir runs/data --baselines --figures

clean:
	rm -rf $(VENV) .cache build *.egg-info
