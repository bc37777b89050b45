# Daily commands; `make` lists them. All work from a fresh clone with nothing but Python and make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--system-certs --custom-compile-command "make lock"
# Processes that run tests side by side; each computes with one thread.
JOBS ?= 2
# The Python that is tested; `make setup PYTHON=/path/to/python3.11` takes another place's.
PYTHON ?= $(shell for name in python3.11 python3; do \
	$$name -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' \
	2>/dev/null && { command -v $$name; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help demo trial test faults setup format check docs results bench manifests lock

help: ## List the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' \
		| while IFS="$$(printf '\t')" read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

demo: setup ## Protect a small album, or yours: make demo PHOTOS=folder; see demo-out/
	@$(BIN)/python -m tools.demo.run $(if $(PHOTOS),--photos "$(PHOTOS)")

trial: setup ## Try bucket, cluster, schedule and monitoring here; longer: ARGS="--hold 600"
	@$(BIN)/python -m tools.trial.run $(ARGS)

test: setup ## Run the tests; more: make test ARGS="-k name"
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Those of `make test` that try faults, and the ones that take too long for it.
FAULTS := tests/faults tests/pipeline/output/test_killed_run.py tests/pipeline/test_run.py \
	tests/pipeline/test_changing_input.py tests/pipeline/storage/test_s3_connection.py \
	tests/k8s/test_job_submit.py tests/tools/trial tests/deploy/test_clean_root.py \
	tests/deploy/test_newest_python.py

faults: setup ## Try faults for real: kills, a full disk, a dead store, a lost node
	@$(BIN)/python -m pytest -m "" $(FAULTS) $(ARGS)

setup: $(STAMP) ## Make .venv with everything in it; does nothing when up to date

# Installing reads both files, so a change of either makes it run again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 found: install it, or" \
		"make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some gigabytes with torch; takes minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[pipeline,bench,test]'
	@touch $(STAMP)

format: setup ## Format the code and repair what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: setup ## Lint, types and import contracts; continuous integration runs check, then test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.results --check
	@$(MAKE) --no-print-directory docs

docs: setup ## Build the documents as a site into site/, strictly
	@NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet

results: setup ## Write the tables of README and docs from results/
	@$(BIN)/python -m tools.results

bench: setup ## Measure photos per second here, and a step at the size of Stable Diffusion 1.5
	@$(BIN)/python -m benchmarks.whole_run $(ARGS)
	@$(BIN)/python -m benchmarks.true_size --photos 1 --set loop.num_steps=2 --set loop.finishing_steps=0

manifests: setup ## Write the files of k8s/ that are made from others (needs kubectl)
	@$(BIN)/python -m tools.deploy.render_manifests

# Keeps the versions that still fit; `make lock ARGS=--upgrade` takes the newest of all.
# constraints.txt is for development, with all extras; the image gets its versions with the hashes of
# all their archives.
lock: setup ## Resolve constraints.txt and deploy/requirements.lock anew
	@$(COMPILE) --all-extras --output-file constraints.txt $(ARGS) pyproject.toml
	@$(COMPILE) --generate-hashes --extra pipeline --constraint constraints.txt \
		--output-file deploy/requirements.lock pyproject.toml
