"""Pictures of records: what is drawn, where, and in which colour."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from mmsurv.errors import StoreError
from mmsurv.store import SlideRecord
from mmsurv.store import preview as previews
from mmsurv.store.preview import LONGEST_SIDE, MASK_COLOURS, REASON_COLOURS, TILE_COLOUR, render
from mmsurv.store.record import INK, NEAR_WHITE, OUT_OF_FOCUS, TISSUE, UNREADABLE

SIDE = 1000


def jpeg(width: int, height: int, colour: str = "white") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "JPEG")
    return content.getvalue()


def record(**change: object) -> SlideRecord:
    """A slide of 14,000 × 7000 pixels, drawn at one pixel for ten: two tiles encoded, one rejected for each reason."""
    mask = np.zeros((70, 140), np.uint8)
    mask[20:50, 20:60] = TISSUE
    mask[20:50, 100:130] = INK
    made = SlideRecord(
        slide_id="s",
        features=np.ones((2, 4), np.float16),
        coords=np.array([[0, 0], [3000, 2000]], np.int32),
        tissue=np.ones(2, np.float32),
        attributes={
            "level0_width": 14_000, "level0_height": 7000, "mpp": 0.25, "tile_side_level0": float(SIDE),
            "thumbnail_downsample": 20.0, "mask_downsample": 100, "n_tissue_tiles": 9, "recipe": "{}",
        },
        thumbnail=jpeg(700, 350),
        mask=mask,
        rejected=np.array([[5000, 0], [7000, 0], [9000, 0]], np.int32),
        rejected_reason=np.array([UNREADABLE, OUT_OF_FOCUS, NEAR_WHITE], np.uint8),
    )  # fmt: skip
    return dataclasses.replace(made, **change)  # type: ignore[arg-type]


def drawn(made: SlideRecord) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(render(made))).convert("RGB")).astype(int)


def is_colour(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel - np.array(colour)).max() <= 3)


def test_tiles_are_outlined_where_they_lie_in_the_colour_of_their_fate() -> None:
    picture = drawn(record())
    assert picture.shape[1] == LONGEST_SIDE
    assert picture.shape[0] > 700, "the legend is below"
    assert is_colour(picture[1, 50], TILE_COLOUR)
    assert is_colour(picture[201, 350], TILE_COLOUR)
    assert is_colour(picture[250, 301], TILE_COLOUR)
    assert is_colour(picture[298, 350], TILE_COLOUR)
    for x, code in ((500, UNREADABLE), (700, OUT_OF_FOCUS), (900, NEAR_WHITE)):
        assert is_colour(picture[1, x + 30], REASON_COLOURS[code])
        assert is_colour(picture[50, x + 50], REASON_COLOURS[code]), "a rejected tile is crossed out"
    assert not is_colour(picture[250, 350], TILE_COLOUR), "an encoded one is not"
    assert len({TILE_COLOUR, *REASON_COLOURS.values()}) == 4


def test_tissue_and_ink_are_tinted_differently_and_glass_is_not() -> None:
    picture = drawn(record())
    glass, tissue, ink = picture[600, 700], picture[400, 250], picture[400, 1150]
    assert glass.min() > 250
    for found, code in ((tissue, TISSUE), (ink, INK)):
        colour, strength = MASK_COLOURS[code]
        expected = glass * (1 - strength) + np.array(colour) * strength
        assert np.abs(found - expected).max() <= 4
    assert np.abs(picture[400, 201] - MASK_COLOURS[TISSUE][0]).max() < 60, "the area has a contour"


def test_the_thumbnail_lies_below_faded() -> None:
    picture = drawn(record(thumbnail=jpeg(700, 350, "black"), mask=None))
    assert 40 < picture[600, 700].max() < 65


def test_a_record_without_pictures_is_drawn_on_a_plain_canvas() -> None:
    bare = record(thumbnail=None, mask=None, rejected=None, rejected_reason=None, attributes={})
    sized = dataclasses.replace(bare, coords_attributes={"patch_size_level0": SIDE})
    picture = drawn(sized)
    # Two tiles reach from (0, 0) to (4000, 3000): 1400 pixels are 4000.
    assert picture.shape[1] == LONGEST_SIDE
    assert is_colour(picture[700, 1200], TILE_COLOUR) or is_colour(picture[701, 1200], TILE_COLOUR)
    dots = drawn(bare)
    assert (np.abs(dots - np.array(TILE_COLOUR)).max(-1) <= 3).sum() >= 2, "corners, where the side is not known"


def test_the_same_record_makes_the_same_picture() -> None:
    assert render(record()) == render(record())


def test_many_small_tiles_and_a_long_name_and_a_narrow_slide_are_drawn() -> None:
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(400)), -1).reshape(-1, 2).astype(np.int32) * SIDE
    many = record(
        slide_id="T" * 200, coords=grid, features=np.ones((8000, 4), np.float16), thumbnail=None, rejected=grid[:3]
    )
    picture = drawn(many)
    assert picture.shape[1] == previews.LEGEND_WIDTH
    assert picture.shape[0] > LONGEST_SIDE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thumbnail": b"not a picture"}, "s: its thumbnail is no picture"),
        ({"thumbnail": jpeg(700, 350)[:400]}, "s: its thumbnail is no picture"),
        ({"attributes": {"mask_downsample": 1e9}}, "s: its mask of \\(70, 140\\) is larger than its slide"),
    ],
)
def test_what_is_no_picture_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        render(record(**change))


def test_a_thumbnail_that_claims_to_be_huge_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "MAX_PIXELS", 1000)
    with pytest.raises(StoreError, match="its thumbnail claims 700 × 350 pixels"):
        render(record(mask=None))
