# Everything goes into .venv next to this file. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
BIN = .venv/bin

.PHONY: setup demo test slow docs benchmarks
demo: .venv/installed  ## set up, make data, train, predict, draw
	$(BIN)/python examples/demo.py

setup: .venv/installed  ## set up only

test: .venv/installed  ## set up, pass the tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n auto

slow: .venv/installed  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

docs: .venv/installed  ## the site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

benchmarks: .venv/installed  ## the figures of the README, except the training on ISBI-2012
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/dense_prediction.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/warping.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/training_loop.py

.venv/installed: pyproject.toml
	@echo "Setting up .venv: about 2 GB, which takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
