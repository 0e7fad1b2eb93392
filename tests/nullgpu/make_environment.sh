#!/usr/bin/env bash
# Makes .cache/nullgpu: a CUDA build of torch, for tests/nullgpu, on a machine without a GPU. All else is taken from .venv.
# Beside it torchvision and what models.smp takes from, which need no other builds than these.
# Within minutes or not at all: where disk, time or pip's sources do not allow it, it prints why and the tests skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
place=$PWD/.cache/nullgpu limit_s=${1:-240} needed_gib=12

leave() {
  echo "No null GPU: $*. tests/nullgpu skips."
  rm -rf "$place"
  exit 0
}

[ ! -e "$place/whole" ] || exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || leave "the stubs are for Linux on x86-64"
[ -x .venv/bin/python ] || leave "there is no .venv yet"
mkdir -p "$place"
[ "$(df --output=avail -k "$place" | tail -1)" -ge $((needed_gib << 20)) ] || leave "less than $needed_gib GiB of disk are free"
.venv/bin/python -m venv "$place" || leave "no virtual environment could be made"
# Three equals signs mean the build without a local version, which is the one for CUDA.
PIP_FIND_LINKS='' timeout "$limit_s" "$place/bin/python" -m pip install -qq 'torch===2.13.0' nvidia-cuda-crt==13.0.88 ||
  leave "pip could not install a CUDA torch within $limit_s s"
PIP_FIND_LINKS='' timeout "$limit_s" "$place/bin/python" -m pip install -qq --no-deps 'torchvision===0.28.0' \
  'segmentation-models-pytorch>=0.5' timm || echo "Without segmentation-models-pytorch: pip could not install it."
here=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$here/zz_rest.pth" # after its own
touch "$place/whole"
echo "Made $place."
