"""What each command imports before it works: what it needs, as starting is most of a short stage.

PyTorch takes two seconds to import, its compiler two more, timm and torchvision most of another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from conftest import REPOSITORY

from wsss.cli import SUMMARIES

# What takes a tenth of a second or more to import.
HEAVY = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "timm",
    "transformers",
    "tensorboard",
    "matplotlib",
    "scipy",
    "h5py",
    "pydantic",
    "PIL",
)
PICTURES = {"PIL", "pydantic"}
TRAINING = PICTURES | {"torch", "tensorboard"}
# A network of timm's, as it is applied: its own code, and torchvision behind it.
TIMM = PICTURES | {"torch", "timm", "torchvision"}
MAY_IMPORT: dict[str, set[str]] = {
    "demo-data": {"PIL", "scipy"},
    "coco-masks": PICTURES,
    "index": PICTURES,
    "masks": PICTURES,
    "cam": TRAINING,
    "lpcam": TIMM | {"h5py"},
    "export": TIMM | {"h5py"},
    "labels": PICTURES | {"h5py"},
    "irn": TRAINING,
    "pseudo-labels": PICTURES | {"torch"},
    "segmentation": TRAINING,
    "prediction": TIMM,
    "self-labels": TIMM,
    "choose-thresholds": PICTURES | {"h5py"},
    "choose-walk-threshold": TIMM | {"h5py"},
    "methods-table": {"PIL"},
    "score-maps": PICTURES,
    "score-labels": PICTURES,
    "score-tags": PICTURES,
    "collect": {"PIL"},
    "ablation-table": {"PIL"},
    "panels": PICTURES | {"h5py"},
    "report": PICTURES | {"matplotlib"},
    "figures": PICTURES | {"h5py"},
    "reconstructions": PICTURES | {"torch"},
    # Those for people import what they need once they know it.
    "init": {"pydantic"},
    "run": set(),
    "predict": PICTURES | {"torch"},
    "table": set(),
    "export-labels": set(),
    "export-model": set(),
    "import-masks": set(),
    "thresholds": {"pydantic"},
    "compare": set(),
    "status": set(),
    "cams": set(),
    "import-weights": set(),
    "fetch-weights": set(),
    "submission": set(),
    "config": set(),
}

# Forks do the looking, so that PyTorch is imported once for all that may have it.
LOOK = """
import json, os, sys
from wsss.cli import build_parser
from wsss.runtime.compiler import leave_compiler_out, compiler_is_loaded

heavy, light, slow = json.loads(sys.argv[1])
leave_compiler_out()

def loaded():
    return [m for m in heavy if m in sys.modules and (m != "torch._dynamo" or compiler_is_loaded())]

def look(command):
    sys.stdout.flush()
    if os.fork() == 0:
        build_parser(command)
        print(json.dumps([command, loaded()]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, command

for command in light:
    look(command)
import torch
for command in slow:
    look(command)
"""
# What a process does with the compiler left out, each in a fork of one that has PyTorch. The last
# ones compile: what the compiler is told, and that it is all there, must be as ever.
COMPILER = """
import os, sys
from wsss.runtime.compiler import compiler_is_loaded, leave_compiler_out

leave_compiler_out()
import torch

weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], lr=0.25, momentum=0.9)

def descend():
    optimizer.zero_grad()
    weight.square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())

def optimise():
    descend()
    assert weight.tolist() == [0.5, 0.5]
    assert not compiler_is_loaded()

def see():
    import torchvision
    assert not compiler_is_loaded()
    from torchvision.ops import nms  # torchvision's own code is there
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    assert nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]
    from torchvision.ops.roi_align import is_compile_supported
    assert isinstance(is_compile_supported("cpu"), bool) and compiler_is_loaded()

def compile():
    descend()
    graphs = []
    def backend(graph, inputs):
        graphs.append(graph)
        return graph
    @torch.compile(backend=backend)
    def doubled(x):
        y = x * 2
        descend()  # which the compiler is told to leave alone
        return y + weight
    assert doubled(torch.ones(2)).shape == (2,) and graphs and compiler_is_loaded()
    names = " ".join(str(node.target) for graph in graphs for node in graph.graph.nodes)
    assert "foreach" not in names and "mul" in names

def submodule():
    import torch._dynamo.config as config
    import torch._dynamo.utils as utils
    assert torch._dynamo.config is config and torch._dynamo.utils is utils
    assert sys.modules["torch._dynamo.config"] is config and config.__spec__.origin
    descend()

for child in (optimise, see, compile, submodule):
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            child()
            print(child.__name__, flush=True)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(0)
    os.wait()
"""


def _python(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_imports_what_it_needs_and_nothing_else() -> None:
    light = [name for name, allowed in MAY_IMPORT.items() if "torch" not in allowed]
    slow = [name for name, allowed in MAY_IMPORT.items() if "torch" in allowed]
    lines = _python(LOOK, json.dumps([HEAVY, light, slow])).splitlines()
    found = {name: set(modules) for name, modules in map(json.loads, lines)}
    too_many = {name: sorted(found[name] - MAY_IMPORT[name]) for name in MAY_IMPORT}
    assert {name: modules for name, modules in too_many.items() if modules} == {}


def test_every_command_is_in_the_list() -> None:
    assert set(MAY_IMPORT) == set(SUMMARIES)


def test_the_compiler_is_there_when_it_is_wanted_and_only_then() -> None:
    assert _python(COMPILER).split() == ["optimise", "see", "compile", "submodule"]
