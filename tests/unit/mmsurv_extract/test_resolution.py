from __future__ import annotations

import pytest

from mmsurv.errors import MppError
from mmsurv_extract.resolution import MppOptions, resolve_mpp

APERIO = {"openslide.vendor": "aperio", "openslide.mpp-x": "0.2526", "openslide.mpp-y": "0.2526"}
PLAIN_TIFF = {"openslide.vendor": "generic-tiff", "openslide.mpp-x": "0.00499", "openslide.mpp-y": "0.00499"}
SILENT = {"openslide.vendor": "aperio", "tiff.ResolutionUnit": "inch"}


def resolve(properties: dict[str, str], **options: float | bool) -> tuple[float, str]:
    found = resolve_mpp(properties, MppOptions(**options), name="a.svs")
    return found.mpp, found.source


def test_the_slides_own_value_is_used_as_it_is() -> None:
    assert resolve(APERIO) == (0.2526, "property")


def test_fill_does_not_replace_what_a_slide_says() -> None:
    assert resolve(APERIO, fill=0.5) == (0.2526, "property")


def test_override_replaces_what_a_slide_says() -> None:
    assert resolve(PLAIN_TIFF, override=0.499) == (0.499, "override")


def test_tiff_resolution_is_named_as_the_source_of_a_plain_tiff() -> None:
    assert resolve({**APERIO, "openslide.vendor": "generic-tiff"}) == (0.2526, "tiff-resolution")


@pytest.mark.parametrize(("unit", "per_unit"), [("centimeter", "20000"), ("INCH", "50800")])
def test_tiff_resolution_stands_in_for_a_missing_property(unit: str, per_unit: str) -> None:
    mpp, source = resolve({"tiff.ResolutionUnit": unit, "tiff.XResolution": per_unit})
    assert mpp == pytest.approx(0.5)
    assert source == "tiff-resolution"


def test_tiff_pixels_that_are_not_square_are_refused() -> None:
    tags = {"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "10000"}
    with pytest.raises(MppError, match=r"not square, 0\.5 × 1 µm"):
        resolve(tags)
    assert resolve({**tags, "tiff.YResolution": "20000"}) == (0.5, "tiff-resolution")


def test_a_screen_resolution_of_72_dpi_is_not_believed() -> None:
    dpi = {"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72"}
    assert resolve(dpi, fill=0.5) == (0.5, "option")
    with pytest.raises(MppError, match=r"TIFF resolution would be 352\.778 µm, which is absurd"):
        resolve(dpi)


@pytest.mark.parametrize("options", [{}, {"fill": 0.5}])
def test_an_absurd_value_is_refused_with_the_value_and_the_remedy(options: dict[str, float]) -> None:
    with pytest.raises(MppError, match=r"a\.svs: it says 0\.00499 µm per pixel.*--override-mpp UM"):
        resolve(PLAIN_TIFF, **options)


def test_a_slide_that_does_not_say_is_refused_with_the_remedy() -> None:
    with pytest.raises(MppError, match=r"a\.svs: it does not say its µm per pixel\. Give it: --mpp UM\.$"):
        resolve(SILENT)


@pytest.mark.parametrize("text", ["", "nan", "0", "-1", "unknown"])
def test_an_empty_or_senseless_property_counts_as_missing(text: str) -> None:
    assert resolve({"openslide.mpp-x": text, "openslide.mpp-y": text}, fill=0.25) == (0.25, "option")


def test_the_objective_is_a_guess_that_must_be_asked_for() -> None:
    with_power = {**SILENT, "openslide.objective-power": "40"}
    with pytest.raises(MppError, match=r"--mpp-from-objective to guess 0\.25 from its 40x objective"):
        resolve(with_power)
    assert resolve(with_power, from_objective=True) == (0.25, "objective")
    assert resolve(with_power, from_objective=True, fill=0.26) == (0.26, "option")


def test_pixels_that_are_not_square_are_refused() -> None:
    with pytest.raises(MppError, match=r"not square, 0\.25 × 0\.5 µm.*--override-mpp"):
        resolve({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"})


@pytest.mark.parametrize("option", ["fill", "override"])
@pytest.mark.parametrize("value", [0.00499, 0.0, -1.0, 25.0])
def test_an_absurd_option_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"µm per pixel at level 0, 0\.05 to 20"):
        MppOptions(**{option: value})


def test_fill_and_override_together_are_refused() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        MppOptions(fill=0.5, override=0.5)
