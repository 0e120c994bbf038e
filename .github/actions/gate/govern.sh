#!/usr/bin/env bash
# Puts into the record what the pull request does to its policy, tasks or prompts.
# Changes no verdict; that it failed is an output, which the last step minds.
set -euo pipefail

code=0
if [[ -f $OUT/run.json ]]; then
  arguments=("$OUT" --export "$EXPORT")
  [[ -z $HISTORY ]] || arguments+=(--history "$HISTORY")
  gate ci govern "${arguments[@]}" || code=$?
fi
echo "code=$code" >>"$GITHUB_OUTPUT"
