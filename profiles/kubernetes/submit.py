#!/usr/bin/env python3
"""Create the Kubernetes job of one stage from job.yaml and print its name."""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml


def manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Return job.yaml, filled in."""
    job: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("job.yaml").read_text())
    job["metadata"]["labels"]["stage"] = options.label
    job["spec"]["activeDeadlineSeconds"] = 60 * options.minutes
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # The image's entry point hands signals to all that runs in the pod.
    container["args"] = ["sh", options.script]
    amounts = {"cpu": str(options.cpus), "memory": f"{options.memory_mb}M"}
    if options.gpus:
        amounts["nvidia.com/gpu"] = str(options.gpus)
    container["resources"] = {"requests": amounts, "limits": amounts}
    return job


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name in ("cpus", "memory-mb", "gpus", "minutes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--label", required=True, help="the stage")
    parser.add_argument("script", help="what the job runs")
    job = manifest(parser.parse_args())
    command = ["kubectl", "create", "--output=jsonpath={.metadata.name}", "--filename=-"]
    subprocess.run(command, input=json.dumps(job), text=True, check=True)


if __name__ == "__main__":
    main()
