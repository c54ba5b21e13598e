"""What the rules on ink, focus and white do to real tissue, to the same tissue blurred, and to the demo's slides.

    MMSURV_TEST_DATA=FOLDER python benchmarks/quality.py [--pictures FOLDER] [--demo-slides 6]

The thresholds of the recipe's tables [mask] and [quality] were chosen on these numbers. Real tissue: three glioma
regions and a frozen section (their resolution is not in the files; 0.5 µm per pixel is taken, 2 for the biopsy with pen
marks) and a skin biopsy with ink on its margins (0.499). "Blurred" is a Gaussian of that many pixels of 0.5 µm, then
JPEG at quality 70 as a scanner would store it. Tiles are those of the default recipe, all that hold tissue. The last
line is one JSON object; docs/quality.md quotes it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmsurv import provenance
from mmsurv.demo.simulate import SimulationSettings, paint_slide, simulate
from mmsurv.store.record import INK, NEAR_WHITE, OUT_OF_FOCUS
from mmsurv_extract.discover import SlideSource
from mmsurv_extract.overview import read_overview
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.quality import QualitySettings, inspector, pixels_per_step, sharpness, white_share
from mmsurv_extract.recipe import ExtractRecipe, TileSettings, load_extract_recipe
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.slide import open_slide
from mmsurv_extract.tile import resample

SOURCES = {
    "glioma-06-0174": ("tiles/glioma_TCGA-06-0174.png", 0.5),
    "glioma-26-1442": ("tiles/glioma_TCGA-26-1442.png", 0.5),
    "glioma-HT-7470": ("tiles/glioma_TCGA-HT-7470.png", 0.5),
    "skin": ("slides/CMU-1-Small-Region.svs", 0.5),
    "frozen": ("slides/TCGA-CR-7395-01A-01-TS1.svs", 0.5),
    "pen-marks": ("tiles/ink.jpeg", 2.0),
}
SIGMAS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
JPEG_QUALITY = 70
COLOURS = {0: (0, 160, 0), OUT_OF_FOCUS: (230, 0, 0), NEAR_WHITE: (255, 160, 0), "ink": (0, 0, 255)}


def without_rules(recipe: ExtractRecipe) -> ExtractRecipe:
    return replace(recipe, mask=replace(recipe.mask, ink=False), quality=QualitySettings(focus=False, white=False))


def look(source: SlideSource, recipe: ExtractRecipe, mpp: float) -> PreparedSlide:
    with open_slide(source) as slide:
        return prepare(slide, identify(slide, MppOptions(fill=mpp)), recipe)


def pixels(source: SlideSource) -> Image.Image:
    with open_slide(source) as slide:
        return slide.read_region(0, 0, 0, slide.width, slide.height)


def cut(image: Image.Image, prepared: PreparedSlide, px: int) -> list[np.ndarray]:
    side = prepared.geometry.side_level0
    size = int(np.ceil(side))
    return [resample(image.crop((x, y, x + size, y + size)), side, px) for x, y in prepared.coords.tolist()]


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(sigma)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def judge(tiles: list[np.ndarray], recipe: ExtractRecipe) -> list[int]:
    inspect = inspector(recipe.quality, recipe.tiles.mpp)
    return [inspect(tile) for tile in tiles]


def ink_and_white(source: SlideSource, recipe: ExtractRecipe, mpp: float) -> dict[str, float]:
    """What the mask and the rule on white do to an image as it is."""
    before, after = look(source, without_rules(recipe), mpp), look(source, recipe, mpp)
    tiles = cut(pixels(source), before, recipe.tiles.px)
    codes = judge(tiles, recipe)
    return {
        "ink_share": round(float((after.mask == INK).mean()), 5),
        "tiles": len(before.coords),
        "under_ink": len(before.coords) - len(after.coords),
        "near_white": codes.count(NEAR_WHITE),
        "out_of_focus": codes.count(OUT_OF_FOCUS),
        "largest_white_share": round(max(white_share(tile, recipe.quality.white_level) for tile in tiles), 3),
    }


def focus(source: SlideSource, recipe: ExtractRecipe, mpp: float) -> dict[str, object]:
    """Sharpness as it is, and the share left out once blurred."""
    prepared = look(source, recipe, mpp)
    image, step = pixels(source), pixels_per_step(recipe.tiles.mpp)
    sharp = [sharpness(tile, step) for tile in cut(image, prepared, recipe.tiles.px)]
    out: dict[str, object] = {
        "tiles": len(sharp),
        "least": round(min(sharp), 3),
        "median": round(float(np.median(sharp)), 3),
    }
    for sigma in SIGMAS:
        found = [sharpness(tile, step) for tile in cut(blurred(image, sigma * 0.5 / mpp), prepared, recipe.tiles.px)]
        rejected = np.mean(np.array(found) < recipe.quality.min_sharpness)
        out[f"sigma {sigma:g}"] = {"left_out": round(float(rejected), 3), "largest": round(max(found), 3)}
    return out


def other_resolutions(source: SlideSource, folder: Path, recipe: ExtractRecipe) -> dict[str, dict[str, float]]:
    """The same tissue as a scan at another resolution, in focus and blurred by as many µm."""
    image, out = pixels(source), {}
    for mpp, tile_mpp in ((0.25, 0.25), (0.25, 0.3), (0.5, 0.75), (0.5, 1.0), (0.5, 1.5), (0.5, 2.0)):
        scale = 0.5 / mpp
        large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        path = folder / f"{source.slide_id}.png"
        large.save(path, compress_level=1)
        px = 224 if tile_mpp < 0.5 else int(224 * 0.5 / tile_mpp)
        other = replace(recipe, tiles=TileSettings(px=px, mpp=tile_mpp))
        prepared = look(SlideSource(source.slide_id, path), other, mpp)
        sharp = judge(cut(large, prepared, px), other)
        found = {"tiles": len(sharp), "kept": round(sharp.count(0) / len(sharp), 3)}
        for um in (1.5, 3.0, 6.0):
            soft = judge(cut(blurred(large, um / mpp), prepared, px), other)
            found[f"left_out_at_{um:g}_um"] = round(soft.count(OUT_OF_FOCUS) / len(soft), 3)
        out[f"{tile_mpp:g}"] = found
    return out


def demo(folder: Path, n_slides: int) -> dict[str, int]:
    """Candidates on the demo's painted slides with and without the rules, and tiles left out by their pixels."""
    settings, recipe = SimulationSettings(), load_extract_recipe("demo")
    cohort = simulate(settings)
    owner = dict(zip(cohort.clinical["slide_id"], cohort.clinical["case_id"], strict=True))
    counts = {"slides": 0, "tiles": 0, "under_ink": 0, "left_out": 0}
    for slide_id in list(owner)[:n_slides]:
        path = folder / f"{slide_id}.tiff"
        paint_slide(path, settings, cohort.patients[owner[slide_id]], slide_id)
        source = SlideSource(slide_id, path)
        before, after = look(source, without_rules(recipe), 0.5), look(source, recipe, 0.5)
        codes = judge(cut(pixels(source), before, recipe.tiles.px), recipe)
        counts["slides"] += 1
        counts["tiles"] += len(before.coords)
        counts["under_ink"] += len(before.coords) - len(after.coords)
        counts["left_out"] += len(codes) - codes.count(0)
    return counts


