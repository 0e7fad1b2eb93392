"""A model as a folder: `config.json` (model_type, format_version, the constructor's options) and `model.safetensors`.

Owns loading from a local folder or the Hugging Face hub, and the refusals: only JSON and safetensors are ever read,
so that nothing is unpickled, and weights that do not fit are an error. Must not know any one architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from unet_dist.errors import CheckpointError, ConfigError, suggest
from unet_dist.imaging.pixels import EIGHT_BIT, Pixels
from unet_dist.models.answers import require_thresholds
from unet_dist.models.arguments import Described, Description, scale_logits
from unet_dist.models.normalisation import batch_coupling, pixel_coupling
from unet_dist.models.supervision import without_heads
from unet_dist.models.weights import CONFIG_FILE, WEIGHTS_FILE, describing, load_weights, require_room
from unet_dist.storage.typed import read_json
from unet_dist.tiling.geometry import Locality, WindowSizes
from unet_dist.wording import first_line

# What transformers writes beside its own config.json: how images are prepared, and weights from before safetensors.
PROCESSOR_FILE = "preprocessor_config.json"
PICKLE_FILE = "pytorch_model.bin"
FORMAT_VERSION = 1
BESIDE_THE_OPTIONS = ("model_type", "format_version", "pixels", "thresholds")
"""Keys of config.json that are no arguments of the constructor."""

MODEL_CARD_TEMPLATE = """---
{{ card_data }}
---

A semantic segmentation network, trained with `unet_dist`.

```python
from unet_dist import predict_image
from unet_dist.models.registry import load_model

model = load_model("path/to/this/folder")  # or its id on the hub
label_map = predict_image(model, "image.jpg")  # (H, W) uint8, one class id per pixel
```

`config.json` holds the architecture, the class names, and the mean and deviation of the training images.
{% if paper_url %}
Paper: {{ paper_url }}
{% endif %}
"""

Model = TypeVar("Model", bound="PretrainedModel")


def find_model_folder(path_or_hub_id: str | Path, **download: Any) -> Path:
    """Find the folder that holds a model: the local one if it exists, else the hub's, downloaded to the hub's cache.

    Of a run's folder it is best/, or last/ where there is no best.

    Args:
        download: revision, token, cache_dir, force_download, local_files_only, as the hub library has them.

    Raises:
        CheckpointError: neither is there, or it is no model folder.
    """
    path = Path(path_or_hub_id)
    if path.exists():
        nested = [path / name for name in ("best", "last") if (path / name / CONFIG_FILE).is_file()]
        if nested and not (path / CONFIG_FILE).is_file():
            path = nested[0]
        _require_files(path)
        return path
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(path_or_hub_id)):
        raise CheckpointError(
            f'Got model "{path_or_hub_id}": there is no such folder ({path.absolute()}). Expected the folder of a run, a folder '
            f'with {CONFIG_FILE} and {WEIGHTS_FILE}, or a hub id "user/name". Check the spelling.'
        )
    # Only these names are asked for: a pickle beside safetensors, or in a repository of ours, is not even downloaded.
    names = [CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE]
    try:
        folder = Path(snapshot_download(str(path_or_hub_id), allow_patterns=names, **download))
        if not (folder / WEIGHTS_FILE).is_file() and _is_of_transformers(folder):
            folder = Path(snapshot_download(str(path_or_hub_id), allow_patterns=[*names, PICKLE_FILE], **download))
    except (OSError, ValueError, HTTPError) as error:
        is_far = isinstance(error, LocalEntryNotFoundError | ConnectionError)
        found = "cannot be reached" if is_far else f"gives no such model ({type(error).__name__}: {first_line(error)})"
        raise CheckpointError(
            f'Got model "{path_or_hub_id}": no such folder here ({path.absolute()}), and the hub {found}. Expected the folder of a '
            f'run, a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or a hub id "user/name". Check the spelling, and the '
            "network if it is a hub id."
        ) from error
    _require_files(folder)
    return folder


def is_foreign(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json is of transformers, and not of this package."""
    return "format_version" not in config and ("transformers_version" in config or "architectures" in config)


def _is_of_transformers(folder: Path) -> bool:
    try:
        return is_foreign(read_config(folder))
    except (CheckpointError, OSError):
        return False


