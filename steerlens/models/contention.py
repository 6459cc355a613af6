"""`notice_contention`: says once that other work on the cores makes PyTorch's threads wait for each other."""

from __future__ import annotations

import os
import warnings
from itertools import count

import torch

_told = count()


def notice_contention(device: str | torch.device) -> None:
    """Warns, once in a process, if computing on this device will be slowed down many times by other work on the cores.

    So it is where PyTorch has several threads, the processor more work than cores, and nobody has chosen how threads
    wait: then each keeps its core busy while it waits for one that another process has put aside. Asks for the load
    average and nothing else.
    """
    if torch.device(device).type != "cpu" or "OMP_WAIT_POLICY" in os.environ or torch.get_num_threads() == 1:
        return
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except (OSError, AttributeError):  # Windows has none
        return
    if load > cores and next(_told) == 0:
        warnings.warn(
            f"the load average is {load:.1f} on {cores} cores, and PyTorch's {torch.get_num_threads()} threads keep "
            "cores busy while they wait for each other; set OMP_WAIT_POLICY=PASSIVE and GOMP_SPINCOUNT=0 in the "
            "environment before torch is imported, or call torch.set_num_threads(1)",
            stacklevel=3,
        )
