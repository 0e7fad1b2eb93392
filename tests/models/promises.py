"""The promises that every model of this package keeps, as one test class.

A test module of a model inherits from `ModelPromises` and names the model and some small options; see test_unet.py. The
rest of the package leans on these proofs: sizes, locality, coupling, folders, precisions, compilation.
"""

from __future__ import annotations

import copy
import itertools
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unet_dist.errors import DataError, SizeError
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.models.registry import build_model, load_model
from unet_dist.testing.models import check_model
from unet_dist.tiling.geometry import WindowSizes


class ModelPromises:
    """Tests for a model; a subclass says which."""

    model_type: ClassVar[str]
    option_sets: ClassVar[list[dict[str, Any]]]
    """Constructor options, small ones: every test runs with each of them."""
    compiled_sets: ClassVar[list[dict[str, Any]]]
    """Those of them that are worth the seconds that a compilation takes."""

    @pytest.fixture
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return request.param

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "options" in metafunc.fixturenames:
            sets = self.compiled_sets if "compiles" in metafunc.function.__name__ else self.option_sets
            names = [" ".join(f"{key}={value}" for key, value in options.items()) for options in sets]
            metafunc.parametrize("options", sets, ids=names, indirect=True)

    @pytest.fixture
    def model(self, options: dict[str, Any]) -> Any:
        """A model with random weights, in evaluation mode, whose running statistics are not trivial."""
        torch.manual_seed(0)
        model = build_model(self.model_type, in_channels=3, num_classes=5, **options)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return model.eval()

    def test_keeps_the_promises_of_the_kit(self, model: Any) -> None:
        """C1, C2, sizes, batch and folder; the export has tests of its own."""
        check_model(model)

    def test_refuses_other_sizes_and_names_the_neighbours(self, model: Any) -> None:
        sizes: WindowSizes = model.window_sizes
        if sizes.stride == 1:
            pytest.skip("takes every side")
        valid = sizes.round_up(sizes.minimum + 1)
        below, above = sizes.neighbours(valid + 1)
        with pytest.raises(SizeError, match=f"image width = {valid + 1}.*{below} or {above}"):
            model(torch.randn(1, 3, valid, valid + 1))
        with pytest.raises(SizeError, match=f"image height = 1\\..*to {sizes.minimum}"):
            model(torch.randn(1, 3, 1, valid))

    def test_refuses_other_channels(self, model: Any) -> None:
        side = model.window_sizes.minimum
        with pytest.raises(DataError, match=rf"\(2, 4, {side}, {side}\).*\(N, 3, height, width\).*in_channels = 3"):
            model(torch.randn(2, 4, side, side))
        with pytest.raises(DataError, match=rf"\(3, {side}, {side}\)"):
            model(torch.randn(3, side, side))

    def test_names_the_layer_where_no_halo_is_finite(self, model: Any) -> None:
        assert (model.locality is None) == (model.locality_obstacle is not None)
        if model.locality_obstacle is not None:
            self.assert_names_a_layer(model, model.locality_obstacle)
            side = model.window_sizes.round_up(2 * model.window_sizes.minimum)
            image = torch.randn(1, 3, side, side, dtype=torch.float64)
            far = image.clone()
            far[..., 0] += 1
            model.double()
            assert not torch.equal(model(image)[..., -1], model(far)[..., -1])

    def test_what_is_said_to_couple_a_batch_does(self, model: Any) -> None:
        if model.couples_batch is None:
            pytest.skip("nothing; that it is so is in the kit")
        self.assert_names_a_layer(model, model.couples_batch)
        side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
        images = torch.randn(2, 3, side, side)
        model.train()
        assert not torch.allclose(model(images)[0], model(torch.stack([images[0], torch.randn_like(images[1])]))[0])

    def assert_names_a_layer(self, model: nn.Module, text: str) -> None:
        name, _, rest = text.partition(" ")
        kind = type(model.get_submodule(name)).__name__
        assert rest.startswith(f"({kind}): "), text

    def test_every_parameter_learns(self, model: Any) -> None:
        model.train()
        side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
        model(torch.randn(2, 3, side, side)).square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_a_folder_restores_the_model(self, model: Any, options: dict[str, Any], tmp_path: Path) -> None:
        extras = {
            "mean": [100.5, 110.25, 120.0],
            "std": [60.0, 61.0, 62.5],
            "class_names": ["sky", "road", "pôle", "car", "void"],
            "ignore_index": 4,
        }
        complete = build_model(self.model_type, in_channels=3, num_classes=5, **options, **extras)
        complete.load_state_dict(model.state_dict())
        complete.save_pretrained(tmp_path / "folder")
        loaded = load_model(tmp_path / "folder")
        assert type(loaded) is type(model)
        assert {key: loaded.config()[key] for key in extras} == extras
        assert {key: loaded.config()[key] for key in options} == options
        assert all(parameter.requires_grad for parameter in loaded.parameters())

    def test_a_folder_keeps_the_precision(self, model: Any, tmp_path: Path) -> None:
        model.double().save_pretrained(tmp_path)
        loaded = load_model(tmp_path)
        image = torch.randn(1, 3, model.window_sizes.minimum, model.window_sizes.minimum, dtype=torch.float64)
        assert torch.equal(loaded(image), model(image))

    def test_can_be_copied_and_never_changes_its_input(self, model: Any) -> None:
        image = torch.randn(1, 3, model.window_sizes.minimum, model.window_sizes.minimum)
        kept = image.clone()
        twin = copy.deepcopy(model)
        assert torch.equal(twin(image), model(image))
        assert torch.equal(image, kept)
        assert twin.config() == model.config()

    def test_channels_last_gives_the_same(self, model: Any) -> None:
        model.double()
        image = torch.randn(1, 3, model.window_sizes.minimum, model.window_sizes.minimum, dtype=torch.float64)
        expected = model(image)
        got = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
    def test_trains_under_autocast(self, model: Any, dtype: torch.dtype) -> None:
        model.train()
        image = torch.randn(2, 3, model.window_sizes.minimum, model.window_sizes.minimum)
        with torch.autocast("cpu", dtype):
            logits = model(image)
        assert logits.dtype == dtype
        logits.float().square().mean().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
        # In evaluation: of two values a channel, as the deepest maps of this image have, batch norm makes -1 and 1 of any rounding.
        model.eval()
        with torch.autocast("cpu", dtype):
            logits = model(image)
        reference = model(image)
        assert (logits - reference).abs().max() < 0.1 * reference.abs().max()

    @pytest.mark.slow
    def test_compiles_without_a_graph_break(self, model: Any, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, logger="torch.__trace")  # thousands of lines that pytest would keep
        model.double().train()
        side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
        image = torch.randn(2, 3, side, side, dtype=torch.float64)
        expected = copy.deepcopy(model)(image)
        # Captures forward and backward as any backend would, and runs the graph uncompiled.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        got = compiled(image)
        got.sum().backward()
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()

    def test_trains_under_ddp(self, model: Any, tmp_path: Path) -> None:
        twin = copy.deepcopy(model)
        image = torch.randn(2, 3, model.window_sizes.minimum, model.window_sizes.minimum)
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
        try:
            parallel = DistributedDataParallel(model.train())
            for _ in range(2):  # a parameter left out of the first step would stop the second
                parallel(image).sum().backward()
        finally:
            dist.destroy_process_group()
        twin.train()
        for _ in range(2):
            twin(image).sum().backward()
        for (name, got), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert torch.allclose(got.grad, expected.grad, rtol=1e-4, atol=1e-4 * expected.grad.abs().max()), name

    def test_is_listed_and_keeps_its_options(self, model: Any, options: dict[str, Any]) -> None:
        assert isinstance(model, PretrainedModel)
        assert model.config()["model_type"] == self.model_type
        assert {**model.config(), **options} == model.config()


def support(values: Tensor, *, dim: int) -> list[int]:
    """List the indices along `dim` at which anything is not zero."""
    others = [other for other in range(values.ndim) if other != dim % values.ndim]
    return values.ne(0).permute(dim, *others).flatten(1).any(1).nonzero().flatten().tolist()


def is_contiguous(indices: list[int]) -> bool:
    return all(after - before == 1 for before, after in itertools.pairwise(indices))
