"""The parts of `scripts/soak.py`: what is counted, work in children, and the kinds of disturbance."""
