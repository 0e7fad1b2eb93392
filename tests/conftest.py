"""Settings of all tests: one thread a process, no time limit for an example of a property."""

import os

# Small products gain nothing from threads, and on a busy machine their barriers wait for each other. Before torch is imported;
# the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
