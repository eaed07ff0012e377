"""What pyproject.toml cannot say: a wheel holds the working folder that `wsss init` copies."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDER = Path(__file__).parent
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")


class BuildWithWorkingFolder(build_py):
    """Copies the workflow into the package; not for editable installs, which have it beside."""

    def run(self):
        """Build the package, then add the files."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "wsss" / "project" / "files"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in PARTS:
            source = FOLDER / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target / name)


setup(cmdclass={"build_py": BuildWithWorkingFolder})
