# Everything a newcomer types. Needs Python >= 3.11 and make; nothing else.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo up down test lint bench lock clean

setup: .venv/.installed

.venv/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kotrain needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ...")' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing kotrain into .venv (about 2 minutes, once)" >&2
	@$(BIN)/python -m pip install -qq --require-hashes -r constraints.txt >&2
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e . >&2
	@touch $@

lock:
	$(BIN)/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate -o constraints.txt
