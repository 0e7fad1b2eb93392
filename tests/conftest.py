"""What all tests share: one thread a process, no time limit for an example of a property, runs that leave nothing behind."""

import os

# Small products gain nothing from threads, and on a busy machine their barriers wait for each other. Before torch is imported;
# the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Under nohup the tests, and the processes that they start, would ignore the end of a terminal.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Takes back what a test, or the code that it called, set in the environment: the next test starts children with it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def own_process() -> Iterator[None]:
    """For runs in the test's own process: one thread, and no process group and no accelerate state left behind."""
    import torch
    from accelerate.state import AcceleratorState

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
