#!/usr/bin/env bash
# Snakemake runs this in the environment that it has made of wsss.yaml, from the working folder: the
# package itself, as it lies there, so that an edit needs no new environment.
set -euo pipefail
if [ ! -f pyproject.toml ]; then
  echo "there is no pyproject.toml in $PWD: start Snakemake in the folder of the checkout" >&2
  exit 1
fi
python -m pip install --quiet --no-deps --editable .
