PYTHON := build/venv/bin/python
VECTORS ?= ../shared/vectors
OPS ?= 1000000
SEED ?= 1
SUDO := $(shell test $$(id -u) = 0 || echo sudo)

help:     ## this list
	@awk -F ' *## ' '/^[a-z-]+:.*## /{sub(":.*", "", $$1); printf "make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo:     ## the whole chain on this machine; KEEP=1 leaves it running
	@./setup.sh all && $(SUDO) env KEEP=$(KEEP) $(PYTHON) -m demo

attacks:  ## eight attacks on that chain, each refused
	@./setup.sh all && $(SUDO) $(PYTHON) -m demo.attacks

test:     ## every test
	@./setup.sh all peers && $(SUDO) env STRONGROOM_CI=$(STRONGROOM_CI) $(PYTHON) -m pytest

check:    ## style, types and floors
	@./setup.sh base && $(PYTHON) -m ruff check . && $(PYTHON) -m mypy . && $(PYTHON) -m pytest -q tests/test_floors.py

vectors:  ## every vector of a set, each as the set expects it; VECTORS=DIR names another set
	@./setup.sh base && $(PYTHON) -m tests.vector_table "$(VECTORS)"

flips:    ## every signed bit of one vector of each kind turned over: minutes
	@./setup.sh base && $(PYTHON) -m tests.flip_table "$(VECTORS)"

tamper:   ## every way to change a stored model, counted
	@./setup.sh base && $(SUDO) $(PYTHON) -m tests.tamper_table --mount

kill-points:  ## seal, update and rekey ended at every call that changes the disk
	@./setup.sh base && $(PYTHON) -m tests.kill_points

fsx:      ## a million random operations on a writable volume, beside a plain directory; OPS=N SEED=N
	@./setup.sh base && $(SUDO) $(PYTHON) -m tests.exercise_fs --ops $(OPS) --seed $(SEED)

bench:    ## figures, measured in pairs
	@./setup.sh base && $(SUDO) $(PYTHON) -m bench

bench-verify:  ## milliseconds of one verification of each kind
	@./setup.sh base && $(PYTHON) -m bench.verify "$(VECTORS)"

bench-fs: ## the model file system beside its peers: half an hour; BENCH="--quick --only read" for less
	@./setup.sh base engine rivals && $(SUDO) $(PYTHON) -m bench.fs $(BENCH)

bench-keys:    ## what a key costs: from the broker, and from the local socket
	@./setup.sh base && $(PYTHON) -m bench.keys

bench-ingress: ## the door beside haproxy and nginx, where they are installed, and plain Python; BENCH="--quick" for less
	@./setup.sh base && $(SUDO) $(PYTHON) -m bench.ingress $(BENCH)

bench-leakage: ## what the sizes of streamed records tell of the tokens
	@./setup.sh base && $(PYTHON) -m bench.leakage

dstack-suite:  ## the tests of the dstack SDK, unchanged, against the key socket; SUITE=DIR runs another copy
	@./setup.sh base && SUITE=$(SUITE) $(PYTHON) -m tests.dstack_suite

image:    ## the VM image (not there yet)
	@echo "image: there is no image build in this version; image/README.md says what it will declare" >&2; exit 2

clean:    ## caches and everything under build/
	@! grep -q " $(CURDIR)/build/" /proc/self/mounts || { echo "clean: stop the demo first: it has mounts below build/" >&2; exit 1; }
	@$(SUDO) rm -rf build .mypy_cache .ruff_cache .pytest_cache *.egg-info && find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help demo attacks test check vectors flips tamper kill-points fsx bench bench-verify bench-fs bench-keys bench-ingress bench-leakage dstack-suite image clean
