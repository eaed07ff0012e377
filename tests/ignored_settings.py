"""Ignore settings one at a time, and tell which of the tests that are marked with them notice.

    PYTHONPATH=tests python -m ignored_settings PLACE... [-- PYTEST'S OPTIONS AND FILES]

A PLACE is a setting's, or the beginning of one, such as `cam.acr`. Each test that is marked with
such a setting runs once for it, while the library reads the setting's default whatever was set; the
tests themselves, and what checks settings, read what was set. A test that passes so notices
nothing. Fixtures of several tests are not made anew: what they were made with counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from settings_leaves import Leaf, all_leaves

import wsss

LIBRARY = str(Path(wsss.__file__).parent)
# What chooses a method, a format or a head is no value that could be read in another one's place.
CHOOSING = ("cam.method", "index.format", "pseudo_labels.method", "segmentation.head.name")
# What refuses settings that do not go together.
CHECKS = {
    name for leaf in all_leaves() for name in leaf.owner.__pydantic_decorators__.model_validators
}


@contextmanager
def ignored(leaf: Leaf) -> Iterator[None]:
    """Make the library read the default of a setting."""
    default = leaf.owner.model_fields[leaf.key].get_default(call_default_factory=True)

    def read(settings: Any) -> Any:
        caller = sys._getframe(1).f_code
        if caller.co_filename.startswith(LIBRARY) and caller.co_name not in CHECKS:
            return deepcopy(default)
        return settings.__dict__[leaf.key]

    # A property comes before what an instance holds.
    setattr(leaf.owner, leaf.key, property(read))
    try:
        yield
    finally:
        delattr(leaf.owner, leaf.key)


class _Sibling:
    """Stands for another test beside one: fixtures of both are kept, its own made anew."""

    def __init__(self, item: pytest.Item) -> None:
        self._chain = item.listchain()[:-1]

    def listchain(self) -> list[Any]:
        """Return what it is in."""
        return self._chain


class Ignoring:
    """The plugin of pytest's that does so."""

    def __init__(self, places: Sequence[str]) -> None:
        self._wanted = {
            leaf.place
            for leaf in all_leaves()
            if leaf.place not in CHOOSING
            and any(f"{leaf.place}.".startswith(f"{p}.") for p in places)
        }
        # Setting -> test -> the first line of how it failed; None: it did not.
        self.told: dict[str, dict[str, str | None]] = {place: {} for place in sorted(self._wanted)}

    def _of(self, item: pytest.Item) -> list[str]:
        named = {name for mark in item.iter_markers("setting") for name in mark.args}
        return sorted(named & self._wanted)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._of(item)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for place in self._of(item):
            with ExitStack() as stack:
                # Two methods can have settings of one class.
                for leaf in {leaf for leaf in all_leaves() if leaf.place == place}:
                    stack.enter_context(ignored(leaf))
                reports = runtestprotocol(item, log=False, nextitem=_Sibling(item))
            said = [str(each.longrepr) for each in reports if each.failed]
            raised = [line[1:].strip() for line in "\n".join(said).splitlines() if line[:2] == "E "]
            failure = " ".join(raised[:3]) or " ".join(said)
            self.told[place][item.nodeid] = failure[:150] or None
        runtestprotocol(item, log=False, nextitem=nextitem)
        return True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for place, tests in self.told.items():
            noticed = any(failure is not None for failure in tests.values())
            terminalreporter.write_line(f"{'' if noticed else 'NOT NOTICED: '}{place}")
            for test, failure in tests.items():
                terminalreporter.write_line(f"    {test}: {failure or 'passes'}")


def main(arguments: Sequence[str]) -> int:
    """Run the marked tests; return 1 where a setting is ignored and none of its tests notices."""
    options: Sequence[str] = []
    if "--" in arguments:
        at = list(arguments).index("--")
        arguments, options = arguments[:at], arguments[at + 1 :]
    places = {leaf.place for leaf in all_leaves()}
    for each in arguments:
        if not any(place == each or place.startswith(f"{each}.") for place in places):
            print(f"ignored_settings: '{each}' is no setting and no stage", file=sys.stderr)
            return 2
    ignoring = Ignoring(arguments or sorted({place.partition(".")[0] for place in places}))
    pytest.main(["-q", "-p", "no:xdist", *options], plugins=[ignoring])
    return int(any(not any(tests.values()) for tests in ignoring.told.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
