from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsurv.errors import ConfigError, EncoderError, WeightsError
from mmsurv_extract import plugins
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder
from mmsurv_extract.plugins import PluginEncoder

Distribution = Callable[..., Path]
PAGE = Path(__file__).parents[3] / "docs" / "encoders.md"


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """Installs a distribution of one module: ``distribution("name", code, {"entry": "module:function"})``."""

    def install(name: str, code: str, points: dict[str, str]) -> Path:
        folder = tmp_path / name
        facts = folder / f"{name}-1.5.dist-info"
        facts.mkdir(parents=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(code))
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = "\n".join(f"{entry} = {value}" for entry, value in points.items())
        (facts / "entry_points.txt").write_text(f"[mmsurv.encoders]\n{lines}\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return folder

    return install


MEAN_COLOUR = """
    import torch
    from torch import nn
    from mmsurv_extract.plugins import PluginEncoder

    class MeanColour(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.rand(3))

        def forward(self, images):
            return images.mean((2, 3)) * self.gain

    def facts(**changes):
        return {"module": MeanColour(), "dim": 3, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_px": 32,
                "provenance": "made up", **changes}
"""


def _tiles(n: int = 2, px: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def _encoder(name: str, weights: str = "random", **changes: object) -> Encoder:
    return build_encoder(EncoderSettings(name=name, weights=weights, **changes))  # type: ignore[arg-type]


# The example in the documentation


def _blocks(mark: str) -> str:
    found = re.findall(rf"^```{mark}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"docs/encoders.md has {len(found)} blocks marked {mark}"
    return found[0]


def test_the_plug_in_in_the_documentation_works_as_a_distribution(distribution: Distribution, tmp_path: Path) -> None:
    points = tomllib.loads(_blocks("toml plugin"))["project"]["entry-points"]["mmsurv.encoders"]
    (name, value), module = *points.items(), next(iter(points.values())).partition(":")[0]
    distribution(module, _blocks("python plugin"), {name: value})

    encoder = _encoder(f"plugin:{name}")
    assert encoder.name == f"plugin:{name}"
    assert encoder(_tiles(3, encoder.input_px)).shape == (3, encoder.dim)
    assert encoder.describe()["weights_sha256"] == _encoder(f"plugin:{name}").describe()["weights_sha256"]

    file = tmp_path / "mine.pth"
    torch.save(encoder.trunk.state_dict(), file)
    assert _encoder(name, str(file)).weights_sha256 == encoder.weights_sha256
    with pytest.raises(WeightsError, match=rf"'{name}' \({module} 1\.5, .*IMAGENET1K_V2: there is no such file"):
        _encoder(name, "IMAGENET1K_V2")


# What it is for


def test_features_are_those_of_the_module_on_normalised_images(distribution: Distribution) -> None:
    distribution("colours", MEAN_COLOUR + "\n    def build(weights):\n        return PluginEncoder(**facts())\n", {
        "colours": "colours:build"
    })  # fmt: skip
    encoder = _encoder("colours")
    expected = (_tiles() / 255 - 0.5).mean((1, 2)) / 0.25 * encoder.trunk.gain.numpy()
    np.testing.assert_allclose(encoder(_tiles()), expected, rtol=1e-4, atol=1e-6)
    assert not encoder.trunk.training
    assert encoder.weights_description == "made up"
    assert encoder.library == "colours 1.5"


def test_the_seed_decides_random_weights_and_a_revision_the_fingerprint(distribution: Distribution) -> None:
    code = MEAN_COLOUR + "\n    def build(weights):\n        return PluginEncoder(**facts(revision='2'))\n"
    distribution("colours", code, {"colours": "colours:build"})
    torch.manual_seed(8)
    first = _encoder("plugin:colours").describe()
    torch.manual_seed(9)
    assert _encoder("colours").describe() == first
    assert _encoder("colours", weights_seed=1).describe() != first
    assert first["revision"] == "2"


def test_a_plug_in_of_one_size_refuses_other_tiles(distribution: Distribution) -> None:
    code = MEAN_COLOUR + "\n    def build(weights):\n        return PluginEncoder(**facts(any_size=False))\n"
    distribution("colours", code, {"colours": "colours:build"})
    with pytest.raises(EncoderError, match="plugin:colours takes tiles of 32 × 32 px only"):
        _encoder("colours")(_tiles(1, 48))


# Broken ones


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "resnet"}, "module must be a torch.nn.Module, found 'resnet'"),
        ({"dim": 0}, "dim must be a whole number above 0, found 0"),
        ({"dim": True}, "dim must be a whole number"),
        ({"mean": (0.5, 0.5)}, "mean must be three finite numbers, found (0.5, 0.5)"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be three finite numbers above 0"),
        ({"std": (0.5, float("nan"), 0.5)}, "std must be three finite numbers above 0"),
        ({"input_px": 8}, "input_px must be a whole number from 16 to 4096, found 8"),
        ({"provenance": " "}, "provenance must be text that is not empty"),
        ({"any_size": "yes"}, "any_size must be true or false"),
        ({"revision": 2}, "revision must be text"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_named(change: dict[str, object], message: str) -> None:
    good = {
        "module": torch.nn.Flatten(),
        "dim": 3,
        "mean": (0.5, 0.5, 0.5),
        "std": (1, 1, 1),
        "input_px": 32,
        "provenance": "made up",
    }
    assert PluginEncoder(**good).dim == 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(message)):
        PluginEncoder(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no licence')", "build its encoder with weights 'random': RuntimeError: no licence"),
        ("return facts()", "returned dict, expected a mmsurv_extract.plugins.PluginEncoder"),
        ("return PluginEncoder(**facts(dim=-1))", "ValueError: dim must be a whole number above 0, found -1"),
        ("return PluginEncoder(**facts(dim=4))", "gave (2, 3) of torch.float32 for 2 images, expected (2, 4) floats"),
        ("return PluginEncoder(**facts(module=nn.Linear(7, 3)))", "cannot encode images (2, 3, 32, 32) of float32"),
        ("m = MeanColour(); m.forward = lambda x: (x * x.sum(0)).mean((2, 3)); return PluginEncoder(**facts(module=m))",
         "gives an image other features alone than beside another"),
        ("m = MeanColour(); m.gain.data[1] = float('inf'); return PluginEncoder(**facts(module=m))",
         "gave NaN or infinite features. Check its weights (made up)"),
    ],
)  # fmt: skip
def test_a_broken_plug_in_is_named_with_its_distribution(body: str, message: str, distribution: Distribution) -> None:
    code = textwrap.dedent(MEAN_COLOUR) + f"\ndef build(weights):\n    {body}\n"
    distribution("colours", code, {"colours": "colours:build"})
    named = re.escape("the encoder plug-in 'colours' (colours 1.5, colours:build)")
    with pytest.raises(EncoderError, match=f"{named} .*{re.escape(message)}"):
        _encoder("colours")


def test_one_that_cannot_be_imported_disturbs_neither_the_others_nor_the_help(distribution: Distribution) -> None:
    folder = distribution("broken", "raise SystemError('built for another Python')", {"broken": "broken:build"})
    distribution("colours", MEAN_COLOUR + "\n    def build(weights):\n        return PluginEncoder(**facts())\n", {
        "colours": "colours:build"
    })  # fmt: skip
    assert {"broken", "colours"} <= set(plugins.names())
    assert _encoder("colours").dim == 3
    assert _encoder("squeezenet1_1").dim == 512
    with pytest.raises(EncoderError, match=r"'broken' \(broken 1\.5, .*SystemError: built for .*others are not"):
        _encoder("broken")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mmsurv", "extract", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "--encoder" in done.stdout


def test_two_plug_ins_of_one_name_are_refused_with_both_distributions(distribution: Distribution) -> None:
    code = MEAN_COLOUR + "\n    def build(weights):\n        return PluginEncoder(**facts())\n"
    distribution("first", code, {"colours": "first:build"})
    distribution("second", code, {"colours": "second:build"})
    with pytest.raises(ConfigError, match=r"2 plug-ins are named 'colours': .*Uninstall all but one") as caught:
        _encoder("colours")
    assert "first 1.5 (first:build)" in str(caught.value)
    assert "second 1.5 (second:build)" in str(caught.value)
