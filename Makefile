# make demo    set up .venv, convert a shipped model to an .img, run every stage on one picture
# make test    set up .venv, check style and types, run the tests
# make test-long   the networks that make test leaves out, as their tests take minutes (SGS_TEST_DATA names their folder)
# make lint    style and types only
# make docs    write what is generated in docs/: after changing operators, limits, chips or options
# make docs-pictures   make the pictures of docs/TOUR.md of what its commands have left in build/shapes
# make fuzz    5,000 damaged .img files against reader and offline simulator (FUZZ_ARGS="--files 20000 --seed 7"), 2,000
#              damaged ONNX files (FUZZ_ONNX_ARGS), 1,000 Caffe networks (FUZZ_CAFFE_ARGS) and 1,000 TFLite files
#              (FUZZ_TFLITE_ARGS) against ConvertTool, 1,000 random graphs through the compiler (SEEDS="5000 9000"), then
#              400 networks with random inputs and outputs through every stage (PORT_SEEDS)
# make bench   measure speed and accuracy (SGS_TEST_DATA names the folder with public networks)
# make bench-calibration   measure calibration beside other tools (PEERS_PYTHON names a Python that has onnxruntime,
#              sympy and nncf; without it the other tools are left out); BENCH_ARGS="--networks yolox_nano --levels L5"
# make bench-torch   measure the modes of torch_calibrator, which need the extra torch, beside float, the calibrator and
#              other tools (PEERS_PYTHON as above, or BENCH_ARGS="--peers-from build/calibration.json"); it takes hours
# make bench-compiler   measure the compiler on every network and chip, and its allocators on the MiniMalloc instances
# make bench-detections   count the boxes that detectors with their post-processing keep, float beside fixed
# make bench-evaluation   measure simulator.py on 1,000 labelled pictures beside onnxruntime on the float networks
# make bench-import   measure ConvertTool on networks that PyTorch exports (TORCH_PYTHON has torch, torchvision and
#              onnxscript) beside onnx2tf (ONNX2TF_PYTHON, if given), and count the onnx package's tests that pass
# make bench-frontends   measure the networks of Caffe, TFLite and TensorFlow beside their frameworks (TF_PYTHON has the
#              extra tensorflow, CV4_PYTHON opencv-python-headless below 5)
# make judge-caffe   compare every Caffe layer and network with OpenCV 4 (CV4_PYTHON has 'opencv-python-headless<5')
# make judge-paddle   compare networks that Paddle saves with Paddle's results (PADDLE_PYTHON has paddlepaddle and
#              paddle2onnx beside it)
# make clean   remove everything that these targets made
#
# Settings: PYTHON=python3.12 (interpreter of a new .venv), JOBS=4 (test processes), PYTEST_ARGS="-k conv -x",
#           EXTRAS=test,networks,tensorflow (what to install for the tests: with networks also those that PyTorch
#           exports, with tensorflow those of TensorFlow and Keras).

PYTHON ?= python3
JOBS ?= 2
EXTRAS ?= test
PYTEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
FUZZ_ONNX_ARGS ?=
FUZZ_CAFFE_ARGS ?=
FUZZ_TFLITE_ARGS ?=
SEEDS ?= 0 1000
PORT_SEEDS ?= 0 400
SOC ?= pcupid

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

