"""What is imported: masks that another tool holds, not yet matched with a run's pictures."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from wsss.data.listing import Problem, nearest, refuse_folder
from wsss.errors import UserError

# What `zipfile` raises, and the libraries that unpack for it.
_DAMAGED = (
    *(zipfile.BadZipFile, OSError, RuntimeError, EOFError),
    *(zlib.error, lzma.LZMAError, ValueError),
)
# Up to so many bytes nobody counts; above them, lists pack to a tenth, masks not at all.
_MOST_BYTES, _MOST_TIMES = 100_000_000, 100

Label = npt.NDArray[np.uint8]
BACKGROUND = "background"


@dataclass(frozen=True)
class DrawnMask:
    """A mask of one picture.

    Attributes:
        picture: What the tool calls the picture: a name, or a path as it knows it.
        place: Where the mask stands, for messages.
        read: Returns it, (H, W) uint8: 0 background, 1.. the run's classes, 255 not sure.
            `UserError` where it cannot be read, or has classes that the run has not.
        submitted: Whether the tool says that a person has been through it.
        size: (H, W) of the picture as the tool says; None: the mask itself says it.
    """

    picture: str
    place: str
    read: Callable[[], Label]
    submitted: bool = False
    size: tuple[int, int] | None = None


@dataclass
class Drawing:
    """All masks of a file or folder.

    Attributes:
        tool: What it was recognised as.
        knows_unsure: Whether the tool keeps pixels that are not sure; where it does not, they
            come back unlabelled.
        named: Whether the file says which class a label is.
    """

    tool: str
    knows_unsure: bool
    named: bool = True
    masks: list[DrawnMask] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClassNames:
    """The classes of a run, by name."""

    classes: Sequence[str]

    def label(self, name: str, place: str) -> int:
        """Return the label of a class, 0 for the background.

        Raises:
            UserError: The run has no class of this name.
        """
        if name in self.classes:
            return list(self.classes).index(name) + 1
        if name == BACKGROUND:
            return 0
        raise UserError(
            f"it has the class {name!r}, which the run has not{nearest(name, self.classes)}",
            where=place,
            expected=", ".join(self.classes),
        )

    def label_or_reason(self, name: str, place: str) -> int | UserError:
        """Return the label of a class, or why there is none: of no matter unless a mask has it."""
        try:
            return self.label(name, place)
        except UserError as error:
            return error

    def in_order(self) -> dict[int, int | UserError]:
        """Return the labels of a file that names no classes: those of the run."""
        return {label: label for label in range(1, len(self.classes) + 1)}


class Files:
    """The files in a folder or in a zip, by their names relative to it.

    Raises:
        UserError: The zip is damaged, or a folder cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_dir():
            found = sorted(
                each
                for folder, _, names in os.walk(path, onerror=refuse_folder)
                for each in map(Path(folder).joinpath, names)
                if each.is_file()
            )
            self.names = tuple(each.relative_to(path).as_posix() for each in found)
            return
        try:
            # Kept open: its list of members is read once, however many masks there are.
            self._archive = zipfile.ZipFile(path)
            members = self._archive.namelist()
        except _DAMAGED as error:
            raise UserError(f"this zip cannot be read: {error}", where=path) from None
        # Not `is_dir()`: a damaged zip may hold a member without a name.
        self.names = tuple(sorted(name for name in members if name[-1:] not in ("", "/")))

    def read(self, name: str) -> bytes:
        """Return the content of one of `names`.

        Raises:
            UserError: It is damaged, or unpacks to far more than such a file does.
        """
        if self._archive is None:
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise UserError(
                    f"cannot read this file: {error.strerror}", where=self.path / name
                ) from None
        try:
            member = self._archive.getinfo(name)
            if member.file_size > max(_MOST_BYTES, _MOST_TIMES * member.compress_size):
                raise UserError(
                    f"{name} in this zip has {member.file_size / 1e6:.0f} MB, packed into "
                    f"{member.compress_size / 1e6:.1f} MB: no mask or list is like that",
                    where=self.path,
                    fix="have the tool export it again",
                )
            return self._archive.read(member)
        except _DAMAGED as error:
            raise UserError(
                f"{name} in this zip cannot be read: {error}", where=self.path
            ) from None

    def pngs(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield those of `names` that are PNG files in a folder, each with its path there.

        Args:
            folder: With its last `/`; empty: everywhere. The path is without suffix.
        """
        for name in self.names:
            path = PurePosixPath(name.removeprefix(folder))
            if name.startswith(folder) and path.suffix.lower() == ".png":
                yield name, path.with_suffix("").as_posix()

    def text(self, name: str) -> str:
        """Return the text of one of `names`; a byte order mark is dropped.

        Raises:
            UserError: It is not UTF-8.
        """
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(
                "this file is not UTF-8 text", where=self.place(name), fix="save it again as UTF-8"
            ) from None

    def place(self, name: str) -> str:
        """Return where a file is, for messages."""
        return f"{self.path}, {name}"


def relabelled(label: Label, values: Mapping[int, int | UserError]) -> Label:
    """Return a label map with its values replaced.

    Args:
        label: (H, W) uint8.
        values: Value -> label of the run, or why there is none.

    Raises:
        UserError: A value that is there has none.
    """
    table = np.zeros(256, dtype=np.uint8)
    for value in np.unique(label).tolist():
        new = values.get(value)
        if not isinstance(new, int):
            raise new or UserError(f"it holds the label {value}, which is no class")
        table[value] = new
    found: Label = table[label]
    return found
