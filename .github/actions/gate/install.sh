#!/usr/bin/env bash
# Puts `gate` on the PATH, from the checkout that this script lies in, with the tested versions of everything.
# Never runs a file of the working directory: that is the pull request's.
#
# INSTALL=auto|never; SCOPE=full (default; measures) or tools (detects, verifies, publishes: no torch); EXTRAS; BASE_PYTHON.
# DEVICE=cpu takes torch's build for CPUs, from QUANTGATE_TORCH_INDEX (default: PyTorch's own index); anything else PyPI's.
set -euo pipefail

SCOPE="${SCOPE:-full}"
BASE_PYTHON="${BASE_PYTHON:-python3}"
EXTRAS="${EXTRAS:-}"

if command -v gate >/dev/null; then
  echo "gate is on the PATH already"
  # its own interpreter has its packages; another one will do for scripts without any
  first="$(head -c 512 -- "$(command -v gate)" | head -n 1 | tr -d '\0')"
  python="${first#\#!}"
  if [[ $first != '#!/'*python* ]] || ! "$python" -I -c '' 2>/dev/null; then python="$BASE_PYTHON"; fi
  echo "python=$python" >>"$GITHUB_OUTPUT"
  exit 0
fi
if [[ ${INSTALL:-auto} == never ]]; then
  echo "::error title=quantgate::install is never, and there is no gate on the PATH: install it in the container, or say install: auto"
  exit 2
fi
if [[ ! $EXTRAS =~ ^[a-z0-9,]*$ ]]; then
  echo "::error title=quantgate::input extras: expected names with commas between them, such as quantized,s3"
  exit 2
fi

here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd -- "$here/../../.." && pwd)"
environment="$RUNNER_TEMP/quantgate-venv"
cd -- "$RUNNER_TEMP"

if ! "$BASE_PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "::error title=quantgate::input python: expected Python 3.11 or newer (actions/setup-python, or the container of docker/)"
  exit 2
fi
"$BASE_PYTHON" -I -m venv "$environment"
pip=("$environment/bin/python" -I -m pip --disable-pip-version-check install --quiet -c "$root/constraints.txt")
if [[ $SCOPE == tools ]]; then
  "${pip[@]}" -r "$here/tools.txt"
  "${pip[@]}" --no-deps "$root"
else
  if [[ ${DEVICE:-} == cpu ]]; then
    torch="$(sed -n 's/^torch==//p' "$root/constraints.txt")"
    # `+cpu` is a version that PyPI cannot have: an index that is not reached ends here, not with gigabytes for CUDA
    "${pip[@]}" --no-deps --extra-index-url "${QUANTGATE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" "torch==$torch+cpu"
  fi
  "${pip[@]}" "$root${EXTRAS:+[$EXTRAS]}"
fi

# only `gate` goes on the PATH: the job's own python stays what it was
mkdir -p -- "$RUNNER_TEMP/quantgate-bin"
ln -sf -- "$environment/bin/gate" "$RUNNER_TEMP/quantgate-bin/gate"
echo "$RUNNER_TEMP/quantgate-bin" >>"$GITHUB_PATH"
echo "python=$environment/bin/python" >>"$GITHUB_OUTPUT"
