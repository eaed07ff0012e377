"""Running a function over many images with several processes, the result in order."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Below this many images, some ten seconds of work, a process costs more to start (it imports
# torch) than it saves.
MIN_IMAGES_PER_WORKER = 500


def map_parts(
    function: Callable[[Sequence[str]], T],
    names: Sequence[str],
    workers: int,
    *,
    min_images: int | None = None,
) -> list[T]:
    """Split `names` into one contiguous part a process; return the parts' results in order.

    Args:
        function: Picklable; takes a part of the names. What it raises is raised here.
        names: The images.
        workers: Most processes to use; 1 or few names: none is started.
        min_images: Images that make another process worth its start; None: the usual number.
    """
    least = MIN_IMAGES_PER_WORKER if min_images is None else min_images
    n_parts = max(1, min(workers, len(names) // least))
    if n_parts == 1:
        return [function(names)]
    bounds = [len(names) * part // n_parts for part in range(n_parts + 1)]
    # Not fork: a forked copy of a process with running threads (OpenMP, HDF5) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_parts, mp_context=context) as pool:
        parts = [
            pool.submit(function, names[start:stop]) for start, stop in itertools.pairwise(bounds)
        ]
        return [part.result() for part in parts]
