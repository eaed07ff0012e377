"""The dense CRF on predicted probabilities, in processes of its own while the device goes on.

This module and what it imports stay free of torch: it is what the processes load.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.data.crf import crf_from_probabilities
from wsss.data.images import read_image, write_label
from wsss.segmentation.config import CrfConfig


def refine(
    image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], settings: CrfConfig
) -> npt.NDArray[np.uint8]:
    """Return the (H, W) labels after the dense CRF.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (n_labels, H, W) float32.
        settings: The CRF's settings.
    """
    marginals = crf_from_probabilities(image, probabilities, **asdict(settings))
    return np.asarray(marginals.argmax(axis=0), dtype=np.uint8)


def refine_to_file(
    image: Path, probabilities: npt.NDArray[np.float32], settings: CrfConfig, output: Path
) -> None:
    """Refine one image's probabilities and write the label PNG."""
    write_label(output, refine(read_image(image), probabilities, settings))


class BoundedPool:
    """Runs calls in processes, a few at a time, so that waiting work does not fill the memory.

    Args:
        workers: Processes; 0: every call runs at once in this one.
    """

    def __init__(self, workers: int) -> None:
        self._limit = 2 * workers
        self._waiting: deque[Future[Any]] = deque()
        # Not fork: a forked copy of a process with running threads can hang.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context) if workers else None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function`, now or later; an error of an earlier call may be raised here."""
        if self._pool is None:
            function(*arguments)
            return
        while len(self._waiting) >= self._limit:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> BoundedPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        try:
            if kind is None:
                while self._waiting:
                    self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