def picture(source: SlideSource, recipe: ExtractRecipe, mpp: float, path: Path) -> None:
    """The overview with ink in yellow and tiles outlined: green kept, blue ink, red out of focus, orange white."""
    before, after = look(source, without_rules(recipe), mpp), look(source, recipe, mpp)
    with open_slide(source) as slide:
        rgb = read_overview(slide, after.mask_downsample).rgb.copy()
    rgb[after.mask == INK] = (255, 255, 0)
    zoom = max(1, 1400 // max(rgb.shape[:2]))
    image = Image.fromarray(rgb).resize((rgb.shape[1] * zoom, rgb.shape[0] * zoom), Image.Resampling.NEAREST)
    draw, scale = ImageDraw.Draw(image), zoom / after.mask_downsample
    kept = set(map(tuple, after.coords.tolist()))
    codes = judge(cut(pixels(source), before, recipe.tiles.px), recipe)
    for (x, y), code in zip(map(tuple, before.coords.tolist()), codes, strict=True):
        colour = COLOURS[code] if (x, y) in kept else COLOURS["ink"]
        left, top, side = x * scale, y * scale, before.geometry.side_level0 * scale
        draw.rectangle((left + 1, top + 1, left + side - 1, top + side - 1), outline=colour)
    image.save(path)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=Path)
    options.add_argument("--demo-slides", type=int, default=6)
    given = options.parse_args()
    data = os.environ.get("MMSURV_TEST_DATA")
    if not data:
        print("MMSURV_TEST_DATA is not set: it names the folder of real slides.", file=sys.stderr)
        return 2
    recipe = ExtractRecipe()
    white: dict[str, object] = {}
    blur: dict[str, object] = {}
    resolutions: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        for label, (path, mpp) in SOURCES.items():
            source = SlideSource(label, Path(data) / path)
            # A slide of 2 µm per pixel has tiles of 2 µm, so that its ink is judged.
            fitting = recipe if mpp <= 0.5 else replace(recipe, tiles=TileSettings(px=112, mpp=mpp))
            found = ink_and_white(source, fitting, mpp)
            print(label, found)
            white[label] = found
            if mpp <= 0.5:
                blur[label] = focus(source, recipe, mpp)
                print(label, blur[label])
            if label.startswith("glioma"):
                resolutions[label] = other_resolutions(source, Path(name), recipe)
                print(label, resolutions[label])
            if given.pictures:
                given.pictures.mkdir(parents=True, exist_ok=True)
                picture(source, fitting, mpp, given.pictures / f"{label}.png")
        painted = demo(Path(name), given.demo_slides)
    result = {
        "benchmark": "quality",
        "ink_and_white": white,
        "focus": blur,
        "other_resolutions": resolutions,
        "demo": painted,
        "versions": provenance.versions(["numpy", "pillow", "scikit-image", "openslide-bin"]),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
