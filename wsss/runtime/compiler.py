"""PyTorch's compiler (`torch._dynamo`), imported by what compiles, not by what only mentions it.

Optimisers and torchvision import it, two seconds and a hundred megabytes of every start, to tell it
what to leave alone. A process that compiles nothing has nothing to tell; one that does gets it at
the first use, and what was told before then counts.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PACKAGE = "torch._dynamo"


class _Absent(ModuleType):
    """Stands for a module of the compiler until something of it is wanted."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=name == PACKAGE)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        # Who looks through all modules (`inspect`, `warnings`) asks each for such names.
        if name.startswith("__"):
            raise AttributeError(name)
        _load()
        return getattr(importlib.import_module(self.__name__), name)


class _Package(_Absent):
    """The two things of it that an optimiser calls."""

    def __init__(self) -> None:
        super().__init__(PACKAGE)
        self.spared: list[Callable[..., Any]] = []
        self.disable, self.graph_break = self._disable, self._graph_break

    def _disable(self, function: Any = None, *settings: Any, **more: Any) -> Any:
        # The function as it is: nothing is compiled.
        if function is None:
            _load()
            return sys.modules[PACKAGE].disable(function, *settings, **more)
        self.spared.append(function)
        return function

    def _graph_break(self, *_: Any, **__: Any) -> None:
        pass  # there is no graph


class _Utilities(_Absent):
    """What torchvision asks whether it may compile, when it would."""

    def __init__(self) -> None:
        super().__init__(f"{PACKAGE}.utils")
        self.is_compile_supported = self._is_compile_supported

    def _is_compile_supported(self, device_type: Any) -> Any:
        return self.__getattr__("is_compile_supported")(device_type)


class _Found(Loader):
    """Gives a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        self._module.__spec__ = self._spec


class _Submodules(MetaPathFinder):
    """Finds what is below the compiler: the whole of it is loaded then."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{PACKAGE}.") or not _load():
            return None
        if name in sys.modules:
            return ModuleSpec(name, _Found(sys.modules[name]))
        return PathFinder.find_spec(name, sys.modules[PACKAGE].__path__)


def _load() -> bool:
    """Import the compiler in place of what stands for it; say whether that was still to do."""
    package = sys.modules.get(PACKAGE)
    if not isinstance(package, _Package):
        return False
    for name in (PACKAGE, f"{PACKAGE}.utils"):
        if isinstance(sys.modules.get(name), _Absent):
            del sys.modules[name]
    # PyTorch remembers what it was answered, by this name.
    for function in package.spared:
        vars(function).pop("__dynamo_disable", None)
    importlib.import_module(PACKAGE)
    return True


def leave_compiler_out() -> None:
    """From now on in this process, import PyTorch's compiler only when something is compiled.

    Does nothing where it is imported already.
    """
    if PACKAGE in sys.modules:
        return
    sys.modules[PACKAGE] = _Package()
    sys.modules[f"{PACKAGE}.utils"] = _Utilities()
    if not any(isinstance(finder, _Submodules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Submodules())


def compiler_is_loaded() -> bool:
    """Say whether PyTorch's compiler, and not what stands for it, is imported."""
    return PACKAGE in sys.modules and not isinstance(sys.modules[PACKAGE], _Package)
