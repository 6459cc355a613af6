"""The ActAdd paper's experiments on a model: the same as `steerlens reproduce`, for those who run scripts.

python scripts/reproduce_paper.py all --quick                           # the embedded model, offline, minutes
python scripts/reproduce_paper.py all --model gpt2-xl --device cuda --out results/gpt2-xl
"""

import sys

from steerlens.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "reproduce")
    main()
