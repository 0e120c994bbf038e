# shellcheck shell=bash
# Sourced: git that may read this repository, and commits that a shallow checkout lacks.
# Credentials are in the environment of one step, never in .git/config; nothing of what is fetched is checked out.

quantgate_git() {
  local header
  export GIT_TERMINAL_PROMPT=0 GIT_LFS_SKIP_SMUDGE=1
  # in a container the files may belong to another user; hooks have no business here
  export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
  export GIT_CONFIG_KEY_1=core.hooksPath GIT_CONFIG_VALUE_1=/dev/null
  if [[ -n ${FETCH_TOKEN:-} ]]; then
    header="$(printf 'x-access-token:%s' "$FETCH_TOKEN" | base64 | tr -d '\n')"
    # the empty value drops what actions/checkout may have left: GitHub answers two such headers with an error
    export GIT_CONFIG_COUNT=4 GIT_CONFIG_KEY_2="http.${GITHUB_SERVER_URL:-https://github.com}/.extraheader" GIT_CONFIG_VALUE_2=''
    export GIT_CONFIG_KEY_3="$GIT_CONFIG_KEY_2" GIT_CONFIG_VALUE_3="AUTHORIZATION: basic $header"
    unset FETCH_TOKEN
  fi
}

quantgate_commit() { # 40 or 64 hex digits, nothing else reaches git
  [[ $1 =~ ^([0-9a-f]{40}|[0-9a-f]{64})$ ]] || {
    echo "::error title=quantgate::expected the hash of a commit from the event"
    return 2
  }
}

quantgate_fetch() { # COMMIT: its tree, if it is not here
  local depth=()
  quantgate_commit "$1"
  [[ ! $1 =~ ^0+$ ]] || return 0 # the first push of a branch comes from nowhere
  if ! git cat-file -e "$1^{commit}" 2>/dev/null; then
    if [[ $(git rev-parse --is-shallow-repository) == true ]]; then depth=(--depth=1); fi
    git fetch --quiet --no-tags --no-recurse-submodules "${depth[@]}" origin "$1"
  fi
}

quantgate_merge_base() { # BASE HEAD: as much history as it takes to find where they part
  local step=16
  [[ ! $1 =~ ^0+$ ]] || return 0
  until git merge-base "$1" "$2" >/dev/null 2>&1; do
    [[ $(git rev-parse --is-shallow-repository) == true ]] || return 0 # gate says what is wrong with the two
    if ((step > 4096)); then
      git fetch --quiet --no-tags --no-recurse-submodules --unshallow origin "$1" "$2"
    else
      git fetch --quiet --no-tags --no-recurse-submodules --deepen="$step" origin "$1" "$2"
    fi
    step=$((step * 4))
  done
}
