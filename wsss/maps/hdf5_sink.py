"""A file for HDF5 to write to that survives a full disk."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType


class Hdf5Sink(io.RawIOBase):
    """A file object for `h5py.File` that keeps what the storage refuses to take in memory.

    HDF5 does not survive a failed write: it drops data without a word to its caller, and closing
    the file can end the process (segmentation fault). Here the refusal is kept for the caller,
    who asks by `check`, and HDF5 goes on as if nothing had happened until it is closed.

    Args:
        path: The file, made anew.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed in `close`
        self._refusal: OSError | None = None
        self._memory: io.BytesIO | None = None

    def check(self) -> None:
        """Raise what the storage refused.

        Raises:
            OSError: A write failed; the file is of no use.
        """
        if self._refusal is not None:
            raise self._refusal

    def _target(self) -> io.RawIOBase | io.BytesIO:
        return self._file if self._memory is None else self._memory

    def _refuse(self, error: OSError) -> None:
        """Go on in memory, with what was written so far."""
        self._refusal = error
        position = self._file.tell()
        self._file.seek(0)
        self._memory = io.BytesIO(self._file.read())
        self._memory.seek(position)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write all of `data` at the present place."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            try:
                written += self._target().write(view[written:]) or 0
            except OSError as error:
                self._refuse(error)
        return written

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size; the place stays."""
        place = self.tell()
        wanted = place if size is None else size
        try:
            self._target().truncate(wanted)
        except OSError as error:
            self._refuse(error)
            self._target().truncate(wanted)
        if self._memory is not None:
            # Unlike a file, this does not grow by truncating.
            lacking = wanted - self._memory.seek(0, io.SEEK_END)
            self._memory.write(bytes(max(0, lacking)))
            self._memory.seek(place)
        return wanted

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the present place."""
        return self._target().readinto(buffer) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._target().seek(offset, whence)

    def tell(self) -> int:
        """Return the present place."""
        return self._target().tell()

    def readable(self) -> bool:
        """Say that it can be read: HDF5 reads back what it wrote."""
        return True

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def seekable(self) -> bool:
        """Say that there are places."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; raise the refusal where nothing else is on its way."""
        self.close()
        if error is None:
            self.check()
