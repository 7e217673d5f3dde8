# Two commands do everything, their set-up included: `make demo` and `make test`.
# The rest are the same steps one by one; `make help` lists them.

MAKEFLAGS += --no-print-directory
SHELL := bash
PHOTOS ?=
DIR ?=
JSON ?= tests/fixtures/faces.json
MEDIA ?=
ARGS ?=
CARGO := cargo
FACES := .deps/models/mtcnn.safetensors
FORGED := .deps/samples/forged
OUT := $(or $(CARGO_TARGET_DIR),target)/debug

# What a goal builds, in one go. Cargo chooses features for a whole selection of packages: with `lanes` in each of them
# they choose alike, and every dependency is built once. tests/binaries.rs repeats the first two.
BARE := -p forensics -p ops -p stream -p media -p proto -p scheduler -p query -p worker -p testbed -p lanes
TORCH := -p models -p cli -p standalone -p trainer -p e2e -p lanes
BUILD := build --locked -p cli -p standalone -p trainer -p lanes

# What models/default learned from, for its card.
PORTRAITS := Official portraits of US representatives and senators (512 x 512 JPEG), as published under the MIT licence by \
  CivilServiceUSA (us-house, us-senate). Forgeries are made of them by touchstone-train.
FIRST := .deps/train/first
NEW := .deps/train/default

.PHONY: help setup demo fleet trainer model test lint bare torch parity faces bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## fetch libtorch, the face detector's weights and the samples into .deps/ (once)
	@.ci/setup

# The published face detector comes as pickles; the services read safetensors only.
$(FACES): | setup
	@$(CARGO) $(BUILD)
	@$(OUT)/touchstone model import-faces --pnet .deps/facenet/pnet.pt --rnet .deps/facenet/rnet.pt \
	  --onet .deps/facenet/onet.pt --out $@

# What the demo shall find: the numbers are chosen so that the default model does.
$(FORGED): FORGE = $(OUT)/touchstone-train forge .deps/samples/astronaut.png
$(FORGED): $(shell find services/trainer/src -name "*.rs") Makefile | setup $(FACES)
	@$(CARGO) $(BUILD)
	@rm -rf $@ $@.new
	@$(FORGE) --manipulation self-blended --number 3 --out $@.new/astronaut-self-blended.png
	@$(FORGE) --manipulation regional --number 1 --out $@.new/astronaut-regional.png
	@mv $@.new $@

demo: setup $(FACES) $(FORGED) ## judge the sample media, or MEDIA=folder, with everything in one process
	@$(CARGO) $(BUILD)
	@$(OUT)/touchstone-standalone demo --face-detector $(FACES) --samples .deps/samples $(if $(MEDIA),--media "$(MEDIA)")

fleet: setup $(FACES) ## a whole fleet on this machine, in .deps/fleet; ARGS="--workers 3 --model scripted", say
	@.ci/setup --tests
	@$(CARGO) build --locked -p cli -p worker -p scheduler -p query -p e2e -p lanes --features worker/torch
	@$(OUT)/fleet --face-detector $(FACES) $(ARGS)

trainer: setup $(FACES) ## touchstone-train, which makes models of your own photos, and touchstone
	@$(CARGO) $(BUILD)
	@echo "built: $(OUT)/touchstone-train, $(OUT)/touchstone"

model: TRAIN = $(OUT)/touchstone-train train --real .deps/train/portraits --resume --preset mini --precision bf16 --batch 16 \
  --name two-stream-mini --licence Apache-2.0 --data-statement "$(PORTRAITS)"
model: setup $(FACES) ## models/default anew, of PHOTOS=folder of the portraits that its card names, and its test: hours on two cores
	@[ -n "$(PHOTOS)" ] || { echo "make model PHOTOS=folder: the portraits that the card names, each file named by the person" >&2; exit 64; }
	@$(CARGO) $(BUILD)
	@# So that the card names no place of this machine.
	@mkdir -p .deps/train && ln -sfn "$$(realpath "$(PHOTOS)")" .deps/train/portraits
	@[ -d $(FIRST) ] || [ -d $(NEW) ] || $(TRAIN) --out $(FIRST) --bundle-version 1 --steps 6000 --seed 1
	@[ -d $(NEW) ] || $(TRAIN) --init $(FIRST) --out $(NEW) --bundle-version 2 --steps 4500 --rate 0.0005 --localise 1 --seed 2
	@$(OUT)/touchstone-train evaluate $(NEW) .deps/train/portraits --card
	@rm -rf models/default
	@mkdir -p models && mv $(NEW) models/default && rm -rf $(NEW).run $(FIRST) $(FIRST).run

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
torch: setup $(FACES) $(FORGED) ## the network, the face detector, and the promises end to end
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
