#!/usr/bin/env bash
# From a bare machine with Python 3.10 or newer to a trained network and its pictures, in a few minutes:
#   bash launch/quickstart.sh
# What follows goes to train, a config first where there is one; a run that is there already is resumed:
#   bash launch/quickstart.sh --total_steps 2000 --output_path runs/longer
#   bash launch/quickstart.sh configs/camvid_unet_cpu.yaml --data_path DIR
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source-path=SCRIPTDIR source=processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
cd "$root"

say "environment"
prepare_environment ""

if [ $# -eq 0 ] || [[ $1 == --* ]]; then set -- configs/synthetic_unet_quickstart.yaml "$@"; fi
values=$("$venv/bin/python" -m unet_dist.command_line.config_value output_path,batch_size,data_path,synthetic_size "$@") ||
  fail "one of the words cannot be used; the line above says which. \"$venv/bin/unet-dist train --help all\" lists all keys."
{ read -r run && read -r batch_size && read -r data_path && read -r size; } <<<"$values"

choose_processes "$batch_size"

say "train: $processes process(es) on $([ "$devices" -gt 0 ] && echo "$devices GPU(s)" || echo "$cores CPU core(s)")"
launch train "$@" || fail "training ended; its last lines above say why. The same command again resumes it."

say "evaluate: the test split, by overlap-tile"
launch evaluate "$run" --split test || fail "the evaluation ended; its last lines above say why."

if [ "$data_path" = synthetic ]; then
  say "predict: scenes that the run has not seen"
  "$venv/bin/python" launch/draw_scenes.py "$run/scenes" 3 "$size"
  launch predict "$run" "$run/scenes" --output "$run/predictions" || fail "the prediction ended; its last lines above say why."
fi

say "report"
"$venv/bin/unet-dist" report "$run" || fail "the report was not written; its last line above says why."

miou=$("$venv/bin/python" -c 'import json, sys; print(format(json.load(open(sys.argv[1]))["miou"], ".3f"))' "$run/evaluation-test.json")
say "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s. In $run:"
cat <<END
  best/                  the network (mean IoU $miou on the test split): unet_dist.UNet.from_pretrained("$run/best")
  report.html            curves, IoU by class, confusion matrix and pictures, on one page: open it in a browser
  figures/               image, label and prediction side by side
END
[ "$data_path" != synthetic ] || echo "  predictions/           label maps and overlays of three scenes it had not seen"
cat <<END
  metrics.jsonl          loss, learning rate and mean IoU by step; tensorboard/ has them as curves

Type next:
  source .venv/bin/activate
  unet-dist predict $run YOUR.jpg --output out
  accelerate launch --multi_gpu --num_processes 2 -m unet_dist train --data_path YOUR_FOLDER --output_path runs/mine
  unet-dist train --help
END
