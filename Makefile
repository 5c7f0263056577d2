PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: help demo federation test explore e2e lint format bench clean

help:
	@echo "make demo        two federated studies on real data, from raw tables to name lists (out/demo/report.html)"
	@echo "make federation  a coordinator and five banks as separate processes on this machine, over TLS (out/federation)"
	@echo "make test        every fast test; federation/ and privacy/ are covered to 95% or more by their own"
	@echo "make e2e         tests that start real processes"
	@echo "make explore     every fast test, its properties tried on examples that are new each time"
	@echo "make lint        style, types and import contracts"
	@echo "make bench       every benchmark (hours)"
	@echo "make clean       removes the virtual environment and what was built"

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Consilience needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/consilience simulate demo --out out/demo

federation: $(READY)
	$(BIN)/consilience simulate federation --out out/federation

# What all must agree on and what privacy rests on is covered by its own tests; tracing the others would only make them slow.
test: $(READY)
	$(BIN)/python -m pytest -n 2 -q -m "not e2e" tests/federation tests/privacy --cov --cov-report=term:skip-covered --cov-fail-under=95
	$(BIN)/python -m pytest -n 2 -q -m "not e2e" --ignore tests/federation --ignore tests/privacy

explore: $(READY)
	$(BIN)/python -m pytest -n 2 -q -m "not e2e" --hypothesis-profile=explore

e2e: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m e2e

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/dp_sgd.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/accounting.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/rounds.py
	$(BIN)/python benchmarks/rounds.py --nodes 3 --rounds 200
	$(BIN)/python benchmarks/endurance.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/samplers.py
	$(BIN)/python benchmarks/secure_aggregation.py
	$(BIN)/python benchmarks/rounds.py --nodes 24 --rounds 50 --state sqlite --poll 0.5
	$(BIN)/python benchmarks/shared_noise.py
	$(BIN)/python benchmarks/analytics.py
	$(BIN)/python benchmarks/lifetime.py
	$(BIN)/python benchmarks/lifetime.py --part coverage
	$(BIN)/python benchmarks/lifetime.py --part windows
	$(BIN)/python benchmarks/questions.py
	$(BIN)/python benchmarks/glass_box.py
	$(BIN)/python benchmarks/glass_box_bands.py
	$(BIN)/python benchmarks/simulation.py

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
