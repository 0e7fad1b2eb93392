"""A data set of the hub is loaded by the real libraries, here from a hub of one data set on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.data.pictures import png, random_pair, write_names, write_parquet
from unet_dist.data.sources.hub import DatasetDirectory, HubDataset
from unet_dist.data.sources.table_cards import named_tables
from unet_dist.errors import DataError

COMMIT = "c0ffee" * 6 + "0000"
PROGRAM = """
import sys
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError

try:
    cache = prepare(open_source(sys.argv[1], say=print), CacheSettings(), seed=0, cache_path=sys.argv[2], say=print)
    print(cache.path.name, cache.name, cache.class_names, {name: len(split) for name, split in cache.splits.items()})
except DataError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Speaks the part of the hub's interface that loading the data set `lab/tiny` needs."""

    root: Path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith(f"/datasets/lab/tiny/resolve/{COMMIT}/"):
            file = self.root / path.partition(COMMIT + "/")[2]
            return self.answer(file.read_bytes()) if file.is_file() else self.answer(b"", error="EntryNotFound")
        if path.startswith(f"/api/datasets/lab/tiny/tree/{COMMIT}"):
            folder = self.root / path.partition(COMMIT)[2].strip("/")
            return self.answer(json.dumps([self.describe(item) for item in sorted(folder.iterdir())]).encode())
        if path in ("/api/datasets/lab/tiny", f"/api/datasets/lab/tiny/revision/{COMMIT}"):
            files = [{"rfilename": str(file.relative_to(self.root))} for file in self.root.rglob("*") if file.is_file()]
            about = {"id": "lab/tiny", "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
            return self.answer(json.dumps({**about, "siblings": files}).encode())
        return self.answer(b"", error="RepoNotFound")

    def do_POST(self):
        """What huggingface_hub before 1.0 asks of paths."""
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        items = [self.root / path for path in asked.get("paths", [])]
        self.answer(json.dumps([self.describe(item) for item in items if item.exists()]).encode())

    def describe(self, item: Path) -> dict[str, object]:
        kind = "file" if item.is_file() else "directory"
        return {"type": kind, "path": str(item.relative_to(self.root)), "size": item.stat().st_size, "oid": "0" * 40}

    def answer(self, content: bytes, error: str | None = None) -> None:
        self.send_response(404 if error else 200)
        for key, value in {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}.items():
            self.send_header(key, value)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path):
    """Serve a data set of 10 pairs in one split."""
    root = tmp_path / "tiny"
    pairs = [tuple(png(part) for part in random_pair(seed)) for seed in range(10)]
    write_parquet(root / "data" / "train-00000-of-00001.parquet", pairs)
    write_names(root, ["road", "sky", "tree"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def load(tmp_path: Path, endpoint: str, data_path: str, **environment: str) -> str:
    """Open a hub data set in a process of its own: the libraries read the hub's address when they are imported."""
    variables = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), **environment}
    command = [sys.executable, "-c", PROGRAM, data_path, str(tmp_path / "cache")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_data_set_is_loaded_and_found_again_without_network(tmp_path, hub):
    first = load(tmp_path, hub, "lab/tiny")
    assert first.endswith("lab/tiny ['road', 'sky', 'tree'] {'train': 7, 'validation': 1, 'test': 2}")
    again = load(tmp_path, "http://127.0.0.1:9", "lab/tiny")
    assert again == (
        f"lab/tiny: the hub does not answer; continuing with commit {COMMIT[:12]}, the last seen.\n{first}"
    )


@pytest.mark.parametrize(
    "word", ["https://example.invalid/a.parquet", "../../other/a.parquet", "hf://datasets/lab/other/a.parquet"]
)
def test_tables_that_a_card_on_the_hub_names_elsewhere_are_not_read(tmp_path, hub, word):
    card = f"---\nconfigs:\n- config_name: default\n  data_files: ['data/train-*', '{word}']\n---\n# Data\n"
    (tmp_path / "tiny" / "README.md").write_text(card)
    assert load(tmp_path, hub, "lab/tiny") == (
        f"lab/tiny: its README.md names the table {word}, which lies outside it. If you trust that table, download it and "
        "give its own folder as data_path."
    )


def test_a_card_on_the_hub_may_name_its_own_tables(tmp_path, hub):
    """By their path, or as the hub writes it."""
    for word in ("data/train-*", f"hf://datasets/lab/tiny@{COMMIT}/data/train-*"):
        card = f"---\nconfigs:\n- config_name: default\n  data_files: '{word}'\n---\n# Data\n"
        (tmp_path / "tiny" / "README.md").write_text(card)
        source = HubDataset("lab/tiny")
        source._commit = COMMIT
        source._file = {"README.md": tmp_path / "tiny" / "README.md"}.get
        source._require_own_tables()


def test_a_table_of_the_hub_names_no_file_of_this_machine(tmp_path, hub):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "private.png").write_bytes(png(random_pair(0)[0]))
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": str(tmp_path / "private.png")}] * 5
    table = pa.table({name: pa.array(rows, picture) for name in ("pixel_values", "label")})
    pq.write_table(table, tmp_path / "tiny" / "data" / "train-00000-of-00001.parquet")
    assert f"refers to the file {tmp_path / 'private.png'} of this machine" in load(tmp_path, hub, "lab/tiny")


