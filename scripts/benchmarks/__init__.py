"""The parts of `scripts/benchmark.py`: shapes of models, contenders, interleaved timing, growth of cost, results."""
