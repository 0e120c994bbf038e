# shellcheck shell=bash
# Sourced: what the artifacts of a check's runs are called, before `-run-NAME`, `-clean` and `-measured-NAME`.
# Never the same for two checks: a workflow that gates twice must not read the other's runs.

quantgate_artifacts() { # NAME OF THE CHECK, any text
  if [[ $1 == quantgate ]]; then
    printf 'quantgate'
  else
    printf 'quantgate-%s' "$(printf '%s' "$1" | sha256sum | cut -c1-12)"
  fi
}
