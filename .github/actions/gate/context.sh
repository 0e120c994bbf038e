#!/usr/bin/env bash
# Checks what was asked for, and says where files go, whether to publish, and whether the store may be written.
# Prints nothing of what it was given: names and refs come from whoever opened the pull request.
# shellcheck disable=SC2153  # these come from the action
set -euo pipefail
# shellcheck source=artifacts.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/artifacts.sh"

refuse() { # a sentence without anything from outside
  echo "::error title=quantgate::$1"
  exit 2
}

# it has the base branch's files and a token that writes: the check would land on a commit that nobody measured
if [[ $EVENT == pull_request_target ]]; then
  refuse "pull_request_target checks out the base branch, and would speak for the pull request's commit: use pull_request, and publish.yml for forks"
fi
[[ -n $ARTIFACT ]] || ARTIFACT="$(quantgate_artifacts "$CHECK_NAME")-run"

word='^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$'
[[ $NAME =~ $word ]] || refuse "input name: expected letters, digits, dot, dash and underscore, 80 at most, no dash or dot in front"
[[ $ARTIFACT =~ $word ]] || refuse "input artifact-name: expected letters, digits, dot, dash and underscore, 80 at most"
case "$NAME" in observations | previous) refuse "input name: observations and previous are folders of a run" ;; esac
case "$PUBLISH" in true | false) ;; *) refuse "input publish: expected true or false" ;; esac

folder="$RUNNER_TEMP/quantgate/$NAME"
rm -rf -- "$folder"
mkdir -p -- "$folder/shared"

# only what runs on the default branch by its own will stores baselines; workflow_run runs there too, for
# somebody else's pull request
writable=false
case "$EVENT" in
  schedule) writable=true ;;
  push | workflow_dispatch)
    if [[ -n $DEFAULT_BRANCH && $REF == "refs/heads/$DEFAULT_BRANCH" ]]; then writable=true; fi
    ;;
esac

cache=false
case "$STORE" in
  '')
    store="$RUNNER_TEMP/quantgate-store"
    cache=true
    ;;
  /* | *://*) store="$STORE" ;;
  # a relative folder lies in the working tree, where the pull request could put baselines of its own
  *) refuse "input store: expected a URL or an absolute folder; a relative one would lie in the pull request's own files" ;;
esac
[[ $store != *$'\n'* ]] || refuse "input store: expected one line"

if [[ $PUBLISH == true && $EVENT == pull_request && ${HEAD_REPOSITORY,,} != "${GITHUB_REPOSITORY,,}" ]]; then
  echo "::notice title=quantgate::a pull request from a fork has a read-only token: nothing is published here, see publish.yml"
  PUBLISH=false
fi

{
  echo "folder=$folder"
  echo "shared=$folder/shared/$NAME"
  echo "artifact=$ARTIFACT-$NAME"
  echo "names=[\"$NAME\"]"
  echo "store=$store"
  echo "cache=$cache"
  echo "writable=$writable"
  echo "publish=$PUBLISH"
} >>"$GITHUB_OUTPUT"
