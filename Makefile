# Every target sets up its own environment in .venv; Python 3.11 and make are all that is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check bench clean

demo: $(VENV)/installed
	$(BIN)/verisight demo

test: $(VENV)/tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "slow or not slow"

check: $(VENV)/developed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

# About an hour on one core, 6 GB of memory; `python benchmarks/dpo_step.py --quick --only llava-lora` is 2 minutes.
bench: $(VENV)/measured
	$(BIN)/python benchmarks/grouped.py
	$(BIN)/python benchmarks/bdhs.py
	$(BIN)/python benchmarks/dpo_step.py
	$(BIN)/python benchmarks/readers.py

# torch comes first and pinned, so that nothing replaces it. Where pip finds a CPU wheel (PIP_FIND_LINKS,
# PIP_EXTRA_INDEX_URL) it is taken; on Linux the plain index has an accelerator build only, which is larger and works too.
$(VENV)/installed: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt --group test
	touch $@

$(VENV)/measured: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt --group bench
	touch $@

$(VENV)/developed: $(VENV)/tested
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt --group dev
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
