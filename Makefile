# `make` prints this help. Every command installs what it needs into $(VENV), once.

VENV ?= .venv
TORCH_INDEX ?=
VLLM ?= 1
VLLM_VENV ?= .venv-vllm
export TORCH_INDEX

BIN := $(VENV)/bin
PINS := pyproject.toml clients/python/pyproject.toml constraints.txt install.sh

.DEFAULT_GOAL := help
.PHONY: help demo test test-vllm serve check format bench bench-vllm conformance chaos replicate-paper lock clean

help:  ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  TORCH_INDEX=URL  where pip finds the CPU build of torch, if not where it looks by itself"
	@echo "  VENV=DIR         virtual environment (default .venv)"
	@echo "  VLLM=0           make test without vLLM, whose environment is 4.2 GB"

demo: $(VENV)/.installed-demo  ## Run the main job on a tiny model: sweep, laws, two pictures
	$(BIN)/python -m demo.run

test: $(VENV)/.installed-dev  ## Run every test, on real Redis and PostgreSQL
	$(BIN)/python -m pytest $(ARGS)
ifneq ($(VLLM),0)
	$(MAKE) test-vllm
endif

test-vllm: $(VLLM_VENV)/.installed  ## Run the tests of the vLLM engine, on this CPU
	$(VLLM_VENV)/bin/python -m pytest tests/vllm_engine

serve: export FORGETTING_MODEL_ROOTS ?= ["demo", "models"]
serve: export FORGETTING_DATA_ROOTS ?= ["data"]
serve: $(VENV)/.installed-demo  ## Keep service, worker and a private broker running
	@mkdir -p data models
	$(BIN)/forgetting-service serve

check: $(VENV)/.installed-dev  ## Lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Rewrite the sources in the project's format, and what is made of them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m service.policy_schema > clients/python/forgetting_client/policy.schema.json

bench: $(VENV)/.installed-dev  ## Measure: prints the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks.divergence
	$(BIN)/python -m benchmarks.forgetting_pass --llama
	$(BIN)/python -m benchmarks.forgetting_pass --dtype bfloat16
	$(BIN)/python -m benchmarks.forgetting_pass --shape B --windows 4
	$(BIN)/python -m benchmarks.forgetting_pass --shape C --windows 4
	$(BIN)/python -m benchmarks.laws
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.real_sweep
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.gate_wall

bench-vllm: $(VLLM_VENV)/.installed  ## Measure the vLLM engine against transformers and vLLM's own log-probs
	OMP_NUM_THREADS=2 $(VLLM_VENV)/bin/python -m benchmarks.vllm_engine

conformance: $(VENV)/.installed-dev  ## Hold the service to its OpenAPI document, long; ARGS="--examples N --seed N"
	$(BIN)/python -m tests.conformance $(ARGS)

chaos: $(VENV)/.installed-dev  ## Kill, freeze and flush everything under 1,000 jobs; ARGS="--jobs N --faults N --database …"
	$(BIN)/python -m tests.chaos $(ARGS)

replicate-paper: $(VENV)/.installed-demo  ## Print the paper's sweep as a spec, and its GPU hours; SUBMIT=1 sends it
	$(BIN)/python -m demo.replicate_paper $(if $(SUBMIT),--submit)

lock:  ## Renew constraints.txt: the newest of everything but torch
	sed -i -n '1p;/^torch==/p' constraints.txt
	sh install.sh .venv.lock worker,s3,demo,dev
	.venv.lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//; s/_/-/g' | tr A-Z a-z \
		| grep -v -E '^#|file://|^(pip|setuptools|torch)==' | sort >> constraints.txt
	rm -rf .venv.lock

$(VLLM_VENV)/.installed: $(PINS) install-vllm.sh
	sh install-vllm.sh $(VLLM_VENV)
	@touch $@

clean:  ## Remove the virtual environment and everything that runs left behind
	rm -rf $(VENV) $(VLLM_VENV) .forgetting demo-output build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.installed-demo: $(PINS)
	sh install.sh $(VENV) worker,demo
	@touch $@

$(VENV)/.installed-dev: $(PINS)
	sh install.sh $(VENV) worker,s3,demo,dev
	@touch $@ $(VENV)/.installed-demo
