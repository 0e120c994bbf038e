#!/usr/bin/env bash
# Puts one folder of a commit somewhere else, as data: bytes of git's objects, and of LFS where they are pointers.
# Checks nothing out, runs no hook and no filter, obeys no attribute of the commit, takes no link and no submodule.
#
# HEAD: hash of the commit; CANDIDATE: folder in it; DESTINATION: folder that is not there yet.
set -euo pipefail
# shellcheck source=git.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/git.sh"
quantgate_git
quantgate_fetch "$HEAD"

refuse() {
  echo "::error title=quantgate::$1"
  exit 2
}

inside() { # a path that stays where it is put
  case "/$1/" in
    */../* | */./* | *//* | */.[gG][iI][tT]/*) return 1 ;;
  esac
}

folder="${CANDIDATE%/}"
if [[ $folder == . ]]; then
  tree="$HEAD^{tree}"
else
  inside "$folder" || refuse "the candidate's folder has a path that leads elsewhere"
  tree="$HEAD:$folder"
fi
tree="$(git rev-parse --verify --quiet --end-of-options "$tree")" || refuse "the commit has no such folder"
[[ $(git cat-file -t "$tree") == tree ]] || refuse "the candidate is a file in that commit, expected a folder"
[[ ! -e $DESTINATION ]] || refuse "the destination is there already"
mkdir -p -- "$DESTINATION"

listing="$(mktemp)"
git ls-tree -r -z "$tree" >"$listing"
# first all of the names, so that nothing is written of a folder that is refused
while IFS= read -r -d '' entry; do
  case "$entry" in
    100644\ * | 100755\ *) ;;
    *) refuse "the candidate's folder has a link or a submodule in it, expected plain files" ;;
  esac
  inside "${entry#*$'\t'}" || refuse "the candidate's folder has a path that leads elsewhere"
done <"$listing"

while IFS= read -r -d '' entry; do
  file="$DESTINATION/${entry#*$'\t'}"
  read -r _ _ blob <<<"${entry%%$'\t'*}"
  mkdir -p -- "$(dirname -- "$file")"
  git cat-file blob "$blob" >"$file"
  # what is larger than a kilobyte is no pointer
  if [[ $(git cat-file -s "$blob") -lt 1024 && $(head -c 24 -- "$file" | tr -d '\0') == 'version https://git-lfs.' ]]; then
    oid="$(sed -n 's/^oid sha256:\([0-9a-f]\{64\}\)$/\1/p' "$file")"
    size="$(sed -n 's/^size \([0-9]\{1,15\}\)$/\1/p' "$file")"
    [[ ${#oid} == 64 && -n $size && $size != *$'\n'* ]] || refuse "an LFS pointer of the candidate's names no object"
    # what skips downloads when git checks out would hand the pointer back here, and end well
    env -u GIT_LFS_SKIP_SMUDGE git lfs smudge <"$file" >"$file.quantgate-lfs" ||
      refuse "an LFS object of the candidate's cannot be fetched"
    sum="$(sha256sum <"$file.quantgate-lfs")"
    [[ ${sum%% *} == "$oid" && $(stat -c %s -- "$file.quantgate-lfs") == "$size" ]] ||
      refuse "LFS gave something else than an object that the candidate's pointers name"
    mv -f -- "$file.quantgate-lfs" "$file"
  fi
done <"$listing"
rm -f -- "$listing"
