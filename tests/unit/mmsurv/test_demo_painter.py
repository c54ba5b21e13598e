"""What the numbers of a Morphology do to the picture."""

import numpy as np
import pytest

from mmsurv.demo.painter import Morphology, paint

SIDE = 900


def painted(seed: int = 0, **numbers: float) -> np.ndarray:
    return paint(Morphology(**numbers), np.random.default_rng(seed), height=SIDE, width=SIDE + 37).astype(int)


def dark_share(rgb: np.ndarray) -> float:
    """Share of pixels as dark in red as only nuclei are."""
    return float((rgb[..., 0] < 140).mean())


def red_share(rgb: np.ndarray) -> float:
    """Share of pixels with hardly more blue than green, as only haemoglobin has."""
    return float(((rgb[..., 2] < rgb[..., 1] + 20) & (rgb[..., 1] < 180)).mean())


def test_a_slide_is_tissue_on_a_white_background() -> None:
    rgb = painted()
    assert rgb.shape == (SIDE, SIDE + 37, 3)
    for corner in (rgb[:40, :40], rgb[:40, -40:], rgb[-40:, :40], rgb[-40:, -40:]):
        assert corner.min() > 225
        assert np.ptp(corner.mean(axis=(0, 1))) < 2
    white = (rgb.min(axis=2) > 230).mean()
    assert 0.2 < white < 0.6


def test_the_same_seed_paints_the_same_pixels() -> None:
    assert np.array_equal(painted(3), painted(3))
    assert not np.array_equal(painted(3), painted(4))


def test_more_nuclei_are_more_dark_pixels() -> None:
    few, some, many = (dark_share(painted(density=density)) for density in (0.0, 1500.0, 4500.0))
    assert few < some / 2
    assert some < many / 1.5


@pytest.mark.parametrize("zone", ["necrosis_bleeding", "vascular_bleeding"])
def test_more_bleeding_is_more_red(zone: str) -> None:
    nothing = {"necrosis_bleeding": 0.0, "vascular_bleeding": 0.0}
    none, half, most = (red_share(painted(**{**nothing, zone: share})) for share in (0.0, 0.4, 0.8))
    assert none < 0.01
    assert none + 0.02 < half < most / 1.5


def test_stain_strength_darkens_tissue_and_not_the_background() -> None:
    weak, strong = (
        paint(Morphology(stain=(by, by)), np.random.default_rng(0), height=SIDE, width=SIDE) for by in (0.8, 1.2)
    )
    assert strong.mean() < weak.mean() - 5
    assert np.array_equal(weak[:40, :40], strong[:40, :40])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"density": -1.0}, "density must be at least 0"),
        ({"necrosis_bleeding": 1.1}, "within 0 and 1"),
        ({"necrosis_share": 0.6, "vascular_share": 0.6}, "add up to more than 1"),
    ],
)
def test_impossible_tissue_is_refused(numbers: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Morphology(**numbers)
