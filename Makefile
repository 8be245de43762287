# make help says what there is. Every target sets up its environment first, if it has to: .venv, or, where an NVIDIA
# driver is installed and CUDA is asked for, .venv-cuda, since onnxruntime-gpu and onnxruntime overwrite each other.
TARGET ?=
HEAD ?=
MODEL ?=
DATA ?=
PIPELINE ?=
DEVICE ?=
BUILD_ONLY ?=
RUN ?=
DEST ?=
ARGS ?=

comma := ,
ASKS_CUDA := $(or $(filter cuda,$(TARGET)),$(filter cuda%,$(firstword $(PIPELINE))))
GPU := $(if $(ASKS_CUDA),$(shell command -v nvidia-smi))
VENV := $(if $(GPU),.venv-cuda,.venv)
EXTRAS := $(if $(GPU),dev$(comma)cuda,dev$(comma)cpu$(comma)openvino)
PYTHON ?= python3
OPTIMIZE := $(VENV)/bin/optimize
READY := $(VENV)/.ready
# A worker that crashes fails the run: replaced, it may leave the others waiting for ever (pytest-xdist 3.8).
# A worker a core, so a thread a worker: with more they wait for each other.
# Tests start a hundred processes: what they import is compiled once, also where bytecode is not kept elsewhere.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n auto --dist loadfile --max-worker-restart 0

# uv installs in a fifth of pip's time. It knows none of pip's settings, so it is told where pip looks for packages.
pip_says = $${PIP_$(1):-$$($(VENV)/bin/pip config get global.$(2) 2>/dev/null | xargs)}
WHERE_PIP_LOOKS = UV_INDEX_STRATEGY=unsafe-best-match \
	UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$(call pip_says,INDEX_URL,index-url)}" \
	UV_INDEX="$${UV_INDEX:-$(call pip_says,EXTRA_INDEX_URL,extra-index-url)}" \
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $(call pip_says,FIND_LINKS,find-links) | tr ' ' ,)}"

# An option with its value as one word of the shell, whatever is in it; nothing where the variable is empty.
option = $(if $(2),$(1) '$(subst ','\'',$(2))')
WHERE = $(call option,--target,$(TARGET)) $(call option,--pipeline,$(PIPELINE)) $(call option,--device,$(DEVICE))
WHAT = $(call option,--model,$(MODEL)) $(call option,--data,$(DATA))

.PHONY: help setup optimize certify publish baseline regress bench gpu test test-slow test-environments check fix docs site clean

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo 'variables: TARGET=openvino|cuda|auto HEAD=all MODEL="hub id or folder" DATA="hub id or folder" PIPELINE="name or YAML" DEVICE=GPU'
	@echo '           BUILD_ONLY=1 ARGS="--seed 1 --examples 500"; all are optional'

setup: $(READY)  ## build the virtual environment

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(WHERE_PIP_LOOKS) \
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

optimize: $(READY)  ## optimize a model and judge the result; the demo by default
	$(OPTIMIZE) run $(WHERE) $(WHAT) $(call option,--head,$(HEAD)) $(if $(BUILD_ONLY),--build-only) $(ARGS)

bench: $(READY)  ## latency at distilbert-base's size, with random weights
	$(OPTIMIZE) bench $(WHERE) $(ARGS)

gpu: $(READY)  ## the table of the CUDA target on this machine's GPU, as JSON; with TARGET=cuda
	$(VENV)/bin/python tests/gpu/measure.py

certify: $(READY)  ## measure and judge the model of a finished run here: RUN=folder TARGET=cuda
	$(OPTIMIZE) certify $(call option,,$(RUN)) $(WHAT) $(ARGS)

publish: $(READY)  ## judge a finished run again and hand it on: RUN=folder DEST=folder, hf://user/name, s3://…
	$(OPTIMIZE) publish $(call option,,$(RUN)) $(call option,,$(DEST)) $(ARGS)

baseline: $(READY)  ## accept a finished run, which later ones are held against: RUN=folder
	$(OPTIMIZE) accept $(call option,,$(RUN)) $(ARGS)

regress: $(READY)  ## what got worse since the accepted run: RUN=folder
	$(OPTIMIZE) regress $(call option,,$(RUN)) $(ARGS)

test: $(READY)  ## the default tests: offline, minutes
	$(PYTEST) -m 'not slow and not environments'

test-slow: $(READY)  ## what takes longer, and real checkpoints where ../shared has them; TESTS=tests/slow for these alone
	$(PYTEST) -m slow $(TESTS)

test-environments: $(READY)  ## beside others' libraries and servers, each in an environment of its own; installs many GB
	$(WHERE_PIP_LOOKS) $(PYTEST) -m environments

check: $(READY)  ## lint, format, types and result tables; writes nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python docs/results.py --check

fix: $(READY)  ## mend what can be mended by itself
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(READY)  ## write the generated pages: reference from the code, results from reports/baselines
	$(VENV)/bin/python docs/reference.py
	$(VENV)/bin/python docs/results.py

site: $(READY)  ## build the documentation as pages, in build/site
	$(VENV)/bin/mkdocs build --strict

clean:  ## remove the virtual environment, caches and runs
	rm -rf .venv .venv-cuda .mypy_cache .pytest_cache .ruff_cache build reports/runs reports/sweeps .checkpoints