def _require_files(folder: Path) -> None:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if not missing or (missing == [WEIGHTS_FILE] and (folder / PICKLE_FILE).is_file() and _is_of_transformers(folder)):
        return
    remedy = "Give a run's folder, or one that save_pretrained or export wrote."
    if (folder / "config.yaml").is_file():
        remedy = "The run has no model yet: the first comes with the first validation."
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    if pickles:
        remedy = f"{pickles[0]} is a pickle, which can run code when it is read, and is not loaded. {remedy}"
    elif folder.suffix == ".onnx" and folder.is_file():
        remedy = "unet_dist.load_model takes an ONNX file."
    kind = "a file" if folder.is_file() else f"a folder without {' and '.join(missing)}"
    raise CheckpointError(
        f"{folder} is {kind}. Expected a model folder with {CONFIG_FILE} and {WEIGHTS_FILE}. {remedy}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json, `model_type` and `format_version` included; or that of transformers.

    Raises:
        CheckpointError: it is not JSON, names no model_type or is of another format_version.
    """
    file = folder / CONFIG_FILE
    remedy = "Copy the model folder again."
    config = read_json(file, dict[str, object], error=CheckpointError, remedy=remedy)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f'{file} names no "model_type". Expected the {CONFIG_FILE} of a model of unet_dist. '
            "It belongs to another library: load it with that one."
        )
    if not is_foreign(config) and config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{file} has format_version {config.get('format_version')!r}. Expected {FORMAT_VERSION}. "
            "Load it with the version of unet_dist that wrote it, or update this one."
        )
    return config


class PretrainedModel(
    Described, PyTorchModelHubMixin, model_card_template=MODEL_CARD_TEMPLATE, library_name="unet_dist"
):
    """Adds save_pretrained, from_pretrained and push_to_hub to an nn.Module.

    The class that inherits sets `model_type` and `config_keys`, and keeps every argument of its constructor as an
    attribute of the same name; those of Description by `keep_description`. A network of another library also says what a
    variant is and how its checkpoints are read.

    Attributes:
        config_keys: those keys of a training config that are arguments of the constructor; the others of ModelConfig that
            describe a network have no effect on this one.
        is_convolutional: whether convolutions are most of its work, by which the memory format of training is chosen.
        has_encoder: whether pretrained_parameters are some, so that the keys encoder_... have an effect.
        pixels: what its images are, set by whoever trains it.
        thresholds: of overlapping classes, set likewise; None where a pixel has one class.
        resize_to: (height, width) that a whole image is scaled to before the network and its logits back from; None: not.
    """

    model_type: ClassVar[str]
    config_keys: ClassVar[tuple[str, ...]]
    is_convolutional: ClassVar[bool] = True
    has_encoder: ClassVar[bool] = False
    resize_to: Sequence[int] | None = None
    pixels: Pixels = EIGHT_BIT
    thresholds: Sequence[float] | None = None

    @property
    def locality_obstacle(self) -> str | None:
        """The layer that couples all pixels of a window in evaluation, and why; None where the halo is finite."""
        assert isinstance(self, nn.Module), type(self)
        return pixel_coupling(self)

    @property
    def couples_batch(self) -> str | None:
        """The layer that couples the samples (and tiles) of a batch in training, and why; None where none does."""
        assert isinstance(self, nn.Module), type(self)
        return batch_coupling(self)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The parameters of an encoder, whose learning rate may be another than that of the rest; none in most networks."""
        return []

    def origin(self) -> str | None:
        """Whose published weights this network began with, and their licence, in words; None where it began new."""
        return None

    @classmethod
    def variant_options(cls, variant: str) -> dict[str, Any]:
        """Say which of the constructor's options the VARIANT of `--model NAME:VARIANT` stands for.

        Raises:
            ConfigError: there is no such variant.
            CheckpointError: a published one that cannot be had.
        """
        raise ConfigError(
            f'model: got "{cls.model_type}:{variant}", expected "{cls.model_type}" alone: it has no variants. '
            f"Set --model {cls.model_type}."
        )

    @classmethod
    def sizes_of(cls, keys: Mapping[str, object]) -> tuple[WindowSizes, Locality | None]:
        """What a network takes, and how far its pixels see, by the keys of its training config: nothing is built that has weights.

        Raises:
            ConfigError: a key is not valid.
        """
        stated = getattr(cls, "window_sizes", None)  # on the class, where they hold for each of its networks
        if not isinstance(stated, WindowSizes):
            raise ConfigError(
                f"model: got {keys.get('model')}, whose window sizes are those of a network that was built."
            )
        return stated, None

    @classmethod
    def require_trust(cls, config: Mapping[str, object], trust: Sequence[str], file: Path) -> None:
        """Refuse to import what a folder names, unless the user trusts the package: our own networks name nothing.

        Args:
            config: of config.json, and over it what the caller gives in its place.

        Raises:
            CheckpointError: it is not among `trust`.
        """

    def load_variant(self, variant: str) -> str | None:
        """Copy a variant's published weights into this new network; describes the copy, None where there are none.

        Raises:
            CheckpointError: they cannot be had, or do not fit.
        """
        return None

    @classmethod
    def adopt(cls, folder: Path, config: Mapping[str, Any], *, map_location: str | torch.device = "cpu") -> Any:
        """Load a checkpoint that another library wrote, in evaluation mode.

        Args:
            config: of its config.json.

        Raises:
            CheckpointError: there is nothing of this model to be adopted.
        """
        raise CheckpointError(
            f"{folder / CONFIG_FILE} was written by another library. Expected the {CONFIG_FILE} of a model of unet_dist. "
            "Load it with that one."
        )

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of whole images at another size."""
        network: Any = self
        return scale_logits(network(images), size)

    def config(self) -> dict[str, Any]:
        """Collect what config.json says: the model type and the constructor's options as they are now."""
        options = {name: getattr(self, name) for name in self.option_names()}
        beside: dict[str, Any] = {"pixels": said} if (said := self.pixels.record()) else {}
        if self.thresholds is not None:
            beside["thresholds"] = list(self.thresholds)
        return {"model_type": self.model_type, "format_version": FORMAT_VERSION, **options, **beside}

    @classmethod
    def option_names(cls) -> list[str]:
        """The options of the constructor, those of Description among them."""
        own = [name for name in cls._hub_mixin_init_parameters if name not in ("self", "description")]
        return [*own, *Description.__annotations__]

    def _save_pretrained(self, save_directory: Path) -> None:
        # The mixin writes this attribute to config.json next. Its own notion is what the constructor was called with,
        # less whatever is not JSON: an array of means would silently be lost.
        self._hub_mixin_config = self.config()
        network: Any = self
        with without_heads(network):
            super()._save_pretrained(save_directory)
        # safetensors 0.8 leaves the file to its owner alone (0600): whoever may read the folder may read the weights.
        (save_directory / WEIGHTS_FILE).chmod(save_directory.stat().st_mode & 0o666)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        trust: Sequence[str] = (),
        **model_kwargs: Any,
    ) -> Model:
        """Load a model, in evaluation mode, in the precision of its file.

        Args:
            pretrained_model_name_or_path: a model folder or a hub id.
            trust: packages whose code the folder may name.
            model_kwargs: `map_location` (device, "cpu"), `strict` (True), and options of the constructor that replace
                those of config.json.

        Raises:
            CheckpointError: no such model; a damaged file; another model's weights.
        """
        folder = find_model_folder(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        config = read_config(folder)
        if config["model_type"] != cls.model_type:
            raise CheckpointError(
                f'{folder / CONFIG_FILE} is of model_type "{config["model_type"]}". Expected "{cls.model_type}" for '
                f"{cls.__name__}. Use unet_dist.models.registry.load_model, which takes every type."
            )
        cls.require_trust({**config, **model_kwargs}, trust, folder / CONFIG_FILE)
        if is_foreign(config):
            adopted: Model = cls.adopt(folder, config, map_location=model_kwargs.get("map_location", "cpu"))
            return adopted
        unknown = sorted(set(config) - {*BESIDE_THE_OPTIONS, *cls.option_names()})
        if unknown:
            raise CheckpointError(
                f'{folder / CONFIG_FILE} has the key "{unknown[0]}", which {cls.__name__} does not know. '
                f"{suggest(unknown[0], cls.option_names())} Mend the file, or update unet_dist."
            )
        try:
            model = super().from_pretrained(folder, **model_kwargs)
            model.pixels = Pixels.of(config.get("pixels", {}), model.in_channels)
            if (thresholds := config.get("thresholds")) is not None:
                model.thresholds = require_thresholds(thresholds, model.num_classes)
            return model
        except (ConfigError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / CONFIG_FILE} does not describe a {cls.__name__}: {error}") from error

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls: type[Model],
        *,
        model_id: str,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
        revision: None,
        cache_dir: None,
        force_download: bool,
        local_files_only: bool,
        token: None,
        **options: Any,
    ) -> Model:
        """Build the model from its options and fill it from the folder `model_id`; what the hub needed is done by now.

        Unlike the mixin's own this is strict, never falls back to a pickle, moves the model to `map_location`, prints
        nothing, and draws no initial weights (31 million take over a second) and so no random numbers.
        """
        beside = {*BESIDE_THE_OPTIONS, "proxies", "resume_download"}  # the latter two of huggingface_hub below 1.0
        options = {name: value for name, value in options.items() if name not in beside}
        # Where weights may be missing, they are drawn.
        with torch.device("meta" if strict else "cpu"), describing(Path(model_id) / CONFIG_FILE, cls.__name__):
            model: Any = cls(**options)  # an nn.Module, which this mixin cannot say
        weights = load_weights(Path(model_id) / WEIGHTS_FILE, model.state_dict() if strict else None)
        floating = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        if len(floating) == 1:
            model.to(floating.pop())
        require_room(model, torch.device(map_location), Path(model_id))
        kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        # Copies: the file's memory map is not kept. `to_empty` would import torch's symbolic shapes, which take a while.
        weights = {name: tensor.to(map_location, kinds.get(name), copy=True) for name, tensor in weights.items()}
        model.load_state_dict(weights, strict=strict, assign=True)
        return model.to(map_location).eval()


def encoder_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network's encoder; none where it has no such part."""
    return model.pretrained_parameters() if isinstance(model, PretrainedModel) else []
