"""Proves that a source of somebody else's is opened by the user's own word, and by a run's folder only if it is trusted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unet_dist.assembly.opening import require_data_trusted
from unet_dist.config.sections import Config
from unet_dist.data.sources.registry import is_part, open_source
from unet_dist.errors import CheckpointError, ConfigError, DataError

THEIRS = """
class Cells:
    fixed_shape = files_root = None
    splits = {"train": 3}
    def __init__(self, name="cells"):
        self.name = name
    def read_id_names(self): ...
    def read_pair(self, split, index): ...
    def signature(self, memo_path): ...

class Half:
    name = "half"
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_data.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_data", raising=False)


def test_a_word_opens_it() -> None:
    assert open_source("their_data:Cells").name == "cells"
    assert open_source("their_data:Cells(name='others')").splits == {"train": 3}
    with pytest.raises(
        ConfigError, match=r"their_data:Half gave a Half without fixed_shape, files_root, splits, read_id"
    ):
        open_source("their_data:Half")
    with pytest.raises(DataError, match="or an import path such as"):
        open_source("no_such_data")


def test_what_exists_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_data:Cells").mkdir()
    assert not is_part("their_data:Cells")
    with pytest.raises(DataError, match=r"which is no data set\. It is empty"):
        open_source("their_data:Cells")


def test_a_folder_imports_nothing_unless_its_package_is_trusted() -> None:
    config = Config.from_flat({"data_path": "their_data:Cells"})
    with pytest.raises(CheckpointError, match=r"config\.yaml needs their_data:Cells, .* --trust their_data "):
        require_data_trusted(config, None)
    assert "their_data" not in sys.modules
    require_data_trusted(config, "others,their_data")
    require_data_trusted(Config(), None)
