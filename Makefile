PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test fuzz check bench figures report train-default

demo: $(READY)
	$(BIN)/python -m benchmarks.demo

# Files are shared among two processes; no file is cut, so that fixtures are made once for each.
# Each has one thread, so that none waits for a core; tests of several threads ask for them.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --files 10000

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A small run that must work, then everything that stored results are enough for.
bench: $(READY)
	$(BIN)/python -m benchmarks.measure --images 8 --efforts 1 --speed 2 --out runs/bench --force
	$(MAKE) figures report

figures: $(READY)
	$(BIN)/python -m benchmarks.plot
	$(BIN)/python -m benchmarks.documents README.md docs/*.md

report: $(READY)
	$(BIN)/python -m benchmarks.report runs/report.html --force

# The shipped model's whole recipe; interrupted, it goes on where it was. The last part is meant for a
# GPU: nine minutes of an H200, more than a day of two processor cores.
train-default: $(READY)
	$(BIN)/diffcodec train --config small --out runs/bound --resume --images 290000 \
		--objective vlb --optimizer adam --learning-rate 1.2e-3 --warmup 12800 --decay 0.3
	$(BIN)/diffcodec train --config small --out runs/pixels --resume --images 142000 \
		--init runs/bound/model --warmup 4800 --seed 11
	$(BIN)/diffcodec train --config small --out runs/files --resume --images 307200 \
		--init runs/pixels/model --warmup 4800 --decay 0.6 --seed 23
	$(BIN)/diffcodec train --config small --out runs/more --resume --images 254784 \
		--init runs/files/model --warmup 4800 --decay 0.75 --seed 31
	$(BIN)/diffcodec train --config small --out runs/small --resume --images 294304 \
		--init runs/more/model --warmup 4800 --decay 0.85 --seed 41
	$(BIN)/diffcodec train --config default --out runs/grown --resume --images 244672 \
		--init runs/small/model --warmup 4800 --decay 0.85 --compile --seed 53
	$(BIN)/diffcodec train --config default --out runs/deeper --resume --images 172640 \
		--init runs/grown/model --learning-rate 6e-4 --warmup 4800 --decay 1.0 --compile --seed 61
	$(BIN)/diffcodec train --config default --out runs/default --resume --images 6690304 \
		--init runs/deeper/model --batch-size 256 --learning-rate 2e-3 --warmup 51200 --decay 1.0 \
		--ema 100000 --compile --check-every 500000 --seed 71

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench,dev]"
	touch $@
