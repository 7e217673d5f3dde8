# Two commands do everything, their set-up included: `make demo` and `make test`.
# The rest are the same steps one by one; `make help` lists them.

MAKEFLAGS += --no-print-directory
SHELL := bash
DIR ?=
JSON ?= tests/fixtures/faces.json
MEDIA ?=
ARGS ?=
CARGO := cargo
FACES := .deps/models/mtcnn.safetensors
OUT := $(or $(CARGO_TARGET_DIR),target)/debug

# What a goal builds, in one go. Cargo chooses features for a whole selection of packages: with `lanes` in each of them
# they choose alike, and every dependency is built once. tests/binaries.rs repeats the first two.
BARE := -p forensics -p ops -p stream -p media -p proto -p scheduler -p query -p worker -p testbed -p lanes
TORCH := -p models -p cli -p standalone -p trainer -p e2e -p lanes
BUILD := build --locked -p cli -p standalone -p lanes

.PHONY: help setup demo fleet trainer test lint bare torch parity faces bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## fetch libtorch, the face detector's weights and the samples into .deps/ (once)
	@.ci/setup

# The published face detector comes as pickles; the services read safetensors only.
$(FACES): | setup
	@$(CARGO) $(BUILD)
	@$(OUT)/touchstone model import-faces --pnet .deps/facenet/pnet.pt --rnet .deps/facenet/rnet.pt \
	  --onet .deps/facenet/onet.pt --out $@

demo: setup $(FACES) ## judge the sample media, or MEDIA=folder, with everything in one process
	@$(CARGO) $(BUILD)
	@$(OUT)/touchstone-standalone demo --face-detector $(FACES) --samples .deps/samples $(if $(MEDIA),--media "$(MEDIA)")

fleet: setup $(FACES) ## a whole fleet on this machine, in .deps/fleet; ARGS="--workers 3 --model scripted", say
	@.ci/setup --tests
	@$(CARGO) build --locked -p cli -p worker -p scheduler -p query -p e2e -p lanes --features worker/torch
	@$(OUT)/fleet --face-detector $(FACES) $(ARGS)

trainer: setup $(FACES) ## touchstone-train, which makes models of your own photos, and touchstone
	@$(CARGO) build --locked $(TORCH)
	@echo "built: $(OUT)/touchstone-train, $(OUT)/touchstone"

test: ## every test: format, lints, docs, bare crates, libtorch, end to end
	@.ci/setup --tests
	@$(MAKE) lint bare torch

lint: setup ## format, clippy, docs
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

bare: ## the crates that build without libtorch
	$(CARGO) test --locked $(BARE)

torch: BUILD := test --no-run --locked $(TORCH)
torch: setup $(FACES) ## the network, the face detector, and the promises end to end
	# A fleet waits more than it computes.
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) $(CARGO) test --locked $(TORCH)

parity: setup ## the network against the published one: DIR=folder of *.safetensors
	@$(CARGO) build --locked $(TORCH) --example parity
	@$(OUT)/examples/parity $(or $(DIR),tests/fixtures/parity)

faces: setup $(FACES) ## the face detector against the published one: JSON=file DIR=folder[:folder]
	@$(CARGO) build --locked $(TORCH) --example faces
	@$(OUT)/examples/faces --weights $(FACES) $(JSON) $(or $(DIR),tests/fixtures:.deps/samples)

bench: setup $(FACES) ## every benchmark, a BENCH line each; also as JSON in target/bench.json
	@.ci/setup --tests
	@BARE="$(BARE)" TORCH="$(TORCH)" .ci/bench
