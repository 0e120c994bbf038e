#!/usr/bin/env bash
# Which checkpoints a pull request adds or changes, from git's objects: outputs matrix, names, count, code-paths, code-changed,
# and artifacts, what those of this CHECK_NAME are called.
# Checks out nothing of it.  BASE and HEAD are hashes; LIST, where given, replaces the search.
set -euo pipefail
here="$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=git.sh
source "$here/git.sh"
# shellcheck source=artifacts.sh
source "$here/artifacts.sh"
# shellcheck source=code_paths.sh
source "$here/code_paths.sh"

case "${EVENT:-}" in
  # "no checkpoint changed" would be a green run that never looked at anything
  schedule | *_dispatch)
    if [[ -z ${LIST//[[:space:]]/} ]]; then
      echo "::error title=quantgate::this event compares no two commits, so nothing can have changed: name what to gate with the input candidates"
      exit 2
    fi
    ;;
  pull_request_target)
    echo "::error title=quantgate::pull_request_target checks out the base branch, and would speak for the pull request's commit: use pull_request, and publish.yml for forks"
    exit 2
    ;;
esac
echo "artifacts=$(quantgate_artifacts "$CHECK_NAME")" >>"$GITHUB_OUTPUT"

quantgate_git
quantgate_fetch "$BASE"
quantgate_fetch "$HEAD"
quantgate_merge_base "$BASE" "$HEAD"

arguments=(--base "$BASE" --head "$HEAD" --policy "$POLICY")
if [[ -n ${LIST//[[:space:]]/} ]]; then arguments+=(--list "$LIST"); fi
while IFS= read -r line; do
  [[ -z $line ]] || arguments+=(--paths "$line")
done <<<"${PATHS:-}"

gate ci detect "${arguments[@]}"

# files that decide how a result comes about: if the pull request changes one, its result is not verified
quantgate_code_paths "$BASE"
globs=(':(top,glob).github/**')
while IFS= read -r line; do
  [[ -z $line ]] || globs+=(":(top,glob)$line")
done <<<"$code_paths"
if [[ ! $BASE =~ ^0+$ ]] && git diff --quiet --no-ext-diff --no-textconv "$BASE...$HEAD" -- "${globs[@]}"; then
  echo "code-changed=false" >>"$GITHUB_OUTPUT"
else
  echo "code-changed=true" >>"$GITHUB_OUTPUT"
fi
