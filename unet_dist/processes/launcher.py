"""What a launcher's environment says, judged before torch ends on it in a traceback.

Owns the reading of ranks, ports and accumulation from the environment, and the refusals. Joins nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from unet_dist.errors import ConfigError, LaunchError

_NUMBERS = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
)


def is_first(environment: Mapping[str, str]) -> bool:
    """Whether this process is the first of its launcher's, or alone: it prints and writes, and the others keep still."""
    return environment.get("RANK", "0") == "0"


def is_first_here(environment: Mapping[str, str]) -> bool:
    """The same, of those on this machine."""
    return environment.get("LOCAL_RANK", "0") == "0"


def wants_cpu(environment: Mapping[str, str]) -> bool:
    """Whether the user asked accelerate for the CPU, in its own words."""
    return environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t")


def refuse_silent_single_process(environment: Any) -> None:
    """Notice a launcher that was asked for several processes and started one.

    accelerate's simple launcher sets a rendezvous port for them but no rank; srun numbers tasks that never rendezvous.
    """
    refuse_broken_places(environment)
    has_ranks = "WORLD_SIZE" in environment or "RANK" in environment
    if "MASTER_PORT" in environment and "ACCELERATE_MIXED_PRECISION" in environment and not has_ranks:
        raise LaunchError(
            "accelerate launch: got one process though several were asked for: on a host without GPUs, --cpu and use_cpu start "
            "one only. Use accelerate launch --multi_gpu --num_processes N -m unet_dist ... (it starts CPU processes too)."
        )
    if "RANK" in environment and environment.get("WORLD_SIZE", "1") != "1" and "LOCAL_RANK" not in environment:
        raise LaunchError(
            f"LOCAL_RANK: got none beside RANK {environment['RANK']} of {environment['WORLD_SIZE']} processes, expected the number "
            "of the process on its machine, by which it takes its GPU. Where each pod or machine runs one process, set "
            "LOCAL_RANK=0; else let torchrun or accelerate launch start them."
        )
    if "LOCAL_RANK" in environment and not has_ranks:
        raise LaunchError(
            f"LOCAL_RANK: got {environment['LOCAL_RANK']} without RANK and WORLD_SIZE, expected all three or none. Unset it for "
            "one process, or let torchrun or accelerate launch start them."
        )
    _refuse_halves(environment)
    for key in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        if environment.get(key, "1") != "1" and not has_ranks:
            raise LaunchError(
                f"mpirun: got {environment[key]} processes ({key}) that know nothing of each other, expected one launcher per "
                "node. Start accelerate launch --num_machines N --machine_rank M --main_process_ip HOST in each, one per node."
            )
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and not has_ranks:
        raise LaunchError(
            f"srun: got {tasks} tasks that know nothing of each other, expected one launcher per node. Start accelerate launch in "
            "each task with --num_machines, --machine_rank and --main_process_ip, as the scripts in launch/slurm do."
        )


def _refuse_halves(environment: Mapping[str, str]) -> None:
    """Refuse what says that there are others and not how to meet them: torch ends in a traceback, or every process trains alone."""
    places = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    given = {key: environment[key] for key in places if environment.get(key)}
    meets = given.get("WORLD_SIZE", "1") != "1" or "LOCAL_RANK" in given
    missing = [key for key in places if key not in given]
    if missing and (meets or ("RANK" in given and "WORLD_SIZE" not in given)):
        found = ", ".join(f"{key}={value}" for key, value in given.items())
        raise LaunchError(
            f"{missing[0]}: got none beside {found}, expected all of {', '.join(places)} or none of them. Unset them for one "
            "process, or let torchrun or accelerate launch start it."
        )


def refuse_broken_places(environment: Any) -> None:
    """Judge the numbers that a launcher exports, before torch or we end on them in a traceback.

    Raises:
        LaunchError: not a whole number, a rank beyond the world, or no port.
    """
    numbers = {}
    for key in _NUMBERS:
        word = environment.get(key)
        if word is not None:
            if not word.isascii() or not word.isdigit():
                raise LaunchError(
                    f"{key}: got {word!r} from the launcher, expected a whole number. Look at the launch command."
                )
            numbers[key] = int(word)
    port, size = numbers.get("MASTER_PORT", 1), numbers.get("WORLD_SIZE", 1)
    if port > 65535:
        raise LaunchError(
            f"MASTER_PORT: got {port}, expected 0 to 65535. Set --main_process_port (torchrun: --master_port)."
        )
    if size < 1 or numbers.get("RANK", 0) >= size:
        raise LaunchError(
            f"RANK: got {numbers.get('RANK', 0)} of {size} processes from the launcher, expected 0 to WORLD_SIZE - 1. Look at "
            "--machine_rank and --num_processes."
        )


def refuse_shared_devices(environment: Any, num_devices: int) -> None:
    """Refuse several processes on one GPU: accelerate counts the GPUs round, and NCCL then ends in a traceback.

    Only below torchrun's agent, which accelerate launch uses too: its processes see the same GPUs. srun may show each its own.

    Raises:
        LaunchError: more processes than GPUs on this node.
    """
    processes = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if processes > num_devices and "TORCHELASTIC_RUN_ID" in environment:
        raise LaunchError(
            f"num_processes: got {processes} on this node, expected {num_devices} at most, one for each GPU that is visible. Set a "
            "smaller --num_processes, or look at CUDA_VISIBLE_DEVICES (set to nothing, all processes compute on the CPU)."
        )


def accept_own_device(environment: MutableMapping[str, str], num_devices: int) -> None:
    """Let a process whose only visible GPU is its own take it, though its rank on the node is beyond (srun --gpus-per-task).

    accelerate wraps the network for the device of that rank otherwise, which is an IndexError.
    """
    if int(environment.get("LOCAL_RANK", "0")) >= num_devices:
        environment.setdefault("ACCELERATE_BYPASS_DEVICE_MAP", "true")


def refuse_idle_gpu(environment: Mapping[str, str], *, has_gpu: bool, why: Callable[[], str]) -> None:
    """Refuse to compute on the CPU in silence where a GPU is there or was given: for hours, in place of minutes.

    Args:
        has_gpu: whether the system has the device file of an NVIDIA GPU.
        why: says why torch does not see it.

    Raises:
        LaunchError: a GPU is there, and nobody asked for the CPU.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if wants_cpu(environment) or visible in ("", "-1", "NoDevFiles"):
        return
    given = environment.get("SLURM_GPUS_ON_NODE", "0")
    if given.isdecimal() and int(given) > 0:
        sign = f"SLURM_GPUS_ON_NODE is {given}"
    elif visible is not None:
        sign = f"CUDA_VISIBLE_DEVICES is {visible}"
    elif has_gpu:
        sign = "/dev/nvidia0 is there"
    else:
        return
    raise LaunchError(
        f"device: got no usable GPU though {sign}: {why()}. Install a build of torch whose CUDA the driver knows (in the "
        "launch scripts UNET_DIST_TORCH=cuda, or cu126 and the like for an older driver), or ask for the CPU: "
        "CUDA_VISIBLE_DEVICES= before the command."
    )


def launcher_accumulation(environment: Any, wish: int | None) -> int | None:
    """Settle gradient accumulation between config and launcher; a launcher's 1 is no wish.

    Raises:
        ConfigError: they contradict each other.
    """
    launched = int(environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"))
    if launched == 1:
        return wish
    if wish is not None and wish != launched:
        raise ConfigError(
            f"gradient_accumulation_steps: got {wish} from the config and {launched} from accelerate launch, expected one of them. "
            "Remove --gradient_accumulation_steps on one side."
        )
    return launched