MODEL := onnx_mobilenet_v2_digits
MODEL_DIR := SGS_Models/onnx/$(MODEL)
PICTURES := SGS_Models/resource/digits
DEMO := build/demo
PICTURE := $(firstword $(sort $(wildcard $(PICTURES)/test/*.png)))

export HYPOTHESIS_STORAGE_DIRECTORY := .pytest_cache/hypothesis

.PHONY: demo test test-long lint docs docs-pictures fuzz bench bench-calibration bench-torch bench-compiler bench-detections \
    bench-evaluation bench-import bench-frontends judge-caffe judge-paddle clean
.DELETE_ON_ERROR:

# The simulator writes its result files into the working directory, so it runs inside $(DEMO).
demo: $(VENV)/.core
	mkdir -p $(DEMO)
	$(PY) Scripts/ConvertTool/SGS_converter.py onnx \
	    --model_file $(MODEL_DIR)/$(MODEL).onnx \
	    --input_config $(MODEL_DIR)/input_config.ini \
	    -i $(PICTURES)/calibration \
	    -n $(MODEL_DIR)/$(MODEL).py \
	    --output_file $(DEMO)/$(MODEL).img \
	    --export_models \
	    --soc_version $(SOC)
	@cd $(DEMO) && for stage in _float.sim _fixed.sim .img; do \
	    echo "== simulator.py, $(MODEL)$$stage, $(PICTURE)" && \
	    ../../$(PY) ../../Scripts/calibrator/simulator.py \
	        -i ../../$(PICTURE) \
	        -m $(MODEL)$$stage \
	        -c Classification \
	        -n ../../$(MODEL_DIR)/$(MODEL).py \
	        --soc_version $(SOC) || exit; \
	done
	@echo "== $(DEMO)" && ls -l $(DEMO)

# One thread of torch in each test process: those of several, on the same processors, wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

test-long: $(VENV)/.test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal -m long $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: $(VENV)/.core
	$(PY) docs/generate.py

docs-pictures: $(VENV)/.core
	$(PY) docs/pictures/make.py

fuzz: $(VENV)/.test
	$(PY) tests/fuzz_img.py --jobs $(JOBS) $(FUZZ_ARGS)
	$(PY) tests/fuzz_onnx.py --jobs $(JOBS) $(FUZZ_ONNX_ARGS)
	$(PY) tests/fuzz_caffe.py --jobs $(JOBS) $(FUZZ_CAFFE_ARGS)
	$(PY) tests/fuzz_tflite.py --jobs $(JOBS) $(FUZZ_TFLITE_ARGS)
	$(PY) tests/random_graphs.py $(SEEDS)
	$(PY) tests/random_ports.py $(PORT_SEEDS)

bench: $(VENV)/.core
	$(PY) bench/main_job.py

# The record lies in build/, which `make clean` removes.
bench-calibration: $(VENV)/.core
	$(PY) bench/calibration.py --out build/calibration.json $(BENCH_ARGS)

# What was measured before a run was cut off is not measured again; `rm build/torch_calibration.json` to begin anew.
bench-torch: $(VENV)/.test
	$(PY) bench/torch_calibration.py --out build/torch_calibration.json --continue $(BENCH_ARGS)

# Both print what they measured even if the first one misses a bar.
bench-compiler: $(VENV)/.core
	$(PY) bench/compiler.py --out build/compiler.json $(BENCH_ARGS); status=$$?; \
	if [ -n "$$SGS_TEST_DATA" ]; then $(PY) bench/minimalloc.py "$$SGS_TEST_DATA/minimalloc" || status=1; fi; exit $$status

bench-detections: $(VENV)/.core
	$(PY) bench/detections.py $(BENCH_ARGS)

bench-evaluation: $(VENV)/.core
	$(PY) bench/evaluation.py $(BENCH_ARGS)

# The networks lie in build/torch_networks, the record in build/.
bench-import: $(VENV)/.test
	$(PY) bench/onnx_import.py --out build/onnx_import.json $(BENCH_ARGS); status=$$?; \
	$(PY) -W ignore tests/onnx_backend.py || status=1; exit $$status

# What is converted and prepared stays in build/frontends, the record in build/.
bench-frontends: $(VENV)/.test
	$(PY) bench/frontends.py --keep build/frontends --out build/frontends.json $(BENCH_ARGS)

judge-caffe: $(VENV)/.test
	$(PY) tests/opencv_caffe.py --python "$(CV4_PYTHON)" $(if $(SGS_TEST_DATA),--networks "$(SGS_TEST_DATA)/caffe")

# The networks lie in build/paddle_networks, the record in build/.
judge-paddle: $(VENV)/.core
	$(PY) bench/paddle_import.py --out build/paddle_import.json $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis Scripts/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps inside .venv: packages are installed again only when pyproject.toml has changed.
$(VENV)/.core: pyproject.toml | $(VENV)/.created
	$(PIP) --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[$(EXTRAS)]'
	touch $(VENV)/.core $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "error: Python 3.10 or newer is needed, and PYTHON=$(PYTHON) is not; try make PYTHON=/path/to/python3" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@
