"""Parallel maps: the order, errors, what is handed out ahead, threads of torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from wsss.runtime.pool import map_parts, ordered_map


def _square(x: int) -> int:
    if x == 7:
        raise ValueError("seven")
    return x * x


def _threads_and_process(_: int) -> tuple[int, int]:
    return torch.get_num_threads(), os.getpid()


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize(("workers", "threads"), [(0, True), (3, True), (0, False), (2, False)])
def test_the_order_is_kept_and_errors_are_passed_on(
    workers: int, threads: bool, chunk: int
) -> None:
    mapped = ordered_map(_square, range(6), workers, threads=threads, chunk=chunk)
    assert list(mapped) == [0, 1, 4, 9, 16, 25]
    got: list[int] = []
    with pytest.raises(ValueError, match="seven"):
        got.extend(ordered_map(_square, range(20), workers, threads=threads, chunk=chunk))
    assert got == [0, 1, 4, 9, 16, 25, 36][: 7 - 7 % chunk]


def test_threads_are_threads() -> None:
    idents = set(ordered_map(lambda _: threading.get_ident(), range(20), 3, threads=True))
    assert threading.get_ident() not in idents
    assert set(ordered_map(lambda _: threading.get_ident(), range(20), 0, threads=True)) == {
        threading.get_ident()
    }


@pytest.mark.parametrize(("ahead", "expected"), [(5, 5), (None, 8)])
def test_only_a_few_items_are_handed_out_ahead(ahead: int | None, expected: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    mapped = ordered_map(abs, items(), 2, threads=True, ahead=ahead)
    assert next(mapped) == 0
    assert len(taken) == expected
    mapped.close()  # type: ignore[attr-defined]


def test_torch_has_one_thread_in_processes_and_in_their_place() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = list(ordered_map(_threads_and_process, range(2), 1))
        assert alone == [(1, os.getpid())] * 2
        assert torch.get_num_threads() == 2
        others = list(ordered_map(_threads_and_process, range(4), 2))
        assert {threads for threads, _ in others} == {1}
        assert os.getpid() not in {process for _, process in others}
    finally:
        torch.set_num_threads(before)


def test_parts_come_back_in_order():
    names = [f"n{i}" for i in range(7)]
    assert map_parts(tuple, names, 1, min_images=1) == [tuple(names)]
    parts = map_parts(tuple, names, 2, min_images=1)
    assert parts == [tuple(names[:3]), tuple(names[3:])]
