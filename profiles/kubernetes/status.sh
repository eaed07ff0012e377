#!/bin/sh
# Says what became of a job, in Snakemake's words: running, success or failed.
# No answer from the cluster means nothing about the job; only one that is gone has failed.
path='{.status.conditions[?(@.status=="True")].type}'
if ! conditions=$(kubectl get job "$1" --output=jsonpath="$path" 2>&1); then
  case $conditions in
    *NotFound*) echo failed ;;
    *) echo running ;;
  esac
  exit 0
fi
case " $conditions " in
  *" Complete "*) echo success ;;
  *" Failed "*) echo failed ;;
  *) echo running ;;
esac
