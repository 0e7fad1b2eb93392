#!/usr/bin/env bash
# Measures this machine's GPU, by a U-Net of full width at 732 px: rates, training steps, memory against the plan, the longest
# kernels, repeatability, several GPUs; in gpu-check/check.md to read and gpu-check/check.json to compare. Takes its minutes:
#   bash launch/gpu_check.sh
#   bash launch/gpu_check.sh --minutes 20 --output DIR
#   bash launch/gpu_check.sh --device cpu --smoke               tries the check itself, in a minute and without a GPU
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "environment"
prepare_environment test
exec "$venv/bin/python" -m unet_dist doctor --gpu "$@"
