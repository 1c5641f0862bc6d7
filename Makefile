# The verbs of this project; `make` alone lists them.

PYTHON ?= python3
# More than two cores are: a third of the time tests wait, for what others do or for time to pass.
PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked

.DEFAULT_GOAL := help

SERVERS := tests/servers/node_modules/.locked

.PHONY: help setup lock format check servers test rounds processes soak demo server bench clean

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv with every locked dependency

# The lock is complete, so nothing is resolved: pip would look up `sqlalchemy[asyncio]` apart from `sqlalchemy`, find
# another version than the one locked, and give up.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "azure-vsa needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock: ## resolve the dependencies anew into requirements.lock
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet pip-tools
	$(VENV)/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra dev --extra azsim --output-file requirements.lock pyproject.toml
	rm -rf $(VENV)/lock

format: setup ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

servers: $(SERVERS) ## install the servers from npm that tests start; without them those tests are skipped

$(SERVERS): tests/servers/package-lock.json
	npm ci --prefix tests/servers --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $(SERVERS)

test: check ## everything that needs no real cloud, in under ten minutes
	$(BIN)/python -m pytest --numprocesses $(PROCESSES)

# Tests that play rounds: few in `make test`, more of some in CI, all in the soak (tests/soak.py). CI does not repeat what
# `make test` has shown.
MORE := -m "only_in_ci or more_in_ci"
ENGINE_ROUNDS := tests/engine/test_changes_in_mid_job.py tests/engine/test_access_in_mid_job.py \
  tests/engine/test_quotas.py tests/engine/test_bases_of_nobody.py \
  tests/engine/test_disks_of_every_sort.py tests/engine/test_jobs_at_once.py \
  tests/engine/test_changing_estate.py tests/engine/test_kept_and_gone.py
ROUNDS := tests/faults/test_schedules.py tests/faults/test_store_calls_of_upkeep.py \
  tests/faults/test_store_calls_of_a_job.py tests/faults/test_store_requests_of_a_job.py \
  tests/faults/test_azure_calls_of_a_job.py tests/faults/test_fault_points.py \
  tests/faults/test_virtual_days.py tests/faults/test_years.py tests/faults/test_killed_rotation.py \
  tests/faults/test_little_memory.py tests/faults/test_power_lost.py \
  tests/upkeep/test_flipped_bits.py tests/upkeep/test_repack.py tests/protocol/test_protocol.py \
  tests/media/test_faults.py tests/media/test_layers.py tests/media/test_moves.py tests/media/test_sealing.py \
  tests/transfer/test_proxies.py $(ENGINE_ROUNDS)
ALL_ROUNDS := tests/faults tests/protocol tests/upkeep tests/media tests/engine/test_random_history.py \
  $(ENGINE_ROUNDS) tests/transfer/test_proxies.py

rounds: setup ## what CI adds to the tests: more rounds of faults, kills and schedules
	AZURE_VSA_SOAK=ci $(BIN)/python -m pytest --numprocesses $(PROCESSES) --timeout 1800 --durations 20 -rA $(MORE) $(ROUNDS)

# Tests that start servers, workers and jobs and end them in every way; those of a process share them (tests/conftest.py).
# Groups begin in this order, the longest first. tests/installation starts a whole one, and looks at it with Chromium.
PROCESS_TESTS := tests/flows/test_proxies.py tests/flows/test_proxies_that_die.py \
  tests/flows/test_register.py tests/flows/test_deployments.py \
  tests/flows/test_jobs_that_are_stopped.py tests/flows/test_server_away.py tests/flows/test_cancelled_by_hand.py \
  tests/flows/test_memory_of_a_stream.py tests/installation/test_dashboard.py tests/installation/test_server.py \
  tests/flows/test_child_runs.py tests/flows/test_sweep_leftovers.py tests/flows/test_watching.py tests/flows/test_signals.py \
  tests/flows/test_secrets.py tests/flows/test_pools.py tests/flows/test_postgresql.py \
  tests/flows/test_backup_process.py

processes: setup ## in CI: jobs whose proxies, server or process die, freeze or are stopped
	AZURE_VSA_SOAK=ci $(BIN)/python -m pytest --numprocesses $(PROCESSES) --timeout 1800 --durations 20 $(MORE) $(PROCESS_TESTS)

soak: setup ## all rounds of faults, kills and schedules: hours
	AZURE_VSA_SOAK=1 $(BIN)/python -m pytest --timeout 0 -rA tests/flows/test_proxies.py tests/flows/test_secrets.py \
	  tests/flows/test_memory_of_a_stream.py
	AZURE_VSA_SOAK=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --timeout 0 -rA $(ALL_ROUNDS)

demo: setup ## the main job on a simulated Azure, with its proofs
	$(BIN)/python -m demo

server: setup ## a complete local installation, until Ctrl-C; OPTIONS="--fresh --port 4300" for others
	@$(BIN)/python -m demo.server $(OPTIONS)

bench: setup ## measure us and every peer that is installed; OPTIONS="--rounds 1 --only us-tls,borg" for less
	@$(BIN)/python -m bench $(OPTIONS)

clean: ## remove what the verbs above have made
	rm -rf $(VENV) tests/servers/node_modules .demo .server .bench .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
