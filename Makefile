# Makes what a target needs by itself: `.venv` from a lock file with hashes, once.

BIN := .venv/bin
RUNTIME := .venv/requirements.lock.done
DEVELOPMENT := .venv/requirements-dev.lock.done
SOURCES := pyproject.toml .ci/environment.py
RUN_ARGS :=
TEST_ARGS :=
SEED := 0-199
SIM_ARGS :=
FUZZ_ARGS := all
BENCH_ARGS :=
LOCK_ARGS :=

# The first interpreter of a supported version, by trying: a name that is there may still not run. PYTHON=... overrides.
CANDIDATES := python3.12 python3.11 python3
IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
define find_python
	for name in $(or $(PYTHON),$(CANDIDATES)); do \
		"$$name" -c '$(IS_SUPPORTED)' 2>/dev/null && { python="$$name"; break; }; \
	done; \
	if [ -z "$$python" ]; then \
		for name in $(or $(PYTHON),$(CANDIDATES)); do \
			found="$$found $$name ($$("$$name" --version 2>/dev/null || echo "does not run"));"; \
		done; \
		echo "make: Python 3.11 or 3.12 is needed, found$$found install one or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi
endef

.PHONY: help run test sim fuzz check format bench docs site lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: $(RUNTIME)  ## a development network with a street of homes; RUN_ARGS="--no-demo" for more options
	@exec $(BIN)/ctt devnet --validators 4 --dir data/devnet --rpc-port 8545 --p2p-port 30303 --demo $(RUN_ARGS)

test: $(DEVELOPMENT)  ## all tests; TEST_ARGS="-k shelf" for more options
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

sim: $(DEVELOPMENT)  ## consensus in simulated worlds: SEED=7 or SEED=0-999; SIM_ARGS="--twins 500" for more options
	@$(BIN)/python -m tests.simulation --seeds $(SEED) --jobs 2 $(SIM_ARGS)

fuzz: $(DEVELOPMENT)  ## the decoders that strangers reach; FUZZ_ARGS="rlp --seconds 600"; guided by coverage where atheris is installed
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

check: $(DEVELOPMENT)  ## format, lint, types and the architecture's rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(DEVELOPMENT)  ## formats the code and sorts imports
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: $(RUNTIME)  ## the ledger at growing sizes, JSON out; with URL=http://127.0.0.1:8545 the throughput of that node
	$(BIN)/python -m $(if $(URL),bench.throughput --url $(URL),bench.state) $(BENCH_ARGS)

docs: $(DEVELOPMENT)  ## writes docs/RPC.md and docs/CLI.md anew, with the answers of a small chain as examples
	$(BIN)/python -m tests.rpc_examples
	$(BIN)/python -m rpc.handbook > docs/RPC.md.new && mv docs/RPC.md.new docs/RPC.md
	$(BIN)/python -m node.cli.handbook > docs/CLI.md.new && mv docs/CLI.md.new docs/CLI.md

site: $(DEVELOPMENT)  ## the documentation as pages in build/site; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "build/site/index.html"

lock: $(DEVELOPMENT)  ## writes the lock files anew; LOCK_ARGS=--upgrade for newer versions
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile $(LOCK) --all-build-deps -o requirements.lock pyproject.toml
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile $(LOCK) -o requirements-dev.lock requirements-dev.in

# No registry's address goes into a lock: pip is configured where it runs.
LOCK = --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host \
	--no-emit-find-links --no-emit-options $(LOCK_ARGS)

clean:  ## removes the environment and all caches; data/ stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/clients/node_modules bench/peers/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): requirements.lock $(SOURCES)
	@$(find_python); "$$python" .ci/environment.py requirements.lock

$(DEVELOPMENT): $(RUNTIME) requirements-dev.lock $(SOURCES)
	@$(find_python); "$$python" .ci/environment.py requirements-dev.lock
