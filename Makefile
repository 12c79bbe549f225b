# `make train` and `make test` need Python >= 3.11 and make; everything else goes into .venv, once.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
ASIDE = -n auto --dist loadfile
INSTALL = $(RUN) -m pip install --quiet --constraint requirements.txt

.PHONY: train test quick parity objectives samplers faults bench lint clean

train: $(VENV)/installed  ## train the digits experiment, look at samples, print their figures, write the report
	$(RUN) -m ddpm.main --config experiments/digits.py --workdir runs/digits
	$(RUN) -m ddpm.main --config experiments/digits.py --workdir runs/digits --mode eval --metrics fid,pr,memorisation
	$(RUN) -m ddpm.main --mode report --workdir runs/digits

test: $(VENV)/installed-test lint  ## all tests but those against diffusers
	$(RUN) -m pytest $(ASIDE) --ignore tests/parity

quick: $(VENV)/installed-test  ## the tests that take seconds
	$(RUN) -m pytest $(ASIDE) --ignore tests/parity -m "not slow"

parity: $(VENV)/installed-parity  ## the same formulas against diffusers and torch-fidelity (installs PyTorch)
	$(RUN) -m pip install --quiet --no-deps torch-fidelity==0.4.0 pytorch-fid==0.3.0  # not torchvision: it replaces torch
	$(RUN) -m pytest tests/parity

objectives: $(VENV)/installed  ## train a small model with each objective on Fashion-MNIST, which is prepared; print what each reaches
	$(RUN) benchmarks/objectives.py

samplers: $(VENV)/installed  ## train a small model on Fashion-MNIST, which is prepared; print and plot quality against NFE for every sampler
	$(RUN) benchmarks/samplers.py

faults: $(VENV)/installed  ## break runs in fourteen ways at random moments, start them again, print what was lost; hours on two cores
	$(RUN) benchmarks/faults/measure.py

bench: $(VENV)/installed-parity  ## time training and sampling against peers in turns (installs PyTorch); long on two cores, where PyTorch compiles for minutes
	$(RUN) -m pip install --quiet --no-deps denoising-diffusion-pytorch==2.3.4 einops==0.8.2
	$(RUN) benchmarks/speed/measure.py --out runs/speed.json --plot runs/speed.png

lint: $(VENV)/installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) .cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ddpm needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml requirements.txt
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test $(VENV)/installed-parity: $(VENV)/installed-%: $(VENV)/bin/python pyproject.toml requirements.txt
	$(INSTALL) --editable '.[$*]'
	touch $@
