#!/bin/sh
# Says what became of a Slurm job, in Snakemake's words: running, success or failed.
# A job that Slurm has forgotten (after MinJobAge) or cannot be asked about counts as running only
# as long as squeue does not answer; asked and unknown, it has failed.
if ! state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1); then
  case $state in
    *"Invalid job id"*) echo failed ;;
    *) echo running ;;
  esac
  exit 0
fi
case $state in
  COMPLETED) echo success ;;
  BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | REVOKED | TIMEOUT | "")
    echo failed ;;
  *) echo running ;;
esac
