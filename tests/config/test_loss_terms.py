"""Proves how a loss is spelt, that equal losses are equal words, and that what would have no effect is refused."""

from __future__ import annotations

from typing import Any

import pytest

from unet_dist.config.loss_terms import parse_loss
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError


@pytest.mark.parametrize(
    "said",
    [
        "cross_entropy+0.5*dice",
        " cross_entropy  + .5 * dice ",
        {"cross_entropy": 1, "dice": 0.5},
        "1*cross_entropy+5e-1*dice",
    ],
)
def test_equal_losses_are_equal_words(said: Any) -> None:
    config = Config.from_flat({"loss": said})
    assert config.schedule.loss == "cross_entropy + 0.5*dice"
    assert parse_loss(config.schedule.loss) == {"cross_entropy": 1.0, "dice": 0.5}
    assert config.replace(seed=1).schedule.loss == config.schedule.loss


def test_somebody_elses_loss_is_a_term_with_arguments_and_is_not_imported() -> None:
    config = Config.from_flat(
        {"loss": "dice+2 * nobody.losses:tversky( alpha=.3,text='1+1*2')", "class_weights": "median"}
    )
    assert config.schedule.loss == "dice + 2*nobody.losses:tversky(alpha=0.3, text='1+1*2')"
    assert parse_loss(config.schedule.loss) == {"dice": 1.0, "nobody.losses:tversky(alpha=0.3, text='1+1*2')": 2.0}
    assert config.replace(seed=1).schedule.loss == config.schedule.loss
    with pytest.raises(ConfigError, match=r"got nobody\.losses:tversky twice"):
        parse_loss({"nobody.losses:tversky": 1, "nobody.losses:tversky()": 1})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"loss": "dise"},
            "loss: got 'dise', expected one that exists, or an import path such as my_package.my_module:name. "
            'Did you mean "dice"? Valid: cross_entropy, dice, focal, lovasz. Change loss in the config or --loss.',
        ),
        ({"loss": "dice+dice"}, "loss: got dice twice, expected it once, with the sum of its weights."),
        ({"loss": "half*dice"}, "loss: got 'half*dice', expected a number before the *, such as 0.5*dice."),
        ({"loss": {"dice": 0}}, "loss: got the weight 0 for dice, expected a finite number above 0."),
        ({"loss": {}}, "loss: got no term, expected one at least. Valid: cross_entropy, dice, focal, lovasz."),
        (
            {"loss": "dice", "class_weights": "median"},
            "class_weights: got 'median', which has no effect as the loss is dice. Remove class_weights, or name cross_entropy "
            "or focal in --loss.",
        ),
        (
            {"border_weight": 5.0},
            "border_weight: got 5.0, which has no effect without border_class. Remove border_weight, or set --border_class.",
        ),
    ],
)
def test_mistake_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_flat(values)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("key", ["label_smoothing", "focal_gamma", "border_class"])
def test_setting_without_its_term_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: got .*, which has no effect as the loss is lovasz\. Remove {key}"):
        Config.from_flat({"loss": "lovasz", key: 0.5 if key == "label_smoothing" else 1})
