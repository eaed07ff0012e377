"""One function over many items, in threads or processes, results in order as they become ready."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from wsss.runtime.compiler import leave_compiler_out

T = TypeVar("T")
R = TypeVar("R")

# Items handed out ahead of the one awaited, per worker: enough to keep all of them busy while
# one item is slow, few enough that memory stays flat however many images there are.
AHEAD = 4

# Below this many images, some ten seconds of work, a process costs more to start (it imports
# torch) than it saves.
MIN_IMAGES_PER_WORKER = 500


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    # As many processes as cores: more threads in each would only fight over them. Where the
    # function's module has not imported torch, it is not imported for this.
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_process(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with _one_torch_thread():
        return [function(item) for item in items]


def _in_thread(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    *,
    threads: bool = False,
    ahead: int | None = None,
    chunk: int = 1,
) -> Iterator[R]:
    """Yield function(item) for every item, in order; the results do not depend on `workers`.

    Args:
        function: What to do. For processes it is picklable, and so are items and results.
        items: Consumed lazily, in this thread.
        workers: Processes, each with one thread for torch; below 2 everything runs in this one,
            alike. Or threads: below 1 everything runs in this one.
        threads: Threads instead of processes, for work that waits or lets go of the interpreter
            lock, such as decoding.
        ahead: Most items handed out before the first of them is awaited; None: 4 a worker.
        chunk: Items handed out at a time, where one is little work; `ahead` counts these.
    """
    run = partial(_in_thread if threads else _in_process, function)
    waiting_room = AHEAD * workers if ahead is None else ahead
    remaining = iter(items)
    chunks = iter(lambda: list(itertools.islice(remaining, chunk)), [])
    if workers < (1 if threads else 2):
        for part in chunks:
            yield from run(part)
        return
    pool: Executor
    if threads:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="ordered_map")
    else:
        # Not fork: a copy of a process whose libraries run threads (OpenMP, HDF5) can hang.
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=leave_compiler_out,
        )
    waiting: deque[Future[list[R]]] = deque()
    try:
        for part in chunks:
            waiting.append(pool.submit(run, part))
            if len(waiting) >= waiting_room:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_parts(
    function: Callable[[Sequence[str]], R],
    names: Sequence[str],
    workers: int,
    *,
    min_images: int | None = None,
) -> list[R]:
    """Split `names` into one contiguous part a process; return the parts' results in order.

    Args:
        function: Picklable; takes a part of the names. What it raises is raised here.
        names: The images.
        workers: Most processes to use; 1 or few names: none is started.
        min_images: Images that make another process worth its start; None: the usual number.
    """
    least = MIN_IMAGES_PER_WORKER if min_images is None else min_images
    count = max(1, min(workers, len(names) // least))
    if count == 1:
        return [function(names)]
    bounds = [len(names) * part // count for part in range(count + 1)]
    parts = [names[start:stop] for start, stop in itertools.pairwise(bounds)]
    return list(ordered_map(function, parts, count))
