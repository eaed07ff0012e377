"""How long OpenMP's threads spin while they wait for each other."""

from __future__ import annotations

import os

# Turns of GNU's waiting loop, and milliseconds of LLVM's and Intel's, before a thread sleeps. Left
# to themselves GNU's spin for 300,000 turns and the others for 200 ms: beside another busy process
# that is time in which the thread that is waited for does not run. None at all costs a training
# that is alone the time to wake a thread, twice an operation.
SPINNING = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
# What says how to wait; whoever sets one of them has decided.
VARIABLES = ("OMP_WAIT_POLICY", *SPINNING)


def wait_politely() -> None:
    """Have threads that wait soon give their core to other processes, unless the user said how.

    In the environment of this process and of those that it starts. OpenMP reads it once, when it is
    loaded: before that is the time to call this.
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ.update(SPINNING)
