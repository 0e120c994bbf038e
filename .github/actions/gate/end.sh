#!/usr/bin/env bash
# Ends the step with the gate's exit code; 4 where there is none, or where the verdict was green and something after it failed.
# Never turns red into green.
set -euo pipefail

late() {
  echo "::error title=quantgate::$1"
  if [[ $code == 0 ]]; then code=4; fi
}

code="${CODE:-4}"
[[ $code =~ ^[0-9]{1,3}$ ]] || code=4
[[ ${GOVERN:-0} =~ ^0?$ ]] || late "what the pull request does to its policy could not be said"
[[ ${SHARE:-skipped} =~ ^(success|skipped)?$ ]] || late "no redacted copy was made, so nothing was uploaded or published: see that step"
[[ ${UPLOAD:-skipped} =~ ^(success|skipped)?$ ]] || late "the redacted copy could not be uploaded"
[[ ${OUTPUTS:-skipped} =~ ^(success|skipped)?$ ]] || late "outputs and job summary could not be written"
# --start is tried once; what counts is that the verdict arrived
[[ ${PUBLISH:-0} =~ ^0?$ ]] || late "the verdict could not be published, see the step before this one"
exit "$code"
