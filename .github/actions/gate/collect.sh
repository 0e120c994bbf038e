#!/usr/bin/env bash
# Outputs and job summary of all candidates together.  NAMES is what was expected; without it nothing may look complete.
# Decides nothing; the exit code of the job is the last step's.
set -euo pipefail

if [[ -z $NAMES ]]; then
  echo "::error title=quantgate::nobody knows what was to be gated: see the job that detects"
  exit 4
fi
mkdir -p -- "$RUNS"
gate ci outputs "$RUNS" --expect "$NAMES"
