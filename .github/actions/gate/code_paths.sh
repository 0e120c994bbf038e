# shellcheck shell=bash
# Sourced: CODE_PATHS, the folder of BASELINE and checkpoints' own code, as the POLICY of a commit knows them; sets code_paths
# and the output of that name.  Never reads the policy from the working tree; no policy there means that the baseline is what
# it is called, and one behind a link that nothing is known of it.

quantgate_code_paths() { # COMMIT
  local here at='' part parts linked=false
  here="$(dirname -- "${BASH_SOURCE[0]}")"
  IFS=/ read -ra parts <<<"${POLICY#./}"
  for part in "${parts[@]}"; do
    at="${at:+$at/}$part"
    [[ $(git ls-tree "$1" -- "$at" 2>/dev/null || true) != 120000\ * ]] || linked=true
  done
  # shellcheck disable=SC2034  # for whoever sourced this
  code_paths="$({ git cat-file blob "$1:${POLICY#./}" 2>/dev/null || true; } | LINKED="$linked" "$PYTHON" -I "$here/code_paths.py")"
}
