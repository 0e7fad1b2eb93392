# shellcheck shell=bash
# Sourced by the batch scripts of this folder, in the repository's root: what a job does besides what its script says.
#
# A job is given a signal before its time limit (#SBATCH --signal=B:USR1@120: to the batch shell only, since a signal or
# an exit code does not come through the launcher's agent). The shell writes the stop file into the run's folder; the
# processes agree, save, leave a requeue marker and exit 0; the shell sees the marker and puts the job back in the queue.
#
#   UNET_DIST_ROOT                 the repository, where the job is not submitted from it
#   UNET_DIST_PROCESSES_PER_NODE   processes on a node (one a GPU of the job; 1 where the job has none)
#   UNET_DIST_FRUITLESS_REQUEUES   how many requeues in a row may end at the step where they began (3)
#
# Another signal than USR1, where a site needs USR1 itself: sbatch --signal=B:USR2@120 ...

log() { echo "$(date '+%F %T') $SLURM_JOB_NAME ${SLURM_ARRAY_TASK_ID:+[$SLURM_ARRAY_TASK_ID] }$*"; }

fail() {
  log "$*" >&2
  exit 1
}

stop_wished=""
trap 'stop_wished=1; log "Was told to stop: asking the run to save."' USR1 USR2

# The environment that launch/quickstart.sh or launch/test.sh made, or else what the job finds on its path.
PATH=$PWD/.venv/bin:$PATH
command -v accelerate >/dev/null ||
  fail "No accelerate on the path of $(hostname -s). Run launch/quickstart.sh once where there is a network, or load your environment at the marked place of the batch script."

# config_value KEY WORDS...: what `train` makes of its words, without starting anything; a mistake ends the job here.
config_value() { python launch/config_value.py "$@"; }

# launch COMMAND WORDS...: one accelerate launcher on each node of the job, one process a GPU.
launch() {
  local nodes=$SLURM_JOB_NUM_NODES per_node=${UNET_DIST_PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}} world first address port
  local cpus=${SLURM_CPUS_PER_TASK:-1}
  world=$((nodes * per_node))

  # The first node by the address that SLURM reaches it at; a port that no other job on these nodes is likely to have.
  read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  address=$(scontrol --oneliner show node "$first" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
  port=$((20000 + SLURM_JOB_ID % 10000))

  local -a how=(--config_file configs/accelerate/several_gpus.yaml --num_processes "$world" --main_process_port "$port")
  if [ "$nodes" -gt 1 ]; then
    how=(--config_file configs/accelerate/several_nodes.yaml --num_processes "$world" --num_machines "$nodes"
      --main_process_ip "${address:-$first}" --main_process_port "$port")
  elif [ "$world" -eq 1 ]; then
    how=(--config_file configs/accelerate/one_gpu.yaml)
  fi

  # By it the processes of this start know each other; only this user can read the environment of a process.
  UNET_DIST_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export UNET_DIST_SECRET
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > per_node ? cpus / per_node : 1))}
  log "Job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $world processes on $SLURM_JOB_NODELIST."
  # shellcheck disable=SC2016 # each node's own number is known on the node only
  srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=1 \
    bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
    "${how[@]}" -m unet_dist "$@" --expected_processes "$world"
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
