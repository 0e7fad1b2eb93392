"""Data sets in the form of the Hugging Face hub, from the hub or from a local directory.

The adapter to `datasets` and `huggingface_hub`, imported here only and late (they take seconds). Pictures stay encoded:
they are decoded by `decode.py`, which refuses what the libraries convert silently.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from unet_dist.data.sources.fingerprint import digest_files, digest_text
from unet_dist.data.sources.names import find_id_names, names_in_features, read_id2label
from unet_dist.data.sources.pairs import RawPair
from unet_dist.data.sources.splits import canonical_split
from unet_dist.data.sources.table_cards import require_own_tables, tables_of_card
from unet_dist.errors import DataError, RefusedError
from unet_dist.storage.files import write_whole
from unet_dist.storage.typed import read_json
from unet_dist.wording import first_line, printable

_TIMEOUT_S = 10.0
_MARKS = ("README.md", "id2label.json", "dataset_dict.json", "dataset_info.json")  # what lies at the top of a data set


class _TableSource:
    """What the hub and a local directory share: pairs from the rows of tables, one table per split."""

    fixed_shape: tuple[int, int, int] | None = None
    files_root: Path | None = None
    name: str

    def __init__(self, *, image_column: str, label_column: str) -> None:
        self._columns = (image_column, label_column)
        self._feature_names: dict[int, str] | None = None

    @property
    def splits(self) -> dict[str, int]:
        return {name: len(table) for name, table in self._tables.items()}

    def read_pair(self, split: str, index: int) -> RawPair:
        row = self._tables[split][index]
        image, mask = (row[column] for column in self._columns)
        where = f"{split}, row {index}"
        for part, what in ((image, "image"), (mask, "mask")):
            if part is None or (part["bytes"] is None and not part["path"]):
                raise RefusedError(f"{where} has no {what}", "Label it, or filter such rows out of the table.")
        image_path, mask_path = image["path"], mask["path"]
        return RawPair(
            id=Path(image_path or mask_path).stem if image_path or mask_path else f"{split}-{index:05d}",
            image=self._content(image, where),
            mask=self._content(mask, where),
            image_name=f"{Path(image_path).name} ({where})" if image_path else f"of {where}",
            mask_name=f"{Path(mask_path).name} ({where})" if mask_path else f"of {where}",
        )

    def _names_in_features(self) -> dict[int, str] | None:
        """Names of classes that the table itself holds."""
        _ = self._tables
        return self._feature_names

    def _load(self) -> Any:
        raise NotImplementedError

    def _content(self, picture: dict[str, Any], where: str) -> bytes | Path:
        content: bytes | None = picture["bytes"]
        if content is not None:
            return content
        path: str = picture["path"]
        if "\0" in path:
            raise RefusedError(f"{where} refers to {path!r}, which is no path", "Embed the picture in the table.")
        return self._outside(Path(path), where)

    def _outside(self, path: Path, where: str) -> Path:
        return path

    @cached_property
    def _tables(self) -> dict[str, Any]:

        with _quiet_datasets():
            loaded = self._load()
            by_split = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
            tables: dict[str, Any] = {}
            for split, table in by_split.items():
                self._check_columns(table)
                self._feature_names = self._feature_names or names_in_features(table.features, self._columns[1])
                # As it lies there: a saved table may ask for rows of another library's kind, or without these columns.
                table = table.with_format(None).select_columns(list(self._columns))
                for column in self._columns:
                    table = self._as_pictures(table, column)
                tables[canonical_split(str(split))] = table
        if len(tables) < len(by_split):
            raise DataError(f"{self.name}: two of its splits mean the same: {', '.join(map(str, by_split))}.")
        return tables

    def _as_pictures(self, table: Any, column: str) -> Any:
        import datasets

        try:
            return table.cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # of pyarrow, for bytes or paths that are something else
            raise DataError(
                f'{self.name}: its column "{column}" holds no pictures ({first_line(error)}). Expected the bytes of image files.'
            ) from error

    def _check_columns(self, table: Any) -> None:
        import datasets

        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in table.features.items())
        for key, column in zip(("image_column", "label_column"), self._columns, strict=True):
            feature = table.features.get(column)
            is_bytes = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
            if not (isinstance(feature, datasets.Image) or is_bytes or _is_picture_struct(feature)):
                kind = "no column" if feature is None else f"no pictures ({type(feature).__name__}) in the column"
                raise DataError(
                    f'{self.name}: it has {kind} "{column}". Its columns: {found}. '
                    f"Name the one that holds the {'images' if key == 'image_column' else 'masks'}: {key}."
                )


class DatasetDirectory(_TableSource):
    """A local directory with parquet or arrow files, or one that `datasets` saved with `save_to_disk`."""

    def __init__(self, root: Path, *, image_column: str = "pixel_values", label_column: str = "label") -> None:
        super().__init__(image_column=image_column, label_column=label_column)
        self.root = root
        self.name = root.resolve().name

    @staticmethod
    def recognises(root: Path) -> bool:
        """Say whether a directory holds tables."""
        return any(next(root.rglob(f"*.{kind}"), None) is not None for kind in ("parquet", "arrow"))

    @staticmethod
    def find_inside(root: Path) -> list[Path]:
        """Find the data sets below a directory that is none itself, such as a folder of several downloads."""
        if any((root / mark).exists() for mark in _MARKS):
            return []
        below = sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
        marked = [path for path in below if any((path / mark).exists() for mark in _MARKS)]
        return [path for path in marked if DatasetDirectory.recognises(path)]

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        return find_id_names(self.root)[1] or self._names_in_features()

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return digest_text("directory", digest_files(self.root, files, memo_path), *self._columns)

    def _load(self) -> Any:
        import datasets

        require_own_tables(self.root)
        try:
            if any((self.root / name).is_file() for name in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(str(self.root))
            return datasets.load_dataset(str(self.root))
        except Exception as error:  # of its own parsers, and of YAML in the README
            raise DataError(
                f"{self.root}: `datasets` cannot load this directory ({first_line(error)}). Expected parquet or arrow "
                f"files with the columns {self._columns[0]} and {self._columns[1]}, or what save_to_disk writes."
            ) from error

    def _outside(self, path: Path, where: str) -> Path:
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(
                f"{self.name}: {where} refers to the file {path}, outside the directory, whose change nobody would "
                "notice. Embed the pictures in the table, or copy them into the directory."
            )
        return path


class HubDataset(_TableSource):
    """A data set of the Hugging Face hub, at one commit."""

    def __init__(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        image_column: str = "pixel_values",
        label_column: str = "label",
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(image_column=image_column, label_column=label_column)
        self.name = repo_id
        self._revision = revision
        self._say = say or (lambda text: None)
        self._commit: str | None = None  # known once `signature` has asked, or remembered, where the hub answers

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        path = self._file("id2label.json")
        return self._names_in_features() if path is None else read_id2label(path)

    def _file(self, name: str) -> Path | None:
        """Get a file of the data set; None where it has none of that name."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, name, repo_type="dataset", revision=self._commit or self._revision))
        except LocalEntryNotFoundError as error:
            raise self._unreachable(error) from error
        except EntryNotFoundError:
            return None
        except _connection_errors() as error:
            raise self._unreachable(error) from error

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        memo_file = memo_path / "hub" / f"{digest_text(self.name, self._revision or '')}.json"
        try:
            self._commit = self._ask_commit()
        except _connection_errors() as error:
            self._commit = _remembered_commit(memo_file)
            if self._commit is None:
                raise self._unreachable(error) from error
            self._say(
                f"{self.name}: the hub does not answer; continuing with commit {self._commit[:12]}, the last seen."
            )
        else:
            with suppress(DataError):  # a read-only cache folder is no reason to stop
                known = {"repo_id": self.name, "revision": self._revision, "commit": self._commit}
                write_whole(memo_file, json.dumps(known).encode())
        return digest_text("hub", self.name, self._commit, *self._columns)

    def _ask_commit(self) -> str:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            commit = HfApi().dataset_info(self.name, revision=self._revision, timeout=_TIMEOUT_S).sha
        except GatedRepoError as error:
            raise DataError(
                f"{self.name}: this data set of the hub asks for an agreement first. Accept its terms on "
                f"https://huggingface.co/datasets/{self.name}, then log in with `hf auth login` or set HF_TOKEN."
            ) from error
        except RevisionNotFoundError as error:
            raise DataError(f'{self.name}: the hub has no revision "{self._revision}" of this data set.') from error
        except RepositoryNotFoundError as error:
            raise DataError(
                f"{self.name}: no folder {Path(self.name).absolute()} here, and no data set of that name on the hub "
                "(or a private one). Correct data_path, or log in with `hf auth login` or set HF_TOKEN."
            ) from error
        assert commit is not None, self.name
        return commit

    def _require_own_tables(self) -> None:
        """Refuse a card that names tables elsewhere: they are not of the commit that the cache is named by.

        Raises:
            DataError: a table of another data set, at an address, or outside this one.
        """
        card = self._file("README.md")
        for word in () if card is None else tables_of_card(card):
            own = f"hf://datasets/{self.name}"
            is_own = word.startswith((f"{own}/", f"{own}@{self._commit}/")) and "::" not in word
            if not is_own and ("://" in word or "::" in word or word.startswith(("/", "~")) or ".." in word.split("/")):
                raise DataError(
                    f"{self.name}: its README.md names the table {printable(word)}, which lies outside it. If you trust that "
                    "table, download it and give its own folder as data_path."
                )

    def _outside(self, path: Path, where: str) -> Path:
        """Allow what the libraries unpacked into their own caches. Raises: DataError: a file of this machine."""
        import datasets
        from huggingface_hub.constants import HF_HUB_CACHE

        caches = (HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
        if not any(path.resolve().is_relative_to(Path(cache).resolve()) for cache in caches):
            raise DataError(
                f"{self.name}: {where} refers to the file {printable(str(path))} of this machine. Ask the data set's owner to "
                "embed the pictures in the table."
            )
        return path

    def _load(self) -> Any:
        import datasets

        self._require_own_tables()
        try:
            return datasets.load_dataset(self.name, revision=self._commit or self._revision)
        except _connection_errors() as error:
            raise self._unreachable(error) from error
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{self.name}: `datasets` cannot load it ({first_line(error)}). Expected a data set with the columns "
                f"{self._columns[0]} and {self._columns[1]}."
            ) from error

    def _unreachable(self, error: BaseException) -> DataError:
        return DataError(
            f"{self.name}: no folder {Path(self.name).absolute()} here, and the hub cannot be reached "
            f"({first_line(error)}). Where there is no network, run `unet-dist prepare` with the same settings on a "
            "machine that has it and shares the cache folder (cache_path), or give a local folder as data_path."
        )


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep the library's progress bars off the terminal: the one bar there is ours. And have it run no script of a data set.

    Before its release 4 it asks at the terminal, or an environment variable, whether to run one.
    """
    import datasets

    before = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    trusts = getattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", None)
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = trusts
        if not before:
            datasets.enable_progress_bars()


def _connection_errors() -> tuple[type[Exception], ...]:
    """List what means that the hub gives no answer, or none to use.

    huggingface_hub changes its HTTP library with its major version (seen: requests, httpx, httpx2), so it is asked.
    """
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    theirs = [getattr(library, name, None) for name in ("TransportError", "ConnectionError", "Timeout")]
    ours = [ConnectionError, TimeoutError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled]
    return (*ours, *(kind for kind in theirs if isinstance(kind, type) and issubclass(kind, Exception)))


def _remembered_commit(memo_file: Path) -> str | None:
    try:
        return read_json(memo_file, dict[str, str | None]).get("commit")
    except DataError:
        return None


def _is_picture_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}
