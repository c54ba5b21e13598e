"""``mmsurv store retry`` as a user types it, with weights from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsurv.demo.tissue import write_slide
from mmsurv.errors import JobFailedError, RecipeMismatchError
from mmsurv.store import open_store
from mmsurv_extract._torchvision import models
from mmsurv_extract.cli import extract, retry

OPTIONS = ("--encoder", "squeezenet1_1", "--tile-px", "64", "--device", "cpu", "--tiles", "4", "--dtype", "bfloat16")


def slide(path: Path, *, mpp: float | None) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    uneven = rng.integers(-30, 30, (16, 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    write_slide(path, np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8), mpp=mpp)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of untrained weights."""
    folder = tmp_path_factory.mktemp("weights")
    paths = [folder / "ours.pth", folder / "others.pth"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return paths


def test_failures_are_tried_again_with_the_store_s_own_recipe(
    tmp_path: Path, weights: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mpp in (("good", 0.5), ("no-mpp", None), ("gone", None)):
        slide(tmp_path / "slides" / f"{name}.tiff", mpp=mpp)
    path = tmp_path / "store"
    slides = str(tmp_path / "slides")
    with pytest.raises(JobFailedError, match="2 of 3 slides failed"):
        extract.main(
            [slides, "-o", str(path), *OPTIONS, "--weights", str(weights[0]), "--backend", "zarr"],
            standalone_mode=False,
        )
    (tmp_path / "slides" / "gone.tiff").unlink()
    again = [str(path), "--mpp", "0.5", "--device", "cpu", "--weights"]
    with pytest.raises(RecipeMismatchError, match=r"encoder\.weights_sha256"):
        retry.main([*again, str(weights[1])], standalone_mode=False)
    capsys.readouterr()
    with pytest.raises(JobFailedError, match=r"1 of 2 slides failed(.|\n)*gone  FileNotFoundError.*Put it back"):
        retry.main([*again, str(weights[0])], standalone_mode=False)
    assert "1 slides encoded (4 tiles" in capsys.readouterr().out
    store = open_store(path)
    assert store.slide_ids() == ["good", "no-mpp"]
    assert store.attributes("no-mpp")["mpp_source"] == "option"
    np.testing.assert_array_equal(store.features("no-mpp").shape, (4, 512))
    assert [failure.slide_id for failure in store.failures()] == ["gone"]
    slide(tmp_path / "slides" / "gone.tiff", mpp=0.5)
    assert retry.main([str(path), "gone", *again[3:], str(weights[0])], standalone_mode=False) == 0
    capsys.readouterr()
    assert retry.main([str(path)], standalone_mode=False) == 0
    assert "notes no failures" in capsys.readouterr().out
