"""Batches whose content depends on (seed, epoch, image) alone, whatever loads them."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from wsss.errors import UserError

Sample = dict[str, Any]
Key = tuple[int, int]  # (epoch, position)


class EpochDataset(Protocol):
    """What a training reads: named images, each loaded with a generator of its own."""

    @property
    def names(self) -> Sequence[str]:
        """One name an image, in a fixed order."""
        ...

    def load(self, position: int, rng: np.random.Generator) -> Sample:
        """Load and augment the image at `position`; every random draw comes from `rng`."""
        ...


def random_generator(*key: object) -> np.random.Generator:
    """Return a generator that is a function of `key` alone, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the shuffled positions 0..count-1 of one epoch, int64."""
    return random_generator(seed, epoch, "order").permutation(count)


class _Keyed(Dataset[Sample]):
    def __init__(self, dataset: EpochDataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, key: Key) -> Sample:
        epoch, position = key
        rng = random_generator(self._seed, epoch, self._dataset.names[position])
        return self._dataset.load(position, rng)


class _BatchSampler:
    """Batch sampler over the steps that are left, all epochs in a row."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._start, self._stop = start, stop
        self._rank, self._each = share[0], batch_size // share[1]

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = self._count // self._batch_size
        order, of_epoch = np.empty(0, np.int64), -1
        for step in range(self._start, self._stop):
            epoch, batch = divmod(step, per_epoch)
            if epoch != of_epoch:
                order, of_epoch = epoch_order(self._seed, epoch, self._count), epoch
            first = batch * self._batch_size + self._rank * self._each
            yield [(epoch, int(p)) for p in order[first : first + self._each]]


class _Failed:
    """What a worker has to tell instead of a batch."""

    def __init__(self, error: UserError) -> None:
        self.error = error


class _Careful(Dataset[Any]):
    """Hands errors for people over as values: PyTorch would wrap them in a traceback's text."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Key) -> Sample | _Failed:
        try:
            return self._dataset[key]
        except UserError as error:
            return _Failed(error)


def _collate(samples: list[Sample | _Failed]) -> Any:
    for sample in samples:
        if isinstance(sample, _Failed):
            return sample
    return default_collate(samples)


class Batches:
    """The batches of a training, loaded ahead by worker processes.

    Raises, while it is iterated over:
        UserError: An image cannot be read, or a worker died.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._loader:
            if isinstance(batch, _Failed):
                raise batch.error
            yield batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """Let a worker outlive the signals that ask a training to save and stop.

    Schedulers send them to every process of a job, and a worker that died of one would bring the
    training down before it has saved. Workers end by themselves when their parent does.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the whole batches in `count` images.

    Raises:
        UserError: There are fewer images than one batch holds.
    """
    if count < batch_size:
        raise UserError(
            f"{count} training images cannot fill a batch of {batch_size}",
            expected="at least one batch",
            fix="lower batch_size or add images",
        )
    return count // batch_size


def batches(
    dataset: EpochDataset,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    workers: int,
    share: tuple[int, int] = (0, 1),
    pin_memory: bool = False,
) -> Batches:
    """Return the batches of global steps start..stop-1; incomplete ones are dropped.

    With `share` (r, n) it is the r-th of n equal parts of each batch.
    """
    count = len(dataset.names)
    steps_per_epoch(count, batch_size)
    loader = DataLoader(
        _Careful(_Keyed(dataset, seed)),
        batch_sampler=_BatchSampler(count, batch_size, seed, start, stop, share),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
        # Workers draw from the generators above only; this pins what PyTorch seeds them with.
        generator=torch.Generator().manual_seed(seed),
        collate_fn=_collate,
    )
    return Batches(loader)
