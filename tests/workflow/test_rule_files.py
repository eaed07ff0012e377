"""The rule files as text: short enough to read, and with what a cluster has to know."""

from __future__ import annotations

from conftest import REPOSITORY


def test_sizes_of_the_rule_files() -> None:
    assert len((REPOSITORY / "Snakefile").read_text().splitlines()) <= 50
    for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        assert len(path.read_text().splitlines()) <= 200, path


def test_every_rule_has_what_a_cluster_needs() -> None:
    for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        for block in path.read_text().split("\nrule ")[1:]:
            block = block.split("\nuse rule ")[0]
            for directive in ("log:", "benchmark:", "threads:", "resources:", "conda:"):
                assert f"    {directive}" in block, (path, block.split(":")[0], directive)
            # That of a stage says by itself whether it asks for a GPU.
            named = ("mem_mb=", "runtime=") + (() if "**resources(" in block else ("gpu=",))
            for resource in named:
                assert resource in block, (path, block.split(":")[0], resource)
