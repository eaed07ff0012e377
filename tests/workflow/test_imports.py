"""What people wait for at every start, the configuration and the workflow, imports no PyTorch."""

from __future__ import annotations

import pytest
from conftest import Project

CONFIGURATION = """
from wsss.project.config import load_config
import wsss.project.schema
load_config()
"""
WORKFLOW = """
from snakemake.cli import main
try:
    main(["--dry-run", "--quiet", "--cores", "1", "results/tiny/miou.csv"])
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize("code", [CONFIGURATION, WORKFLOW], ids=["configuration", "workflow"])
def test_no_torch(project: Project, code: str) -> None:
    done = project.run("python", "-c", f"{code}\nimport sys\nprint('torch' in sys.modules)")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "False"
