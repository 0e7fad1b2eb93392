# shellcheck shell=bash
# Sourced by the scripts of this folder, after environment.sh and in the repository's root: on how many processes a program
# runs here, and how it is started on them.

: "${venv:?source environment.sh first}"

# choose_processes BATCH_SIZE: all GPUs that torch sees, or two processes on a CPU: as many of them as share a batch evenly.
# Sets cores, devices and processes, and the accelerate config that launch takes.
choose_processes() {
  local batch_size=$1
  cores=$("$venv/bin/python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
  devices=$("$venv/bin/python" -c 'import torch; print(torch.cuda.device_count())')
  config=several_gpus
  processes=$devices
  if [ "$devices" -eq 0 ]; then
    config=cpu_processes
    processes=$((cores < 2 ? 1 : 2))
  fi
  while [ $((batch_size % processes)) -ne 0 ]; do processes=$((processes - 1)); done
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / processes))}
}

# launch COMMAND WORDS...: the program on all processes.
launch() {
  if [ "$processes" -eq 1 ]; then
    "$venv/bin/python" -m unet_dist "$@" --expected_processes 1
  else # port 0 is any that is free; accelerate's own choice is one fixed port, which another run may hold
    "$venv/bin/accelerate" launch --config_file "configs/accelerate/$config.yaml" --num_processes "$processes" \
      --main_process_port 0 -m unet_dist "$@" --expected_processes "$processes"
  fi
}
