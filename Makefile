# Every target makes what it needs: `make demo` and `make test` work on a machine with python3 and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: help demo test check format serve bench docs soak closed-loop live-control docker-test clean
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Pacesetter's service needs Python 3.11 or newer; name one: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## train for real against the service, kill it on the way, draw what happened
	$(BIN)/python examples/demo.py

test: $(READY) ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(READY) ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(READY) ## serve on http://127.0.0.1:7070, with the data in ./pacesetter.db
	$(BIN)/pacesetter serve

bench: $(READY) ## measure, as ratios against named baselines in the same run
	$(BIN)/python -m benchmarks

docs: $(READY) ## write the pages about schedules and controllers, with their pictures and measured errors
	$(BIN)/python docs/make_schedules.py
	$(BIN)/python docs/make_controllers.py

soak: $(READY) ## the long proofs: 200 kills under load, 1,000 sessions of 64 ranks, 10,000 histories, a storm
	$(BIN)/python tests/crash.py --kills 200
	$(BIN)/python tests/test_many_ranks.py --sessions 1000
	$(BIN)/python tests/test_histories.py --histories 10000
	$(BIN)/python tests/distributed/storm.py --ranks 8 --steps 2000

closed-loop: $(READY) ## train with closed-loop rules and without, and write docs/closed_loop.md
	$(BIN)/python examples/closed_loop.py --out docs

live-control: $(READY) ## steer, kill, resume and replay a training, and write docs/live_control.md
	$(BIN)/python examples/live_control.py --out docs

# More options for `docker build`: make docker-test DOCKER_BUILD="--network host"
DOCKER_BUILD ?=

docker-test: $(READY) ## build the image, train against it, kill it, stop it; needs a Docker engine
	$(BIN)/python tests/docker/check.py $(DOCKER_BUILD)

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist out
