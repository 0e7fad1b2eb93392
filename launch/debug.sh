#!/usr/bin/env bash
# The debug mode: one process, on one GPU or the CPU, no workers, deterministic, a handful of samples to overfit; says what
# the network was fed and what every layer made of it. What follows goes to train; where it names no config, a narrow network
# looks at small windows (configs/debug.yaml), in under a minute on two CPU cores:
#   bash launch/debug.sh
#   bash launch/debug.sh CONFIG.yaml --data_path DIR --key value ...
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment ""
if [ $# -eq 0 ] || [[ $1 == --* ]]; then set -- "$root/configs/debug.yaml" "$@"; fi
exec "$venv/bin/python" -m unet_dist train --debug "$@"