def test_a_name_that_the_hub_does_not_know(tmp_path, hub):
    assert load(tmp_path, hub, "lab/other") == (
        f"lab/other: no folder {Path('lab/other').absolute()} here, and no data set of that name on the hub "
        "(or a private one). Correct data_path, or log in with `hf auth login` or set HF_TOKEN."
    )


def test_no_network_and_nothing_remembered(tmp_path):
    answer = load(tmp_path, "http://127.0.0.1:9", "lab/tiny", HF_HUB_OFFLINE="1")
    assert answer.startswith(f"lab/tiny: no folder {Path('lab/tiny').absolute()} here, and the hub cannot be reached")
    assert "run `unet-dist prepare` with the same settings on a machine that has it" in answer


def _own_directory(root):
    write_parquet(root / "data" / "train.parquet", [(png(image), png(label)) for image, label in [random_pair(0)]])
    return root


@pytest.mark.parametrize(
    "words",
    [
        "../other/train.parquet",
        "/other/train.parquet",
        "https://example.invalid/a.parquet",
        "zip://a::hf://b",
        "data/../../x",
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        "configs:\n- config_name: default\n  data_files: {}\n",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [data/train.parquet, '{}']\n",
        "configs:\n- config_name: default\n  data_dir: {}\n",
    ],
)
def test_tables_that_a_directory_names_elsewhere_are_not_read(tmp_path, head, words):
    """Neither from another folder nor from the network."""
    root = _own_directory(tmp_path / "data set")
    (root / "README.md").write_text("---\n" + head.format(words) + "---\n# Data\n")
    with pytest.raises(DataError, match=r"lies outside .*Copy it into the directory"):
        _ = DatasetDirectory(root).splits


def _with_features(root: Path, **columns: object) -> Path:
    """A directory whose table has these columns beside image and mask, as `datasets` writes it."""
    import datasets

    image, mask = random_pair(0)
    features = {"pixel_values": datasets.Image(), "label": datasets.Image(), **columns}
    row = {"pixel_values": {"bytes": png(image), "path": None}, "label": {"bytes": png(mask), "path": None}}
    values = {name: [[0]] if hasattr(feature, "feature") else [0] for name, feature in columns.items()}
    table = datasets.Dataset.from_dict(
        {**{k: [v] for k, v in row.items()}, **values}, features=datasets.Features(features)
    )
    (root / "data").mkdir(parents=True)
    table.to_parquet(str(root / "data" / "train.parquet"))
    return root


