# `make demo` and `make test` do all the set-up, in .venv. PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check setup setup-dev format settings clean

demo: setup  ## one cell with two small tasks, two on planted text, and all of them side by side
	$(BIN)/python run.py embed=e128 share=all objective=sop task=demo
	$(BIN)/python run.py scale=controls objective=sop
	$(BIN)/python run.py scale=controls objective=nsp data.planted.order=0
	$(BIN)/python -m analysis.compare runs

test: setup-dev  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup-dev  ## lint, formatting, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: setup-dev  ## put the code into its house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: .venv/.installed  ## create the environment for users

setup-dev: .venv/.installed-dev  ## the same with what the tests need

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is another. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed

settings: setup  ## write docs/settings.md from the comments in conf/
	$(BIN)/python -c 'from albert_ablate.door.help import page; print(page(), end="")' > docs/settings.md

clean:  ## remove the environment and the caches; runs/ stays
	rm -rf .venv cache .pytest_cache .mypy_cache .ruff_cache
