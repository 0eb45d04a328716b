# Every target makes what it needs: `make demo` and `make test` work on a machine with python3 and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable
# What of pyproject.toml is installed: all of it, or what the demo needs, which is a part of that.
READY  := $(VENV)/.installed
DEMO   := $(VENV)/.installed-demo
SITE   := $(VENV)/.installed-site
TOOLS  := $(VENV)/.installed-release

.PHONY: help demo test test-postgres check format serve bench docs notebook screenshots site site-serve soak faults model closed-loop live-control docker-test lock sbom clean
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Pacesetter's service needs Python 3.11 or newer; name one: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Compiled on all cores, not by pip on one, and before warnings are errors: some warn as they compile.
$(READY): pyproject.toml | $(BIN)/pip
	$(PIP) '.[dev]'
	-@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib
	@touch $@ $(DEMO) $(SITE)

$(DEMO): pyproject.toml | $(BIN)/pip
	$(PIP) '.[service,cli,demo]'
	@touch $@

$(SITE): pyproject.toml | $(BIN)/pip
	$(PIP) '.[service,docs]'
	@touch $@

$(TOOLS): pyproject.toml | $(BIN)/pip
	$(PIP) '.[release]'
	@touch $@

demo: $(DEMO) ## train for real against the service, kill it on the way, draw what happened; STAY=1 serves on
	$(BIN)/python examples/demo.py $(if $(STAY),--stay)

# A file's tests share what is slow to import or to start, so that one worker has them all.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Whatever the environment says, bytecode is kept: tests start hundreds of programs.
test soak: export PYTHONDONTWRITEBYTECODE :=

test: $(READY) ## run the tests
	$(BIN)/python -m pytest $(PARALLEL)

test-postgres: $(READY) ## run the tests of the API and the client with the service on PostgreSQL
	PACESETTER_TEST_SERVER=postgresql $(BIN)/python -m pytest $(PARALLEL) tests/api tests/client tests/store

check: $(READY) ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(DEMO) ## serve on http://127.0.0.1:7070, with the data in ./pacesetter.db
	$(BIN)/pacesetter serve

bench: $(READY) ## measure, as ratios against named baselines in the same run
	$(BIN)/python -m benchmarks

docs: $(READY) ## write the pages about kinds and commands, and the pictures of actions and architecture
	$(BIN)/python docs/make_schedules.py
	$(BIN)/python docs/make_controllers.py
	$(BIN)/python docs/make_actions.py
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python docs/make_cli.py

# What the theme's makers say of later versions of mkdocs belongs in no build's log.
site site-serve: export NO_MKDOCS_2_WARNING := 1

site: $(SITE) ## build the documentation as a site, in out/site
	$(BIN)/mkdocs build --quiet

site-serve: $(SITE) ## show that site on http://127.0.0.1:8000 while it is written
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

soak: $(READY) ## the long proofs: long forms, laws on 2,000 examples, kills, an hour of load, storms
	$(BIN)/python -m pytest $(PARALLEL) -m slow
	$(BIN)/python -m pytest $(PARALLEL) -m hypothesis --hypothesis-profile soak
	$(BIN)/python tests/crash.py --kills 200
	$(BIN)/python tests/outages.py --kills 110 --restarts 2
	$(BIN)/python tests/test_many_ranks.py --sessions 1000
	$(BIN)/python tests/test_histories.py --histories 10000
	$(BIN)/python tests/proof/fuzz.py
	$(BIN)/python tests/soak.py --minutes 60
	$(BIN)/python tests/distributed/storm.py --ranks 8 --steps 2000 --seeds 20
	$(BIN)/python tests/distributed/storm.py --ranks 8 --steps 2000 --seeds 20 --fsdp
	$(BIN)/python tests/distributed/storm.py --ranks 8 --steps 2000 --seeds 20 --dtensor
	$(BIN)/python tests/distributed/storm.py --ranks 4 --steps 500 --elastic

# What is done already stands in faults.jsonl, and is not done again: remove it to begin anew.
TIMES ?= 100

faults: $(READY) ## each fault TIMES times under load, and 1,000 cuts of the power; goes on where it was
	$(BIN)/python tests/proof/faults.py --times $(TIMES)
	$(BIN)/python tests/proof/power.py --cuts 1000

model: $(READY) ## check the model of replicas exhaustively; needs spin and gcc
	$(BIN)/python docs/model/check.py

notebook: $(READY) ## train what the notebook in examples/ tells of, and keep what its cells show
	$(BIN)/python docs/make_notebook.py

screenshots: $(READY) ## draw the pictures of the dashboard in docs/img/dashboard; needs Debian's chromium
	$(BIN)/python docs/make_screenshots.py

closed-loop: $(READY) ## train with closed-loop rules and without, and write docs/closed_loop.md
	$(BIN)/python examples/closed_loop.py --out docs

live-control: $(READY) ## steer, kill, resume and replay a training, and write docs/live_control.md
	$(BIN)/python examples/live_control.py --out docs

# More options for `docker build`: make docker-test DOCKER_BUILD="--network host"
DOCKER_BUILD ?=

docker-test: $(READY) ## build the image, train against it, kill it and its surroundings; needs a Docker engine
	$(BIN)/python tests/docker/check.py $(DOCKER_BUILD)
	$(BIN)/python tests/docker/scale.py $(DOCKER_BUILD)

# Every file that PyPI has of a release is named by its hash, so one lock serves all platforms and Pythons. What is
# locked already stays as it is; UPGRADE="--upgrade" takes the newest of all, "--upgrade-package NAME" of one.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-build $(UPGRADE) \
	--custom-compile-command "make lock"
UPGRADE ?=

lock: $(TOOLS) ## pin what the image is made of, by hash; UPGRADE=--upgrade takes the newest
	$(COMPILE) --extra service --extra postgres --output-file requirements.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| $(COMPILE) --output-file requirements-build.lock -

# Made when it is asked for, and not kept here: the lock is the truth, and a copy of it would only grow stale.
sbom: $(TOOLS) ## write dist/pacesetter.cdx.json, the CycloneDX bill of what the image installs
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --spec-version 1.6 \
		--output-file dist/pacesetter.cdx.json requirements.lock
	$(BIN)/python docs/add_vendored.py dist/pacesetter.cdx.json

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist out
