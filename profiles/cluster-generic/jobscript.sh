#!/bin/sh
# properties = {properties}
# Where a scheduler announces a job's end to all of its processes, this shell outlives the signal
# until the stage, which may save a checkpoint, is done with it.
trap : TERM USR1
{exec_job}
