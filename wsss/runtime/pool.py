"""One function over many items in several processes, results in order as they become ready."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

# Items handed out ahead of the one awaited, per process: enough to keep all of them busy while
# one item is slow, few enough that memory stays flat however many images there are.
AHEAD = 4


def _one_thread() -> None:
    # As many processes as cores: more threads in each would only fight over them.
    torch.set_num_threads(1)


@contextmanager
def _single_threaded() -> Iterator[None]:
    # What runs here gives the same bytes as in a process of the pool.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, *, ahead: int = AHEAD
) -> Iterator[R]:
    """Yield function(item) for every item, in order; the results do not depend on `workers`.

    Args:
        function: Picklable, and so are items and results.
        items: Consumed lazily, in this process.
        workers: Processes; below 2 everything runs in this one.
        ahead: Items handed out ahead of the one awaited, per process.
    """
    if workers < 2:
        for item in items:
            with _single_threaded():
                result = function(item)
            yield result
        return
    # Not fork: a copy of a process whose libraries run threads (OpenMP, HDF5) can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
