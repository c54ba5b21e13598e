"""A picture of one record, from the store alone: what was taken for tissue, which tiles were encoded, which were not.

Owns the drawing. The thumbnail lies below, faded; a record without one, such as an imported one, is drawn on a plain
canvas. Colours are those of Okabe and Ito, which colour-blind eyes can tell apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, UnidentifiedImageError

from mmsurv.errors import StoreError
from mmsurv.store.record import INK, NEAR_WHITE, OUT_OF_FOCUS, REASONS, TISSUE, UNREADABLE, SlideRecord

LONGEST_SIDE = 1400
"""Pixels of the longer side of the picture, legend aside."""
LEGEND_WIDTH = 860
"""A narrow slide's legend is wider than its picture."""
MAX_PIXELS = 100_000_000
"""A thumbnail that claims more is no thumbnail."""

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
TILE_COLOUR: Colour = (0, 90, 160)
REASON_COLOURS: dict[int, Colour] = {UNREADABLE: (213, 60, 0), OUT_OF_FOCUS: (230, 159, 0), NEAR_WHITE: (90, 90, 90)}
MASK_COLOURS: dict[int, tuple[Colour, float]] = {TISSUE: ((0, 158, 115), 0.16), INK: ((204, 60, 150), 0.45)}
"""Colour of a mask's contour, and how strongly its area is tinted with it."""
FADE = 0.2
PLAIN: Colour = (246, 246, 244)
TEXT: Colour = (40, 40, 40)


@dataclass(frozen=True)
class Layout:
    """Where level-0 pixels lie on the picture."""

    width: int
    height: int
    scale: float
    """Level-0 pixels per pixel of the picture."""

    def box(self, x: float, y: float, width: float, height: float) -> tuple[int, int, int, int]:
        """A level-0 rectangle as left, top, right and bottom pixel, the last two inside it."""
        left, top = round(x / self.scale), round(y / self.scale)
        right, bottom = round((x + width) / self.scale) - 1, round((y + height) / self.scale) - 1
        return left, top, max(left, right), max(top, bottom)


