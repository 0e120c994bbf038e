#!/usr/bin/env bash
# Replays what a run of somebody else's code uploaded, candidate by candidate, under the policy of this checkout.
# Takes only the folders that were expected, and only as data; one that cannot be verified is left out, and said so.
set -euo pipefail

mkdir -p -- "$CLEAN"
word='^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$'
arguments=(--policy "$POLICY")
[[ ! -f $WAIVERS ]] || arguments+=(--waivers "$WAIVERS")
while IFS= read -r name; do
  if [[ ! $name =~ $word ]]; then
    echo "::warning title=quantgate::a candidate has a name that no folder may have: left out"
    continue
  fi
  if [[ ! -d $ARTIFACTS/$name || -L $ARTIFACTS/$name ]]; then
    echo "::notice title=quantgate::$name: no artifact came back"
    continue
  fi
  # what is half verified is not published
  gate ci verify "$ARTIFACTS/$name" "${arguments[@]}" --out "$CLEAN/$name" || {
    rm -rf -- "${CLEAN:?}/$name"
    echo "::warning title=quantgate::$name: the artifact could not be verified, see above"
  }
done < <("$PYTHON" -I -c 'import json, os; [print(n) for n in json.loads(os.environ["NAMES"])]')
