"""A real SLURM on this machine: munge, a controller and several node daemons over loopback, in one temporary folder.

Owns starting, asking and ending it. Nodes are slurmd processes of one host (Debian builds slurmd so), their GPUs are device
files that are not GPUs: scripts that ask for some are accepted, and the programs compute on the CPU.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "sinfo", "scancel")
SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # daemons lie where a plain user's path may not look
# What a job would take over from the tests' own surroundings, and act on.
FOREIGN = ("SLURM_", "SBATCH_", "OMP_NUM_THREADS", "ACCELERATE_", "UNET_DIST_")
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"})

CONFIGURATION = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={lab}/run/munge.sock,cred_expire=5
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool-%n
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmdPidFile={lab}/run/slurmd-%n.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdLogFile={lab}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
KillWait=10
MinJobAge=3600
JobRequeue=1
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-{num_nodes}] Default=YES MaxTime=INFINITE State=UP
PartitionName=debug Nodes=n[1-{num_nodes}] MaxTime=30 State=UP
"""


def why_not() -> str | None:
    """Say why no SLURM can be started here, None where it can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SYSTEM_PATH) is None]
    if missing:
        return f"no {', '.join(missing)} here; on Debian: apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a SLURM of one's own is started by root only"
    return None


def wait_until(condition: Callable[[], object], timeout_s: float, what: Callable[[], str]) -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it did not within timeout_s; the message is what().
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what()}")
        time.sleep(0.2)


class Lab:
    """A running SLURM.

    Args:
        folder: where all its files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)},
            "PATH": SYSTEM_PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "GLOO_SOCKET_IFNAME": "lo",
        }

    def run(self, *command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command of SLURM's and return what it printed; its failure is an AssertionError with its message."""
        result = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{' '.join(command)}: {result.stderr.strip()}"
        return result.stdout.strip()

    def submit(
        self,
        script: str,
        *words: str,
        cwd: Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Submit a batch script from the folder cwd and return the job's id."""
        return self.run("sbatch", "--parsable", *options, script, *words, cwd=cwd, environment=environment)

    def show(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job (or one task of an array, "12_3")."""
        text = self.run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job: str) -> str:
        """The job's state, as PENDING or COMPLETED."""
        return self.show(job)["JobState"]

    def starts(self, job: str) -> int:
        """How often the job came back."""
        return int(self.show(job)["Restarts"])

    def wait_for_end(self, job: str, timeout_s: float = 300) -> str:
        """Wait until the job has ended for good, and return its state."""
        wait_until(lambda: self.state(job) in ENDED, timeout_s, lambda: f"the end of job {job}: {self.show(job)}")
        return self.state(job)

    def preempt(self, job: str) -> None:
        """Send what #SBATCH --signal=B:USR1@... sends before the time limit: USR1, to the batch shell only."""
        self.run("scancel", "--batch", "--signal=USR1", job)


def _write_configuration(folder: Path, num_nodes: int, cpus: int, gpus: int) -> None:
    ports = free_ports(num_nodes + 1)
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN"
        for i in range(1, num_nodes + 1)
    )
    text = CONFIGURATION.format(host=host, lab=folder, controller_port=ports[0], nodes=nodes, num_nodes=num_nodes)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    for index in range(gpus):
        os.mknod(folder / f"gpu{index}", 0o20666, os.makedev(1, 3))  # another /dev/null
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n", encoding="utf-8")


def _start_munge(folder: Path) -> None:
    for name, mode in (("munge", 0o700), ("run", 0o755), ("log", 0o755), ("state", 0o755)):
        (folder / name).mkdir(mode=mode)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    options = {
        "key-file": key,
        "socket": folder / "run/munge.sock",
        "pid-file": folder / "run/munged.pid",
        "log-file": folder / "munge/munged.log",
        "seed-file": folder / "munge/seed",
    }
    subprocess.run(
        ["munged", *(f"--{key}={value}" for key, value in options.items())], check=True, env={"PATH": SYSTEM_PATH}
    )


def _end(pid_files: Iterable[Path]) -> None:
    """End the daemons of some pid files and wait until they are gone."""
    pids = []
    for pid_file in pid_files:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            pids.append(int(pid_file.read_text(encoding="utf-8")))
            os.kill(pids[-1], signal.SIGTERM)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(TimeoutError):
                wait_until(lambda pid=pid: os.kill(pid, 0), 10, lambda: "")  # type: ignore[misc]
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def slurm_lab(*, num_nodes: int = 2, cpus: int = 8, gpus: int = 2) -> Iterator[Lab]:
    """Start a SLURM of num_nodes nodes and end it with all that runs in it.

    Args:
        num_nodes: nodes, called n1, n2, ...
        cpus: CPUs that each node says it has, more than there are if need be.
        gpus: GPUs that each node says it has.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-lab-"))  # short: the path of a socket has at most 107 characters
    folder.chmod(0o755)
    lab = Lab(folder)
    try:
        _start_munge(folder)
        _write_configuration(folder, num_nodes, cpus, gpus)
        lab.run("slurmctld", "-f", str(folder / "slurm.conf"))
        for i in range(1, num_nodes + 1):
            (folder / f"spool-n{i}").mkdir()
            lab.run("slurmd", "-f", str(folder / "slurm.conf"), "-N", f"n{i}")
        log = folder / "log/slurmctld.log"
        wait_until(
            lambda: lab.run("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D") == str(num_nodes),
            30,
            lambda: f"{num_nodes} idle nodes; {log} ends: {log.read_text(encoding='utf-8')[-2000:]}",
        )
        yield lab
    finally:
        with contextlib.suppress(AssertionError, TimeoutError):
            lab.run("scancel", "--user=root")
            wait_until(lambda: not lab.run("squeue", "-h", "-o", "%i"), 30, lambda: "jobs to end")
        _end(folder.glob("run/slurm*.pid"))
        _end(folder.glob("run/munged.pid"))
        shutil.rmtree(folder, ignore_errors=True)
