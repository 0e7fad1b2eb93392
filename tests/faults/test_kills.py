"""Proves, in short, what the kill campaign of tests/measure proves at length: runs that were killed at random moments end with
the bytes of the run that never was.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.measure.kill_campaign import campaign


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_runs_end_like_the_undisturbed_one(tmp_path: Path) -> None:
    outcome = campaign(tmp_path, kills=3, seed=4, world_sizes=(1, 2), total_steps=6)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert sum(outcome.kills.values()) == 3
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(encoding="utf-8"), log
    assert outcome.compared[1] >= 1
    assert outcome.compared[2] >= 1
