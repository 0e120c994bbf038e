#!/usr/bin/env bash
# gate run: its exit code becomes an output, so that everything after it happens whatever the verdict is.
# Never loses the code: until the gate has ended it is 4, could not measure.
# shellcheck disable=SC2153  # these come from the action
set -euo pipefail

stored() { # names of the stored measurements; they are keys of content
  if [[ -d $STORE ]]; then (cd -- "$STORE" && find . -type f | LC_ALL=C sort); fi | sha256sum | cut -c1-16
}

echo "code=4" >>"$GITHUB_OUTPUT"
arguments=(--policy="$POLICY" --baseline="$BASELINE" --candidate="$CANDIDATE" --backend="$BACKEND" --store="$STORE" --out="$OUT")
# the policy is a copy of the base branch's: reports name the file that it is a copy of
arguments+=(--policy-name="$POLICY_PATH")
[[ -z $WAIVERS ]] || arguments+=(--waivers="$WAIVERS")
[[ -z $DEVICE ]] || arguments+=(--device="$DEVICE")
[[ -z $WORKER_PYTHON ]] || arguments+=(--python="$WORKER_PYTHON")
[[ -z $ON_INCONCLUSIVE ]] || arguments+=(--on-inconclusive="$ON_INCONCLUSIVE")
[[ $WRITABLE == true ]] || arguments+=(--store-read-only)
while IFS= read -r line; do
  [[ -z $line ]] || arguments+=("$line")
done <<<"$ARGUMENTS"

before="$(stored)"
code=0
gate run "${arguments[@]}" || code=$?
after="$(stored)"

{
  echo "code=$code"
  echo "store-state=$after"
  if [[ $before == "$after" ]]; then echo "store-changed=false"; else echo "store-changed=true"; fi
} >>"$GITHUB_OUTPUT"
