# Everything a newcomer types. Needs Python >= 3.11 and make; nothing else.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup tools demo up down test test-all soak lint bench gpu screenshots catalog lock clean

setup: .venv/.installed

.venv/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kotrain needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ...")' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing kotrain into .venv (2 to 5 minutes, once)" >&2
	@$(BIN)/python -m pip install -qq --require-hashes -r constraints.txt >&2
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e . >&2
	@touch $@

# The whole way on real data: database, broker, API, worker, about 150 training runs, a verdict. Leaves nothing running.
demo: setup
	@$(BIN)/kotrain demo

up: setup
	@$(BIN)/kotrain up

down: setup
	@$(BIN)/kotrain down

# The tests open reports in a real browser, compile their LaTeX, and put a proxy in front of the API. Where chromium is
# installed, it will do.
TOOLS := chromium-headless-shell texlive-latex-recommended nginx-light
tools:
	@{ command -v chromium-headless-shell || command -v chromium; } >/dev/null && command -v pdflatex >/dev/null && kpsewhich -format=tex booktabs.sty >/dev/null && PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || \
	{ test "$$(id -u)" = 0 || { echo "the tests need: sudo apt-get install $(TOOLS)" >&2; exit 1; }; \
	  echo "installing $(TOOLS) (half a minute, once)" >&2; \
	  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(TOOLS) >/dev/null; }

# Three processes on two cores, because many tests wait; each imports everything, so that more would not be faster. The
# tests of a file stay together and share their servers.
# Kept bytecode: without it, each process compiles all tests anew, for 7 s.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder
test: setup tools
	$(PYTEST) -m "not full"

# Everything, simulations with all their replicates and properties with all their examples.
test-all: setup tools
	KOTRAIN_TESTS=full $(PYTEST)

# Ten minutes of faults at random on a real stack; fails if a job is lost. `SOAK="--seed 7"` gives another order.
soak: setup
	$(BIN)/python -m tests.soak $(SOAK)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/oxlint --deny-warnings service/dashboard/static

bench: setup
	$(BIN)/python benchmarks/engine_overhead.py
	KOTRAIN_DATA_DIR=$${KOTRAIN_DATA_DIR:-../shared/data} $(BIN)/python benchmarks/checkpoint_cost.py
	$(BIN)/python benchmarks/ko_step.py
	$(BIN)/python benchmarks/diagnostics_cost.py
	$(BIN)/python benchmarks/golden.py --quick
	$(BIN)/python benchmarks/comparison_answers.py
	$(BIN)/python benchmarks/retention.py
	$(BIN)/python -m benchmarks.listeners
	$(BIN)/python -m benchmarks.start_up
	$(BIN)/python -m benchmarks.attacks

# Jobs and KO on a GPU, and the tables for docs/benchmarks.md.
gpu: setup
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	    $(BIN)/pytest tests/gpu && $(BIN)/pytest tests/unit/ko -k cuda && \
	    $(BIN)/python benchmarks/engine_overhead.py && $(BIN)/python benchmarks/ko_step.py --markdown; \
	else echo "skipped: torch finds no CUDA device on this machine"; fi

# Pictures of the dashboard's pages into docs/pictures/dashboard/, of a whole stack with real runs in it (3 minutes).
screenshots: setup tools
	$(BIN)/python -m tests.browser.screenshots

# After an update of a library: the files that describe its optimizers and models to the API, and the tables of
# docs/optimizers.md and docs/models.md. Each optimizer goes through the conformance test (10 minutes), images of many
# sizes through each model (an hour).
catalog: setup
	$(BIN)/python -m workers.training.library_catalog
	$(BIN)/python -m workers.training.model_catalog

# After a change of dependencies in pyproject.toml; the result carries hashes and no index address.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate -o constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
