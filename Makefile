# make demo    synthetic recordings -> arrays -> pre-training -> evaluation -> a table of results, in demo/
# make test    all tests; make lint: ruff; make clean: remove demo/ and the virtual environment
# demo, test and lint create .venv if needed; `make demo PYTHON=python3.12` chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# as in options/demo_pretraining.yaml
DEMO_SIZES := --hidden-size 64 --num-head 4 --num-layer 1 --channels 8 --frames 16 --bodies 1

.PHONY: demo test lint clean

demo: $(VENV)/installed
	rm -rf demo
	$(BIN)/python -m feeder.synthetic demo/raw --subjects 20
	$(BIN)/python ntu_gendata.py --data-path demo/raw --out-folder demo/data/demo --benchmark xsub
	$(BIN)/python pretraining.py --config options/demo_pretraining.yaml
	for encoder in "--random-encoder $(DEMO_SIZES)" "--pretrained demo/checkpoints/pretrain"; do \
	    $(BIN)/python action_classification.py --config options/demo_linear.yaml $$encoder && \
	    $(BIN)/python action_retrieval.py --config options/demo_retrieval.yaml $$encoder || exit 1; \
	done
	$(BIN)/python -m engine.results demo/log
	$(BIN)/python -m engine.draw demo/data/demo/xsub/S001C002P001R003A001 --out demo/clip.png --views 2
	@echo "Compare the encoder that was pre-trained without labels with the random one: ten synthetic actions, unseen people,"
	@echo "chance 10 %. In five seeds we measured 77 to 88 by 1-NN, and 33 to 51 with the random encoder."
	@echo "demo/clip.png is a clip with two of its augmented views."
	@echo "Next: $(BIN)/python -m engine.predict --pretrained demo/checkpoints/linear demo/raw/S001C002P003R003A010.skeleton"

test: $(VENV)/installed-tests
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-tests: $(VENV)/installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) demo
