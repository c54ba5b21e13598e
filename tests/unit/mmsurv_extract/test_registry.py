from __future__ import annotations

import pytest

from mmsurv.errors import ConfigError
from mmsurv_extract import plugins, timm_models
from mmsurv_extract.encoder_settings import EncoderSettings
from mmsurv_extract.registry import encoder_names, load_model

needs_timm = pytest.mark.skipif(not timm_models.installed(), reason="timm is not installed (the extra mmsurv[timm])")


def _random(name: str) -> EncoderSettings:
    return EncoderSettings(name=name, weights="random")


def test_a_name_of_torchvision_is_torchvisions_with_and_without_its_prefix() -> None:
    for asked in ("squeezenet1_1", "torchvision:squeezenet1_1"):
        model = load_model(_random(asked))
        assert model.name == "squeezenet1_1"
        assert model.library.startswith("torchvision 0.")


@needs_timm
def test_a_name_that_both_libraries_have_is_torchvisions_unless_it_says_timm() -> None:
    assert timm_models.is_name("resnet18")
    assert load_model(_random("resnet18")).name == "resnet18"
    assert load_model(_random("timm:resnet18")).name == "timm:resnet18"


@needs_timm
def test_a_name_that_only_timm_has_needs_no_prefix() -> None:
    model = load_model(_random("test_resnet"))
    assert model.name == "timm:test_resnet"
    assert model.library.startswith("timm 1.")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("resnet5O", "resnet50"), ("torchvision:resnet5O", "resnet50"), ("plugin:resnet50", "resnet50")],
)
def test_an_unknown_name_is_refused_with_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"there is no encoder '{asked}'.*Nearest: .*{nearest}"):
        load_model(_random(asked))


@needs_timm
def test_an_unknown_name_of_timm_is_refused_with_timms_nearest() -> None:
    for asked in ("timm:vit_huge_patch14_clip_225", "timm:resnet18.no_such_tag"):
        with pytest.raises(ConfigError, match=r"there is no encoder 'timm:.*Nearest: .*timm:"):
            load_model(_random(asked))


def test_a_name_of_timm_without_timm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "installed", lambda: False)
    with pytest.raises(ConfigError, match=r"'timm:resnet18' needs timm, which is not installed: .*mmsurv\[timm\]"):
        load_model(_random("timm:resnet18"))
    with pytest.raises(ConfigError, match=r"no encoder 'test_resnet'.*timm is not installed; .*adds its models"):
        load_model(_random("test_resnet"))


def test_plug_ins_are_listed_with_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["mine"])
    assert encoder_names()[-1] == "plugin:mine"
    assert "resnet50" in encoder_names()