def test_features_of_a_table_name_the_classes(tmp_path):
    """A list of ClassLabel, or one in a column called so; a class of the whole picture names none, and a file of names wins."""
    from datasets import ClassLabel, Sequence

    names, found = ["road", "sky", "tree"], {0: "road", 1: "sky", 2: "tree"}
    listed = _with_features(tmp_path / "listed", seen=Sequence(ClassLabel(names=names)))
    assert DatasetDirectory(listed).read_id_names() == found
    called = _with_features(
        tmp_path / "called", label_names=ClassLabel(names=names), weather=ClassLabel(names=["wet", "dry"])
    )
    assert DatasetDirectory(called).read_id_names() == found
    weather = _with_features(tmp_path / "weather", weather=ClassLabel(names=["wet", "dry"]))
    assert DatasetDirectory(weather).read_id_names() is None
    two = _with_features(tmp_path / "two", a=Sequence(ClassLabel(names=names)), b=Sequence(ClassLabel(names=names[:2])))
    assert DatasetDirectory(two).read_id_names() is None
    (listed / "id2label.json").write_text(json.dumps({"0": "a", "1": "b", "2": "c"}))
    assert DatasetDirectory(listed).read_id_names() == {0: "a", 1: "b", 2: "c"}


def test_what_save_to_disk_wrote_names_no_table_elsewhere(tmp_path):
    root = _own_directory(tmp_path / "data set")
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../x.arrow"}]}))
    with pytest.raises(DataError, match=r"state.json: it names the table ../../x.arrow"):
        _ = DatasetDirectory(root).splits
    (root / "state.json").unlink()
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../x"]}))
    with pytest.raises(DataError, match=r"dataset_dict.json: it names the table ../x"):
        _ = DatasetDirectory(root).splits


def test_aliases_in_a_card_do_not_multiply(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    (tmp_path / "README.md").write_text("---\n" + "\n".join(lines) + "\nconfigs:\n- data_files: *a59\n---\n")
    assert set(named_tables(tmp_path)) == {(tmp_path / "README.md", "x")}


@pytest.mark.filterwarnings("ignore")  # by which it tells that it would run it
def test_a_script_beside_tables_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` before 4 runs one that is called as its folder, where somebody at the terminal or a variable says yes."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", True, raising=False)
    root = tmp_path / "pairs"
    image, label = random_pair(0, 16, 16)
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [(png(image), png(label))])
    (root / "pairs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with suppress(DataError):
        _ = DatasetDirectory(root).splits
    assert not (tmp_path / "ran").exists()
    assert datasets.config.HF_DATASETS_TRUST_REMOTE_CODE is True


@pytest.mark.parametrize(
    "state", [{"_format_type": "pandas"}, {"_format_type": "arrow"}, {"_format_columns": ["label"]}]
)
def test_a_saved_table_gives_its_rows_as_they_lie_there(tmp_path: Path, state: dict) -> None:
    """What it says of formats is for other programs."""
    datasets = pytest.importorskip("datasets")
    pairs = [[png(part) for part in random_pair(index)] for index in range(3)]
    columns = {
        name: [{"bytes": pair[i], "path": None} for pair in pairs] for i, name in enumerate(("pixel_values", "label"))
    }
    features = datasets.Features(pixel_values=datasets.Image(), label=datasets.Image())
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "d"))
    file = tmp_path / "d" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **state}))
    pair = DatasetDirectory(tmp_path / "d").read_pair("train", 1)
    assert (pair.image, pair.mask) == tuple(pairs[1])


@pytest.mark.parametrize("kind", ["numbers", "lists", "path"])
def test_cells_that_are_no_pictures_are_sentences(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = {
        "numbers": (1, pyarrow.int64()),
        "lists": ([1], pyarrow.list_(pyarrow.int8())),
        "path": (None, pyarrow.binary()),
    }
    content, kind_of_bytes = cells[kind]
    picture = pyarrow.struct([("bytes", kind_of_bytes), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": content, "path": "a\0b.png"}] * 3, picture)
    (tmp_path / "data").mkdir()
    parquet.write_table(pyarrow.table({"pixel_values": column, "label": column}), tmp_path / "data" / "train-0.parquet")
    with pytest.raises(DataError, match="which is no path" if kind == "path" else "holds no pictures"):
        DatasetDirectory(tmp_path).read_pair("train", 0)
