"""Whether weight files fit their networks, asked before a run rather than hours into it.

Networks and files are compared by the names and shapes of their tensors, in a process of its own,
since that takes PyTorch, which no plan waits for otherwise. What fitted is kept in the cache, by
the file's content, the network's settings and its code, and then takes no process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import canonical_json, content_hash
from wsss.provenance import closure_hash, file_fingerprint
from wsss.runtime.cache import entry, keep
from wsss.runtime.plugins import load_named_plugins
from wsss.runtime.registry import chosen_modules, load_code
from wsss.runtime.settings import Settings, parse, to_dict

KIND = "weights-that-fit"
_FIELDS = ("found", "where", "expected", "fix")


@dataclass(frozen=True)
class WeightFile:
    """A weight file and what is to start from it.

    Attributes:
        settings: Of the network; their class names what compares them, as `weights_check`.
        path: The file or folder.
        place: Where the settings stand, for messages.
    """

    settings: Settings
    path: Path
    place: str

    @property
    def check(self) -> str:
        """What compares them, as `module:name`; called with the settings and the path."""
        return str(getattr(self.settings, "weights_check", ""))

    @property
    def key(self) -> str:
        """What the answer depends on."""
        module = self.check.partition(":")[0]
        return content_hash(
            {
                "file": file_fingerprint(self.path),
                "name": self.path.name,  # its suffix says how it is read
                "settings": to_dict(self.settings),
                "code": closure_hash(module, *chosen_modules(self.settings)),
            }
        )


_known: set[str] = set()


def check_fits(files: Sequence[WeightFile]) -> None:
    """Check that weight files fit; at once where they did before.

    Raises:
        UserError: One does not.
    """
    asked = {}
    for file in files:
        if not file.check:
            continue
        # Within a process once: a plan asks for each of its jobs.
        stamp = f"{file.path.stat().st_mtime_ns} {file.path} {file.place} {file.settings!r}"
        if stamp in _known:
            continue
        key = file.key
        if not entry(KIND, key).is_file():
            asked[key] = file
        _known.add(stamp)
    if not asked:
        return
    try:
        _ask(asked)
    except UserError:
        _known.clear()
        raise


def _ask(asked: dict[str, WeightFile]) -> None:
    question = [
        {
            "check": file.check,
            "class": f"{type(file.settings).__module__}:{type(file.settings).__name__}",
            "settings": to_dict(file.settings),
            "path": str(file.path.absolute()),
        }
        for file in asked.values()
    ]
    for (key, file), answer in zip(asked.items(), _answers(question), strict=True):
        if "found" in answer:
            raise UserError(
                answer["found"],
                where=f"{file.path} ({file.place})",
                expected=answer["expected"],
                fix=answer["fix"],
            )
        if "unknown" in answer:
            # A network of somebody's own that cannot be built without values, say.
            said = f"whether it fits {file.place} shows when it is loaded ({answer['unknown']})"
            print(f"{file.path}: {said}", file=sys.stderr)
            continue
        keep(KIND, key, canonical_json({"file": file.path.name}).encode())


def _answers(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a process with PyTorch says."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return [{"unknown": last} for _ in questions]
    return answers


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    """Compare one network and one file."""
    import warnings

    from wsss.models.weights import shapes_alone

    settings = parse(load_code(question["class"]), question["settings"], where=question["path"])
    try:
        # Copying onto a network without values is what is meant here.
        with warnings.catch_warnings(), shapes_alone():
            warnings.simplefilter("ignore")
            load_code(question["check"])(settings, Path(question["path"]))
    except UserError as error:
        return {field: getattr(error, field) for field in _FIELDS}
    except Exception as error:
        return {"unknown": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {}


if __name__ == "__main__":
    load_named_plugins()
    print(json.dumps([_answer(question) for question in json.load(sys.stdin)]))
