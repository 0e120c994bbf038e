#!/usr/bin/env bash
# The base branch's policy, tasks, prompts and waivers; what the pull request does to them; which files count as code; the
# key of the store's cache.
# Never reads the policy from the working tree: a pull request must not lower its own bar.
set -euo pipefail
# shellcheck source=git.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/git.sh"
# shellcheck source=code_paths.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/code_paths.sh"
quantgate_git

case "$EVENT" in
  pull_request | pull_request_review)
    base="$PULL_BASE"
    head="$PULL_HEAD"
    ;;
  merge_group)
    base="$GROUP_BASE"
    head="$GROUP_HEAD"
    ;;
  *)
    base="$GITHUB_SHA"
    head="$GITHUB_SHA"
    ;;
esac
quantgate_fetch "$base"
quantgate_fetch "$head"
quantgate_merge_base "$base" "$head"

quantgate_code_paths "$base"
gate ci policy "$POLICY" --base "$base" --head "$head" --out "$EXPORT"

# which baselines are in the store follows from the policy and the baseline; the digest says so without naming them
digest="$({ git rev-parse --verify --end-of-options "$base:${POLICY#./}" && printf '%s' "$BASELINE"; } | sha256sum | cut -c1-16)"
echo "store-key=quantgate-store-${RUNNER_OS:-Linux}-${RUNNER_ARCH:-X64}-$digest-" >>"$GITHUB_OUTPUT"
