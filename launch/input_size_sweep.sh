#!/usr/bin/env bash
# Trains one configuration at several input sizes, each into OUTPUT_PATH/input-SIZE, evaluates each on the test split and
# writes the table: OUTPUT_PATH/input_sizes.md, .csv and .json. Run it again to resume.
#   bash launch/input_size_sweep.sh                             configs/sidewalk_unet.yaml at 572, 668, 724, 1100, 2108 and full
#   bash launch/input_size_sweep.sh --sizes 572,724 CONFIG.yaml --key value ...
#   bash launch/input_size_sweep.sh --smoke                     the same on the CPU in minutes: a tiny network, scenes and
#                                                               sizes a tenth as large; its scores mean nothing
# Crops beyond 724 px are computed in tiles (--tile_size, by default 572): the gradient of the whole, the memory of a tile.
# On SLURM launch/slurm/input_sizes.sbatch trains the sizes beside each other; the same words given to this script afterwards
# evaluate them and write the table. What the sizes can and cannot change: docs/explanation/input_size.md.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source-path=SCRIPTDIR source=processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
cd "$root"

sizes=572,668,724,1100,2108,full
default_config=configs/sidewalk_unet.yaml
tile_size=572
largest_undivided=724
words=()
while [ $# -gt 0 ]; do
  case $1 in
    --smoke)
      # Depth 2 loses 40 px where depth 4 loses 184: these give a tenth of the published outputs, and so the same patches.
      sizes=80,88,96,132,232,full
      default_config=configs/synthetic_unet_smoke.yaml
      tile_size=80
      largest_undivided=96
      ;;
    --sizes)
      [ $# -gt 1 ] || fail "--sizes: got no value, expected input sizes such as 572,668,full."
      chosen=$2
      shift
      ;;
    --sizes=*) chosen=${1#*=} ;;
    --tile_size | --tile-size)
      [ $# -gt 1 ] || fail "--tile_size: got no value, expected a side in px."
      tile_size=$2
      shift
      ;;
    --tile_size=* | --tile-size=*) tile_size=${1#*=} ;;
    --input_size* | --input-size*) fail "--input_size: this script sets it. Name the sizes by --sizes 572,724." ;;
    *) words+=("$1") ;;
  esac
  shift
done
sizes=${chosen:-$sizes}
[[ $sizes =~ ^([0-9]+|full)(,([0-9]+|full))*$ ]] || fail "--sizes: got \"$sizes\", expected input sizes such as 572,668,full."
if [ ${#words[@]} -eq 0 ] || [[ ${words[0]} == --* ]]; then words=("$default_config" ${words[@]+"${words[@]}"}); fi

say "environment"
prepare_environment ""
values=$("$venv/bin/python" -m unet_dist.command_line.config_value output_path,batch_size "${words[@]}") ||
  fail "one of the words cannot be used; the line above says which. \"$venv/bin/unet-dist train --help all\" lists all keys."
{ read -r output && read -r batch_size; } <<<"$values"
choose_processes "$batch_size"

IFS=, read -r -a list <<<"$sizes"
for size in "${list[@]}"; do
  run=$output/input-$size
  tiles=()
  if [ "$size" = full ] || [ "$size" -gt "$largest_undivided" ]; then tiles=(--tile_size "$tile_size"); fi
  say "input $size: train${tiles:+ in tiles of at most $tile_size}, $processes processes"
  launch train "${words[@]}" --input_size "$size" ${tiles[@]+"${tiles[@]}"} --output_path "$run" ||
    fail "training at $size ended; its last lines above say why. Run the same command to resume."
  if [ "$run/evaluation-test.json" -nt "$run/best/model.safetensors" ]; then
    echo "$run/evaluation-test.json is there."
  else
    say "input $size: evaluate the test split"
    launch evaluate "$run" --split test --pictures 1 ||
      fail "the evaluation at $size ended; its last lines above say why. Run the same command to resume."
  fi
done

say "Table 1"
"$venv/bin/python" launch/input_size_table.py "$output"
