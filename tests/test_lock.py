"""What an installation brings is pinned with hashes, and what is pinned agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def pins(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Return package -> version and SHA-256s of a lock file."""
    found = {}
    for entry in re.split(r"\n(?=\S)", path.read_text().strip()):
        if entry.startswith("#"):
            continue
        name, _, version = entry.split()[0].partition("==")
        found[name] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
    return found


def normal(requirement: str) -> str:
    match = _NAME.match(requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.mark.parametrize("name", ["requirements.lock", "envs/uv.lock"])
def test_every_package_has_a_version_and_hashes(name: str) -> None:
    for package, (version, hashes) in pins(REPOSITORY / name).items():
        assert re.fullmatch(r"[0-9][\w.]*", version), package
        assert hashes, package


def test_the_lock_holds_all_that_is_asked_for_in_the_versions_of_the_constraints() -> None:
    locked = pins(REPOSITORY / "requirements.lock")
    described = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project = described["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["cluster"], *extras["clip"]]
    asked += [*extras["heif"], *described["build-system"]["requires"]]
    missing = {normal(one) for one in asked} - locked.keys() - {"wsss"}
    assert not missing, "renew it: make lock"
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in constraints if line and not line.startswith("#"))
    differ = {
        name: (version, locked[normal(name)][0])
        for name, version in wanted.items()
        if normal(name) in locked and locked[normal(name)][0] != version
    }
    assert not differ, "renew it: make lock"
    assert "setuptools" in locked  # which builds wsss itself, without fetching anything more


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_installs_from_the_lock(tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        command = ["make", "--dry-run", "--always-make", "environment", *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return done.stdout

    locked, free = told("LOCKED=yes"), told("LOCKED=no")
    assert locked.count("--require-hashes -r requirements.lock") == 2
    assert "constraints.txt" not in locked
    assert "-c constraints.txt" in free and "-r requirements.lock" not in free
    for text in (locked, free):
        assert "--require-hashes -r envs/uv.lock" in text


def test_the_container_names_what_it_is_made_of_and_runs_as_a_user() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text()
    # An empty digest leaves `name@`, which no builder takes for an image.
    assert re.search(r"^ARG BASE_DIGEST\n(#.*\n)*FROM \S+@\$\{BASE_DIGEST\}$", lines, re.M)
    assert re.search(r"^ARG KUBECTL_SHA256$", lines, re.M) and "${KUBECTL_SHA256:?" in lines
    assert "sha256sum --check" in lines and "--require-hashes -r requirements.lock" in lines
    users = re.findall(r"^USER (\S+)$", lines, re.M)
    assert users and users[-1] not in ("root", "0")


def test_an_empty_digest_ends_the_build() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text()
    guard = re.search(r'^RUN (: "\$\{KUBECTL_SHA256:\?[^"]*") ', lines, re.M)
    assert guard is not None
    for value, ends in (("", True), ("ab", False)):
        environment = {"KUBECTL_SHA256": value, "KUBECTL": "v1"}
        done = subprocess.run(["sh", "-c", guard[1]], env=environment, capture_output=True)
        assert (done.returncode != 0) == ends