def render(record: SlideRecord) -> bytes:
    """The picture of a record, as a PNG.

    Raises:
        StoreError: the record's thumbnail or mask is no picture.
    """
    facts = _Facts(record)
    layout = facts.layout
    picture = _background(record, layout)
    for code, (colour, strength) in MASK_COLOURS.items():
        _tint(picture, facts.mask_at(code, layout), colour, strength)
    _draw_tiles(picture, facts, layout)
    legend = _legend(facts, layout)
    whole = Image.new("RGB", (legend.width, layout.height + legend.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(legend, (0, layout.height))
    content = io.BytesIO()
    whole.save(content, "PNG", optimize=True)
    return content.getvalue()


class _Facts:
    """What a record says of its slide, or what can be told from its tiles."""

    def __init__(self, record: SlideRecord) -> None:
        self.record = record
        self.rejected = {
            code: record.rejected[record.rejected_reason == code]
            for code in REASONS
            if record.rejected is not None and record.rejected_reason is not None
        }

    def number(self, name: str) -> float | None:
        value = self.record.attributes.get(name, self.record.coords_attributes.get(name))
        return float(value) if isinstance(value, int | float) and value > 0 else None

    @cached_property
    def side(self) -> float | None:
        """Side of a tile in level-0 pixels; None where it is not known."""
        return self.number("tile_side_level0") or self.number("patch_size_level0")

    @cached_property
    def layout(self) -> Layout:
        tiles = np.concatenate([self.record.coords, *self.rejected.values()])
        far = tiles.max(axis=0) + (self.side or 1)
        width = max(self.number("level0_width") or 0, float(far[0]))
        height = max(self.number("level0_height") or 0, float(far[1]))
        scale = max(width, height) / LONGEST_SIDE
        return Layout(max(1, round(width / scale)), max(1, round(height / scale)), scale)

    def mask_at(self, code: int, layout: Layout) -> Image.Image | None:
        """Where the mask has a code, at the picture's size, white on black; None where it is nowhere."""
        mask, downsample = self.record.mask, self.number("mask_downsample")
        if mask is None or downsample is None or mask.ndim != 2 or not (mask == code).any():
            return None
        size = [max(1, round(extent * downsample / layout.scale)) for extent in (mask.shape[1], mask.shape[0])]
        if size[0] * size[1] > MAX_PIXELS:
            raise StoreError(f"{self.record.slide_id}: its mask of {mask.shape} is larger than its slide.")
        found = Image.fromarray(((mask == code) * 255).astype(np.uint8))
        # Between its pixels the mask's edge is drawn as a smooth line, not as stairs.
        smooth = found.resize((size[0], size[1]), Image.Resampling.BICUBIC).point(lambda value: 255 * (value > 127))
        return smooth.crop((0, 0, layout.width, layout.height))


def _background(record: SlideRecord, layout: Layout) -> Image.Image:
    """The thumbnail, faded so that what is drawn on it stands out; a plain canvas where there is none."""
    canvas = Image.new("RGB", (layout.width, layout.height), "white")
    if record.thumbnail is None:
        return Image.new("RGB", canvas.size, PLAIN)
    try:
        with Image.open(io.BytesIO(record.thumbnail), formats=("JPEG", "PNG")) as thumbnail:
            if thumbnail.width * thumbnail.height > MAX_PIXELS:
                raise StoreError(
                    f"{record.slide_id}: its thumbnail claims {thumbnail.width} × {thumbnail.height} pixels."
                )
            downsample = record.attributes.get("thumbnail_downsample")
            if not isinstance(downsample, int | float) or not downsample > 0:
                downsample = layout.scale * layout.width / thumbnail.width
            size = [max(1, round(extent * downsample / layout.scale)) for extent in thumbnail.size]
            shown = thumbnail.convert("RGB").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise StoreError(f"{record.slide_id}: its thumbnail is no picture ({error}).") from error
    canvas.paste(shown, (0, 0))
    return Image.blend(canvas, Image.new("RGB", canvas.size, "white"), FADE)


def _tint(picture: Image.Image, where: Image.Image | None, colour: Colour, strength: float) -> None:
    """Colour an area, and draw its contour."""
    if where is None:
        return
    picture.paste(colour, (0, 0), where.point(lambda value: round(value * strength)))
    # Two pixels wide, inside the area; what lies at the picture's edge has no contour there.
    inner = where.filter(ImageFilter.MinFilter(5))
    edge = Image.fromarray(np.asarray(where) & ~np.asarray(inner))
    picture.paste(colour, (0, 0), edge.point(lambda value: round(value * 0.8)))


def _draw_tiles(picture: Image.Image, facts: _Facts, layout: Layout) -> None:
    draw = ImageDraw.Draw(picture)
    side = facts.side or 0.0
    width = 2 if side / layout.scale >= 16 else 1
    for x, y in facts.record.coords.tolist():
        draw.rectangle(_inside(layout.box(x, y, side, side)), outline=TILE_COLOUR, width=width)
    for code, tiles in facts.rejected.items():
        colour = REASON_COLOURS[code]
        for x, y in tiles.tolist():
            box = _inside(layout.box(x, y, side, side))
            draw.rectangle(box, outline=colour, width=width)
            draw.line(box, fill=colour, width=width)
            draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=width)


def _inside(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A pixel smaller all round where there is room, so that neighbours' outlines do not lie on each other."""
    left, top, right, bottom = box
    return (left + 1, top + 1, right - 1, bottom - 1) if right - left > 6 and bottom - top > 6 else box


def _legend(facts: _Facts, layout: Layout) -> Image.Image:
    """What the picture shows: the slide, a bar of known length, and the colours with their counts."""
    title, small = _font(23), _font(17)
    width, margin, line = max(layout.width, LEGEND_WIDTH), 16, 30
    entries = _entries(facts)
    rows: list[list[tuple[str, str, Colour]]] = [[]]
    left = margin
    for entry in entries:
        needed = 34 + round(small.getlength(entry[1])) + 28
        if rows[-1] and left + needed > width:
            rows.append([])
            left = margin
        rows[-1].append(entry)
        left += needed
    legend = Image.new("RGB", (width, margin + 34 + line + line * len(rows) + margin // 2), "white")
    draw = ImageDraw.Draw(legend)
    draw.line((0, 0, width, 0), fill=(200, 200, 200))
    draw.text((margin, margin - 4), _shortened(facts.record.slide_id, title, width * 0.75), fill=TEXT, font=title)
    draw.text((margin, margin + 30), _caption(facts), fill=TEXT, font=small)
    _scale_bar(draw, facts, layout, width - margin, margin + 6, small)
    for index, row in enumerate(rows):
        left, top = margin, margin + 34 + line + line * index
        for kind, text, colour in row:
            _swatch(draw, kind, colour, (left, top + 2, left + 22, top + 20))
            draw.text((left + 32, top), text, fill=TEXT, font=small)
            left += 34 + round(small.getlength(text)) + 28
    return legend


def _entries(facts: _Facts) -> list[tuple[str, str, Colour]]:
    """Kind of swatch, text and colour of each line of the legend."""
    found: list[tuple[str, str, Colour]] = []
    mask = facts.record.mask
    for code, name in ((TISSUE, "tissue"), (INK, "pen ink")):
        if mask is not None and (mask == code).any():
            found.append(("area", name, MASK_COLOURS[code][0]))
    found.append(("tile", f"{facts.record.n_tiles} tiles encoded", TILE_COLOUR))
    for code, tiles in facts.rejected.items():
        if len(tiles):
            found.append(("cross", f"{len(tiles)} {REASONS[code]}", REASON_COLOURS[code]))
    return found


def _caption(facts: _Facts) -> str:
    parts = []
    total = facts.number("n_tissue_tiles")
    if total:
        parts.append(f"{facts.record.n_drawn} of {total:.0f} tissue tiles drawn")
    mpp, side = facts.number("mpp"), facts.side
    if mpp and side:
        parts.append(f"tile {side * mpp:.4g} µm")
    elif side:
        parts.append(f"tile {side:g} level-0 pixels")
    else:
        parts.append("tile size unknown: dots are their corners")
    if mpp:
        parts.append(f"{mpp:.4g} µm per pixel")
    if facts.record.thumbnail is None:
        parts.append("no thumbnail in the record")
    return "  ·  ".join(parts)


def _scale_bar(draw: ImageDraw.ImageDraw, facts: _Facts, layout: Layout, right: float, top: float, font: Font) -> None:
    """A bar of a round length, at most a fifth of the picture's width."""
    mpp = facts.number("mpp")
    if not mpp:
        return
    longest = layout.width / 5 * layout.scale * mpp
    power = 10 ** np.floor(np.log10(longest))
    length = float(max(step * power for step in (1, 2, 5) if step * power <= longest))
    pixels = round(length / mpp / layout.scale)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    draw.rectangle((right - pixels, top, right, top + 5), fill=TEXT)
    draw.text((right - font.getlength(text), top + 10), text, fill=TEXT, font=font)


def _shortened(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _font(size: int) -> Font:
    """DejaVu Sans, of which matplotlib brings a copy: Pillow's own font has no µ, nor any letter beyond ASCII."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _swatch(draw: ImageDraw.ImageDraw, kind: str, colour: Colour, box: tuple[int, int, int, int]) -> None:
    pale = tuple(round(255 - (255 - channel) * 0.25) for channel in colour)
    draw.rectangle(box, outline=colour, width=2, fill=pale if kind == "area" else None)
    if kind == "cross":
        draw.line(box, fill=colour, width=2)
        draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=2)
