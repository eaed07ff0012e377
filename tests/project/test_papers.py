"""The papers of the project agree with it."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from conftest import REPOSITORY

import wsss


def test_citation_is_of_this_version_and_names_the_papers_of_the_methods() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == wsss.__version__
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    for entry in (citation, *citation["references"]):
        assert entry["title"] and entry["authors"] and entry["type"]
    method = " ".join((REPOSITORY / "docs" / "method.md").read_text().split()).lower()
    cited = [each["title"].lower() for each in citation["references"]]
    # The two papers that the chain stands on are called what docs/method.md calls them.
    assert sum(title in method for title in cited) >= 2


def test_the_changelog_has_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(wsss.__version__)}$", text, re.MULTILINE)


def test_hooks_and_continuous_integration_call_what_is_there() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    lint = (REPOSITORY / "Makefile").read_text()
    for hook in hooks:
        program, *words = hook["entry"].removeprefix(".venv/bin/").split()
        assert f"$(BIN)/{program}" in lint
        assert all(word in lint for word in words if word != "--fix")
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
    called = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in called and os.access(REPOSITORY / ".ci/run", os.X_OK)


def test_every_link_between_the_pages_leads_somewhere() -> None:
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
    pages.append(REPOSITORY / "config" / "README.md")
    dead = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert dead == []


def test_the_environment_installs_the_package_itself(tmp_path: Path) -> None:
    script = REPOSITORY / "envs" / "wsss.post-deploy.sh"
    # A `python` that says what it was asked for.
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" > asked\n')
    program.chmod(0o755)
    elsewhere = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def deploy() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", script], cwd=tmp_path, env=elsewhere, capture_output=True, text=True
        )

    done = deploy()
    assert done.returncode == 1 and "no pyproject.toml" in done.stderr
    (tmp_path / "pyproject.toml").touch()
    assert deploy().returncode == 0
    assert (tmp_path / "asked").read_text() == "-m pip install --quiet --no-deps --editable .\n"
