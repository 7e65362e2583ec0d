# The whole vocabulary of the project; README spells out what each line does. CI runs `make test` and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: audit sbom demo test test-slow lint types docs ui up down serve bench clean

# constraints.txt is the whole resolution; pip takes every version from it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[platform,dev]"
	touch $(READY)

demo: $(READY)            ## the main job on the made-up data set: retrain, prove, promote
	$(BIN)/oncoshift retrain $(if $(FORCE),--force)

# In the order of folders: else the few long tests of tests/e2e come last, and one core waits for the other.
test: lint types docs     ## everything that CI runs
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)       ## the tests that take minutes each and that CI leaves out
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: $(READY)
	$(BIN)/mypy

docs: $(READY)            ## the documentation site, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

ui: $(READY)              ## the MLflow UI on the embedded store
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --host 127.0.0.1 --port 5000

bench: $(READY)           ## what is measured, each against a peer or a limit
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[platform,dev,bench]"
	$(BIN)/python -m pip install --quiet --upgrade --target build/peers --no-deps --requirement benchmarks/peers.txt
	$(BIN)/python benchmarks/phantom.py
	$(BIN)/python benchmarks/packs.py
	$(BIN)/python benchmarks/stain.py
	$(BIN)/python benchmarks/leaks.py
	$(BIN)/python benchmarks/leaks_opencv.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/labels.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/contention.py
	$(BIN)/python benchmarks/orchestration.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/serve.py

up: $(READY)              ## MLflow, Prefect and the schedules of prefect.yaml, until `make down`
	$(BIN)/python -m flows.up

down:                     ## ends what `make up` started; a training ends with a checkpoint
	$(BIN)/python -m flows.up --down

serve: $(READY)           ## the schedules of prefect.yaml with a Prefect server, until stopped
	$(BIN)/python -m flows.serve

# In an environment of their own, or they would list and audit themselves.
build/audit/.ready: Makefile
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

sbom: $(READY) build/audit/.ready    ## a CycloneDX list of all that is installed, in build/sbom.json
	build/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python

audit: build/audit/.ready ## the known holes of the pinned versions; needs the network
	build/audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

clean:                    ## all that was derived: runs, experiments, packs; not data/raw, not the registry
	rm -rf build/site runs experiments outputs/train outputs/evaluate outputs/explain data/tiles data/splits data/packs .prefect .mypy_cache .ruff_cache .pytest_cache
