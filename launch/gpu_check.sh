#!/usr/bin/env bash
# Measures this machine's GPU, by a U-Net of full width at 732 px: rates, training steps, memory against the plan, the longest
# kernels, repeatability, several GPUs; in gpu-check/check.md to read and gpu-check/check.json to compare. Takes its minutes:
#   bash launch/gpu_check.sh
#   bash launch/gpu_check.sh --minutes 20 --output DIR
#   bash launch/gpu_check.sh --device cpu --smoke               tries the check itself, in a minute and without a GPU
# Where there is no .venv, and $PYTHON (python3) has a torch that sees a GPU and all else that the check imports, nothing is
# installed and no network is needed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "environment"
python=${PYTHON:-python3}
needs="import torch, unet_dist.commands.doctor, unet_dist.commands.train; assert torch.cuda.is_available()"
if [ ! -d "$venv" ] && command -v "$python" >/dev/null && PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -c "$needs" 2>/dev/null; then
  echo "$("$python" --version) has all that is needed."
  export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
else
  prepare_environment test
  python=$venv/bin/python
fi
exec "$python" -m unet_dist doctor --gpu "$@"
