# Everything a person or CI runs. `make help` lists it. Needs Python 3.11+ and make; installs the rest into .venv.

PYTHON ?= python3
BIN    := .venv/bin
WORKSPACE ?= workspace/demo
# What `make test` leaves out. GPU tests, and those on ../shared/data, drop out by themselves where there is neither.
MARKS  ?= not network and not realdata
PYTEST_ARGS ?=
BENCHES ?= $(sort $(wildcard benchmarks/bench_*.py))

# Ray asks `uv` to rebuild the environment of every worker when it sees one; ours is the same on all.
export RAY_ENABLE_UV_RUN_RUNTIME_ENV = 0
export RAY_USAGE_STATS_ENABLED = 0

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test mutants faults chaos machines check format bench reference lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# Compiled now, for each of the processes a job starts; some systems never would (PYTHONDONTWRITEBYTECODE).
setup: .venv/.installed ## Install the locked dependencies into .venv (once; again when the lock changes)

.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit(f"Python 3.11 to 3.13 is needed, found {v.major}.{v.minor}. Name another: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv<1'
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

demo: setup ## Drawn faces by the best free network, then by one trained on them, then drawn places: index, report, a query over HTTP each
	$(BIN)/python -m ray_jobs.pipeline demo-people --workspace $(WORKSPACE)-people
	$(BIN)/python -m serve.demo --workspace $(WORKSPACE)-people
	$(BIN)/python -m ray_jobs.pipeline demo --workspace $(WORKSPACE)
	$(BIN)/python -m serve.demo --workspace $(WORKSPACE)
	$(BIN)/python -m ray_jobs.pipeline demo-landmarks --workspace $(WORKSPACE)-landmarks
	$(BIN)/python -m serve.demo --workspace $(WORKSPACE)-landmarks

serve: setup ## Serve the demo's result on http://127.0.0.1:8000 until Ctrl-C
	$(BIN)/python -m serve --workspace $(WORKSPACE)-people

test: setup ## All tests but those that need the network or ../shared/data (CPU, 25 to 35 minutes on 2 cores)
	@BIN=$(BIN) sh tests/run.sh -m "$(MARKS)" --durations=15 $(PYTEST_ARGS)

mutants: setup ## Make careless changes to the code, one at a time, and say which of them no test notices (ROOMS="search serve": some)
	$(BIN)/python tests/mutants/run.py $(ROOMS)

faults: setup ## End every job at each of its writes in turn; then both pipelines in an object store that fails: equal results; then photos that crash or hang what reads them; then every job on a cluster that has to grow for it; then one node against three (over an hour; JOBS="embed group": some, of their writes alone)
	$(BIN)/python tests/faults/writes.py $(JOBS)
	$(if $(JOBS),,$(BIN)/python tests/faults/storage.py)
	$(if $(JOBS),,$(BIN)/python tests/faults/poison.py)
	$(if $(JOBS),,$(BIN)/python tests/faults/growth.py)
	$(if $(JOBS),,$(BIN)/python tests/faults/equal.py)

chaos: setup ## Kill -9 drivers, workers and raylets at random moments, on a cluster of three nodes on this host: equal results; then the head, where Redis or Valkey is installed (over an hour; JOBS="faces embed", KINDS=driver, ROUNDS=2, SEED=7: some)
	$(BIN)/python tests/faults/chaos.py $(if $(JOBS),--jobs $(JOBS)) $(if $(KINDS),--kinds $(KINDS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))
	$(if $(JOBS),,$(BIN)/python tests/faults/head.py)

machines: setup ## `ray up` of cluster/local.yaml, both pipelines, the service, a swap, `ray down`, on machines made of namespaces on this host (10 to 25 minutes)
	$(BIN)/python tests/faults/own_machines.py

check: setup ## Formatting, lint, types, and that docs/reference is what --help says
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python docs/reference/generate.py --check

format: setup ## Let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Run every benchmark in turn and print its ratios
	@for bench in $(BENCHES); do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

reference: setup ## Write docs/reference from each job's --help
	$(BIN)/python docs/reference/generate.py

lock: setup ## Resolve pyproject.toml into requirements.lock, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --extra dev --generate-hashes --no-emit-index-url --no-header \
	    --python $(BIN)/python pyproject.toml -o requirements.lock

clean: ## Remove caches; .venv and workspaces stay
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -r {} +
	rm -rf .pytest_cache .ruff_cache build *.egg-info
