# The two commands of the README, and what keeps the project in order. `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
N ?= 2
K ?= tiny-2 or tiny-8 or opus-6 or opus-12 or identity or constant or random-codes
REPORTS ?= reports/out

.PHONY: help bench test lint docs pictures format clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

bench: .venv/.installed  ## benchmark the embedded codecs on the embedded data; K=expr selects, N=workers
	@$(BIN)/pytest suites/ -n $(N) --data sampler --preset quick --reports $(REPORTS) -k "$(K)"; status=$$?; \
	$(BIN)/pytest suites/test_speed.py -n 0 --data sampler --reports $(REPORTS) --continue-run -q -k "$(K)"; speed=$$?; \
	[ $$status -ne 5 ] || status=$$speed; [ $$speed -eq 0 ] || [ $$speed -eq 5 ] || status=1; \
	$(BIN)/earmark report --reports $(REPORTS) || { [ $$status -ne 0 ] || status=1; }; exit $$status

test: .venv/.installed  ## run the project's own tests: offline, on the CPU
	$(BIN)/pytest tests -n $(N) --dist worksteal -W error --durations 10

lint: .venv/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .cache/mypy && ln -sfn ../.. .cache/mypy/earmark  # from the root, mypy takes codecs/ for the standard library's
	cd .cache/mypy && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p earmark

docs: .venv/.installed  ## write the page of metrics anew and build site/ from docs/
	$(BIN)/earmark metrics --markdown > docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md
	$(BIN)/mkdocs build --strict

pictures: .venv/.installed  ## take the README's pictures anew, of a real run (minutes); needs chromium
	EARMARK_PICTURES=docs $(BIN)/pytest tests/test_pages.py -n 0

format: .venv/.installed  ## let ruff format and sort
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## remove the environment and all output
	rm -rf .venv .cache build dist site *.egg-info reports/out
