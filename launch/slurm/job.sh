# shellcheck shell=bash
# Sourced by the batch scripts of this folder, in the repository's root: what a job does besides what its script says.
#
# A job is given a signal before its time limit (#SBATCH --signal=B:USR1@120: to the batch shell only, since a signal or
# an exit code does not come through the launcher's agent). The shell writes the stop file into the run's folder; the
# processes agree, save, leave a requeue marker and exit 0; the shell sees the marker and puts the job back in the queue.
#
#   UNET_DIST_ROOT                 the repository, where the job is not submitted from it
#   UNET_DIST_PROCESSES_PER_NODE   processes on a node (one a GPU of the job; 1 where the job has none)
#   UNET_DIST_ADDRESS              where the processes meet (the first node, by the address that SLURM reaches it at)
#   UNET_DIST_PORT                 and at which port of it (one from the job's number)
#   UNET_DIST_FRUITLESS_REQUEUES   how many requeues in a row may end at the step where they began (3)
#
# Another signal than USR1, where a site needs USR1 itself: sbatch --signal=B:USR2@120 ...

log() { echo "$(date '+%F %T') $SLURM_JOB_NAME ${SLURM_ARRAY_TASK_ID:+[$SLURM_ARRAY_TASK_ID] }$*"; }

fail() {
  log "$*" >&2
  exit 1
}

stop_wished=""
trap 'stop_wished=1; log "Got a signal to stop: asking the run to save."' USR1 USR2

# The environment that launch/quickstart.sh or launch/test.sh made, or else what the job finds on its path.
PATH=$PWD/.venv/bin:$PATH
command -v accelerate >/dev/null ||
  fail "No accelerate on the path of $(hostname -s). Run launch/quickstart.sh once where there is a network, or load your environment at the marked place of the batch script."

# config_value KEY WORDS...: what `train` makes of its words, without starting anything; a mistake ends the job here.
config_value() { python -m unet_dist.command_line.config_value "$@"; }

# gpus_on_node: how many GPUs the job has on a node, by the first variable that says so; some sites set only one of them.
gpus_on_node() {
  local listed=${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}} counted
  counted=$(sed 's|(.*||; s|.*:||' <<<"${SLURM_GPUS_PER_NODE:-}") # such as a100:4(S:0-1)
  if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
    echo "$SLURM_GPUS_ON_NODE"
  elif [[ $counted =~ ^[0-9]+$ ]]; then
    echo "$counted"
  elif [ -n "$listed" ] && [[ $listed != *-* ]]; then
    tr ',' '\n' <<<"$listed" | grep -c .
  else
    echo 0
  fi
}

# find_address: where the first node is reached, which is the one that this script runs on. A site may refuse to show a node.
find_address() {
  local first=${SLURMD_NODENAME:-$(hostname -s)} found
  found=$(scontrol --oneliner show node "$first" 2>/dev/null | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p') || true
  echo "${found:-$first}"
}

# launch COMMAND WORDS...: one accelerate launcher on each node of the job, one process a GPU.
launch() {
  local nodes=$SLURM_JOB_NUM_NODES gpus per_node world address port cpus=${SLURM_CPUS_PER_TASK:-1}
  gpus=$(gpus_on_node)
  per_node=${UNET_DIST_PROCESSES_PER_NODE:-$((gpus > 0 ? gpus : 1))}
  world=$((nodes * per_node))
  [ "$gpus" -eq 0 ] || [ "$cpus" -ge $((3 * per_node)) ] ||
    log "$cpus CPUs for $per_node GPUs: reading may hold them up. sbatch --cpus-per-task=$((4 * per_node)) gives each 4."
  address=${UNET_DIST_ADDRESS:-$(find_address)}
  port=${UNET_DIST_PORT:-$((20000 + SLURM_JOB_ID % 10000))} # that no other job on these nodes is likely to have

  local -a how=(--config_file configs/accelerate/several_gpus.yaml --num_processes "$world" --main_process_port "$port")
  if [ "$nodes" -gt 1 ]; then
    how=(--config_file configs/accelerate/several_nodes.yaml --num_processes "$world" --num_machines "$nodes"
      --main_process_ip "$address" --main_process_port "$port")
  fi

  # By it the processes of this start know each other; only this user can read the environment of a process.
  UNET_DIST_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export UNET_DIST_SECRET
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > per_node ? cpus / per_node : 1))}
  log "Job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $world processes on $SLURM_JOB_NODELIST."
  # All of this shell's variables, also where the job was submitted with --export=NONE, and the nodes' own limits: one on locked
  # memory that came along from the login node would keep InfiniBand from registering any.
  local -a step=(srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=1
    --export=ALL --propagate=NONE)
  if [ "$world" -eq 1 ]; then # nothing stands between SLURM's signals and the run: a launcher would die of them before it has saved
    "${step[@]}" python -m unet_dist "$@" --expected_processes 1
  else
    # shellcheck disable=SC2016 # each node's own number is known on the node only
    "${step[@]}" bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
      "${how[@]}" -m unet_dist "$@" --expected_processes "$world"
  fi
}

# requeue FOLDER: put this job back in the queue, unless it has come back too often without getting on.
requeue() {
  local folder=$1 job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} step before=-1 fruitless=0
  job=${job:-$SLURM_JOB_ID} # an array task's plain id can mean the whole array
  step=$(sed -n 's/.*"step": *\([0-9]*\).*/\1/p' "$folder/requeue")
  step=${step:-0}
  [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || read -r before fruitless <"$folder/requeued" || true
  if [ "$step" -gt "$before" ]; then fruitless=0; else fruitless=$((fruitless + 1)); fi
  [ "$fruitless" -le "${UNET_DIST_FRUITLESS_REQUEUES:-3}" ] ||
    fail "Stopped for good at step $step: $fruitless requeues in a row got no further. Give the job more time (--time), then submit it again: it resumes."
  echo "$step $fruitless" >"$folder/requeued"
  rm -f "$folder/requeue"
  log "Saved at step $step; back in the queue."
  scontrol requeue "$job" ||
    fail "This cluster does not let the job requeue itself. Submit the same command again: it resumes at step $step."
}

# run_until_done FOLDER COMMAND WORDS...: launch, pass a stop wish on to the run in FOLDER, requeue when it asks for it.
run_until_done() {
  local folder=$1 step status=0
  shift
  mkdir -p "$folder"
  rm -f "$folder/stop" "$folder/requeue"
  launch "$@" & # in the background: a trap runs only while the shell waits
  step=$!
  while kill -0 "$step" 2>/dev/null; do
    # Again as long as it is missing and unanswered: a run that is still starting clears what it finds.
    [ -z "$stop_wished" ] || [ -e "$folder/requeue" ] || touch "$folder/stop"
    sleep 1 &
    wait $! || true
  done
  wait "$step" || status=$?
  rm -f "$folder/stop"
  if [ -e "$folder/requeue" ]; then
    requeue "$folder"
  elif [ "$status" -ne 0 ]; then
    fail "The run ended with exit code $status; its last lines above say why. Submit the same command again: it resumes."
  else
    log "Done."
  fi
}
