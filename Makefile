# The verbs one needs; see README.md and CONTRIBUTING.md.
#
#   make up     install what is missing, start a cluster, deploy examples/01-hello, fetch it
#   make down   remove every trace of it
#   make test   the whole test suite; `make test-unit` is the part that takes less than a minute

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Programs of the system that a real node needs; installed through apt when absent and allowed.
PACKAGES := containerd runc containernetworking-plugins nftables iproute2 busybox-static
TEST_PACKAGES := docker-registry openssl

.PHONY: up down test test-unit test-e2e lint types docs bench system test-system clean

up: $(VENV)/.installed system
	@$(BIN)/python examples/01-hello/run.py

down: $(VENV)/.installed
	@$(BIN)/p8s down --purge

# Everything that can run here; what needs more than this machine has is skipped, and says why.
test: $(VENV)/.developing test-system
	$(BIN)/pytest

# Less than a minute: no containers, nothing slow.
test-unit: $(VENV)/.developing
	$(BIN)/pytest -m "not e2e and not slow"

test-e2e: $(VENV)/.developing test-system
	$(BIN)/pytest -m e2e

lint: $(VENV)/.developing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.developing
	$(BIN)/mypy

docs: $(VENV)/.developing
	$(BIN)/pytest tests/docs

bench: $(VENV)/.developing
	$(BIN)/python -m benchmarks

system:
	@tools/system-packages $(PACKAGES)

test-system:
	@tools/system-packages $(PACKAGES) $(TEST_PACKAGES)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing pybernetes into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developing: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev,fast]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build
