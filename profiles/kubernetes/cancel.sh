#!/bin/sh
# Removes jobs and their pods, which get SIGTERM and then the time that job.yaml grants.
exec kubectl delete job --wait=false --ignore-not-found "$@"
