#!/usr/bin/env bash
# The redacted copy, and whether there is one: a run that never began has nothing to share.
# Uploads nothing; what it writes is all that is ever uploaded or published.  A record that does not say how its run ended,
# or not what the pull request does to its bar, stays here: without it the check says "could not measure".
# shellcheck disable=SC2153  # CODE comes from the action
set -euo pipefail

keep() {
  echo "::error title=quantgate::$1: the record is left out"
  exit 1
}

echo "ready=false" >>"$GITHUB_OUTPUT"
[[ -f $OUT/run.json ]] || exit 0

[[ $GOVERNED == skipped || ($GOVERNED == success && $GOVERN == 0) ]] ||
  keep "what the pull request does to its policy could not be said"
said="$("$PYTHON" -I -c 'import json, sys; print(int(json.load(sys.stdin)["exit_code"]))' <"$OUT/run.json")" ||
  keep "no exit code can be read from it"
[[ $said == "$CODE" ]] || keep "gate run ended with exit code $CODE, and its record says $said"

gate share "$OUT" --out "$SHARED" || {
  code=$?
  rm -rf -- "${SHARED:?}" # half a copy would be published
  exit "$code"
}
echo "ready=true" >>"$GITHUB_OUTPUT"
