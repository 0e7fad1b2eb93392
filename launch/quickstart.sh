#!/usr/bin/env bash
# From a bare machine with Python 3.10 or newer to a trained network and its pictures, in a few minutes:
#   bash launch/quickstart.sh
# What follows goes to train, a config first where there is one; a run that is there already is resumed:
#   bash launch/quickstart.sh --total_steps 2000 --output_path runs/longer
#   bash launch/quickstart.sh configs/camvid_unet_cpu.yaml --data_path DIR
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

say "environment"
prepare_environment ""
exec "$venv/bin/unet-dist" quickstart "$@"
