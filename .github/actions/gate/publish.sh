#!/usr/bin/env bash
# gate publish github, for the action and the workflows.  MODE: start, finish or measured (on the default branch's machine).
# Its exit code is an output: publishing that fails never ends what comes after it, and never changes a verdict.
set -euo pipefail

echo "code=4" >>"$GITHUB_OUTPUT"
arguments=(--name "$CHECK_NAME")
case "$REQUIRED" in false) arguments+=(--optional) ;; *) arguments+=(--required) ;; esac
# of a check that is begun, too: another job of this run may publish under its name, for other candidates
[[ -z ${NAMES:-} ]] || arguments+=(--expect "$NAMES")
if [[ $MODE == start ]]; then
  arguments+=(--start)
else
  [[ -z ${POLICY_PATH:-} ]] || arguments+=(--policy-path "$POLICY_PATH")
  [[ -z ${COMMENT:-} ]] || arguments+=(--comment "$COMMENT")
  [[ $MODE != measured ]] || arguments+=(--measured-here)
  [[ ${SUMMARY:-true} == true ]] || arguments+=(--no-summary)
  while IFS= read -r line; do
    [[ -z $line ]] || arguments+=(--code-path "$line")
  done <<<"${CODE_PATHS:-}"
  while IFS= read -r line; do
    [[ -z $line ]] || arguments+=(--base-branch "$line")
  done <<<"${BASE_BRANCHES:-}"
  # nothing came back is something to publish, too
  mkdir -p -- "$RUNS"
  arguments+=("$RUNS")
fi

code=0
gate publish github "${arguments[@]}" || code=$?
echo "code=$code" >>"$GITHUB_OUTPUT"
