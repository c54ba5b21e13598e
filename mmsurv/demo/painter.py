"""Paints simulated H&E-stained tumour tissue whose morphology is set by numbers.

Owns the picture only: what the numbers mean for survival is in :mod:`mmsurv.demo.simulate`. Concentrations of three
pigments (haematoxylin, eosin, haemoglobin) are painted and turned into RGB by Beer–Lambert, the model that stain
deconvolution inverts (Ruifrok & Johnston 2001). The tissue has three zones along one smooth field: necrosis at its
top, cellular tumour in between, a hypercellular vascular zone at its bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

MPP = 0.5
"""µm per pixel of what is painted; nuclei and red cells are drawn at this scale."""

CELL = 16
"""Side in pixels of a cell of the coarse grid on which zones and densities are drawn."""

TEXTURE = 512
"""Side in pixels of the repeating fine textures."""

Field = NDArray[np.float32]

# Optical density of each pigment in R, G, B; haematoxylin and eosin after Ruifrok & Johnston 2001.
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], dtype=np.float32)
EOSIN = np.array([0.10, 0.78, 0.36], dtype=np.float32)
HAEMOGLOBIN = np.array([0.16, 0.72, 0.72], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """What one slide shows."""

    density: float = 2500.0
    """Nuclei per mm² of cellular tumour; the vascular zone has 1.8 times as many."""
    necrosis_share: float = 0.25
    """Share of the tissue area that is necrotic."""
    vascular_share: float = 0.25
    """Share of the tissue area in the hypercellular vascular zone."""
    necrosis_bleeding: float = 0.2
    """Share of the necrotic zone covered by red cells."""
    vascular_bleeding: float = 0.2
    """Share of the vascular zone covered by red cells."""
    stain: tuple[float, float] = (1.0, 1.0)
    """Strength of haematoxylin and eosin: the laboratory's hand, without meaning for survival."""

    def __post_init__(self) -> None:
        shares = (self.necrosis_share, self.vascular_share, self.necrosis_bleeding, self.vascular_bleeding)
        if self.density < 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"density must be at least 0 and shares within 0 and 1: {self}.")
        if self.necrosis_share + self.vascular_share > 1:
            raise ValueError(f"necrosis_share and vascular_share add up to more than 1: {self}.")


@dataclass(frozen=True)
class _Zones:
    """Coarse maps (h, w) in 0 to 1, one value per cell of ``CELL`` pixels."""

    tissue: Field
    necrosis: Field
    vascular: Field
    rim: Field
    bleeding: Field


def paint(morphology: Morphology, rng: np.random.Generator, *, height: int, width: int) -> NDArray[np.uint8]:
    """Paint one slide.

    Args:
        morphology: what it shows.
        rng: everything that two slides of one morphology differ in.
        height: pixels at ``MPP``.
        width: pixels at ``MPP``.

    Returns:
        (height, width, 3) uint8 RGB: tissue of irregular outline on a white background.
    """
    zones = _zones(morphology, rng, -(-height // CELL), -(-width // CELL))
    shape = (height, width)
    tissue = _sharpen(_enlarge(zones.tissue, shape) + 0.10 * _texture("fibre", rng, shape), 0.5, 0.08)
    necrosis, vascular = _enlarge(zones.necrosis, shape), _enlarge(zones.vascular, shape)

    fibre, grain = _texture("fibre", rng, shape), _texture("grain", rng, shape)
    eosin = 0.36 + 0.14 * necrosis - 0.04 * vascular
    eosin += (0.13 - 0.09 * necrosis) * fibre
    eosin += (0.05 + 0.05 * necrosis) * grain
    np.maximum(eosin, 0.05, out=eosin)
    haematoxylin = 0.09 + 0.08 * vascular - 0.02 * necrosis
    haematoxylin += 0.04 * grain
    nuclei = _nuclei(zones, morphology.density, rng, shape)

    red = _sharpen(_enlarge(zones.bleeding, shape) + 0.12 * fibre, 0.5, 0.10)
    red *= _texture("red cells", rng, shape)
    _vessels(zones, rng, eosin, nuclei, red)
    np.maximum(haematoxylin, nuclei, out=haematoxylin)
    free = 1.0 - 0.85 * np.minimum(red, 1.0)
    haematoxylin *= free * tissue * morphology.stain[0]
    eosin *= free * tissue * morphology.stain[1]
    red *= tissue
    return _develop(haematoxylin, eosin, red, rng)


def _develop(haematoxylin: Field, eosin: Field, red: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pigment concentrations to RGB by Beer–Lambert, with the faint noise of a camera."""
    rgb = np.empty((*haematoxylin.shape, 3), dtype=np.uint8)
    noise = _texture("noise", rng, haematoxylin.shape)
    for channel in range(3):
        density = haematoxylin * HAEMATOXYLIN[channel]
        density += eosin * EOSIN[channel]
        density += red * HAEMOGLOBIN[channel]
        np.exp(-density, out=density)
        density *= 243.0
        density += noise
        np.clip(density, 0, 255, out=density)
        rgb[..., channel] = density
    return rgb


def _zones(morphology: Morphology, rng: np.random.Generator, rows: int, columns: int) -> _Zones:
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    # A power above 2 gives a rounded square: resections fill a slide better than discs do.
    radius = (np.abs(x) ** 3 + np.abs(y * rng.uniform(0.95, 1.15)) ** 3) ** (1 / 3)
    radius += 0.07 * _smooth(rng, rows, columns, 14) + 0.02 * _smooth(rng, rows, columns, 3)
    tissue = _sharpen((0.84 - radius).astype(np.float32), 0.0, 0.03)
    inside = tissue > 0.5
    field = _smooth(rng, rows, columns, 14) + 0.15 * _smooth(rng, rows, columns, 3)
    necrosis = _sharpen(field, _top(field, inside, morphology.necrosis_share), 0.08)
    vascular = _sharpen(-field, _top(-field, inside, morphology.vascular_share), 0.08)
    rim = _sharpen(field, _top(field, inside, min(1.0, morphology.necrosis_share + 0.05)), 0.06) - necrosis
    clots = _smooth(rng, rows, columns, 2.5)
    bleeding = np.zeros_like(tissue)
    for zone, share in ((necrosis, morphology.necrosis_bleeding), (vascular, morphology.vascular_bleeding)):
        here = inside & (zone > 0.5)
        bleeding = np.maximum(bleeding, zone * _sharpen(clots, _top(clots, here, share), 0.15))
    return _Zones(tissue, necrosis, vascular, np.maximum(rim, 0), bleeding)


def _nuclei(zones: _Zones, density: float, rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Haematoxylin of all nuclei: how many lie in a coarse cell is Poisson, where is uniform."""
    per_mm2 = density * (1.0 + 0.8 * zones.vascular) * (1.0 - 0.85 * zones.necrosis) + 2.5 * density * zones.rim
    expected = per_mm2 * (zones.tissue > 0.5) * (CELL * MPP / 1000.0) ** 2
    row, column = np.nonzero(np.ones_like(expected))
    count = rng.poisson(expected).ravel()
    row, column = np.repeat(row, count), np.repeat(column, count)
    dying = zones.necrosis[row, column] > 0.5
    top = (row * CELL + rng.integers(0, CELL, row.size)).tolist()
    left = (column * CELL + rng.integers(0, CELL, row.size)).tolist()
    kind = rng.integers(0, len(_stamps()) // 2, row.size) + dying * (len(_stamps()) // 2)
    margin = 40
    plane = np.zeros((shape[0] + margin, shape[1] + margin), dtype=np.float32)
    for y, x, k in zip(top, left, kind.tolist(), strict=True):
        stamp = _stamps()[k]
        spot = plane[y : y + stamp.shape[0], x : x + stamp.shape[1]]
        np.maximum(spot, stamp[: spot.shape[0], : spot.shape[1]], out=spot)
    return plane[: shape[0], : shape[1]]


def _vessels(zones: _Zones, rng: np.random.Generator, eosin: Field, nuclei: Field, red: Field) -> None:
    """Draw vessels into the vascular zone: a lumen, a proliferated wall, nuclei along it."""
    row, column = np.nonzero((zones.vascular > 0.7) & (zones.tissue > 0.5))
    if row.size == 0:
        return
    for index in rng.choice(row.size, size=max(1, row.size // 90)):
        radius = rng.uniform(12, 26)
        side = int(4 * radius)
        top, left = row[index] * CELL - side // 2, column[index] * CELL - side // 2
        if min(top, left) < 0 or top + side > eosin.shape[0] or left + side > eosin.shape[1]:
            continue
        box = (slice(top, top + side), slice(left, left + side))
        y, x = np.mgrid[-2 : 2 : side * 1j, -2 : 2 : side * 1j].astype(np.float32)
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.7)
        across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        distance = np.hypot(across * stretch, along)
        wall = np.exp(-(((distance - 1.15) / 0.28) ** 2)).astype(np.float32)
        lumen = _sharpen(0.9 - distance, 0.0, 0.12)
        eosin[box] = (eosin[box] + 0.35 * wall) * (1 - 0.85 * lumen)
        nuclei[box] *= 1 - lumen
        red[box] *= 1 - 0.6 * lumen
        phase = np.arctan2(along, across)
        around = _sharpen(np.sin(7 * phase + radius) + np.sin(4 * phase + 2 * radius), 0.7, 0.5) * wall
        np.maximum(nuclei[box], 0.9 * around, out=nuclei[box])


@cache
def _stamps() -> tuple[Field, ...]:
    """96 nuclei as haematoxylin maps: the first half living ones, the second half shrunken and dark."""
    rng = np.random.default_rng(20230)
    stamps = []
    for index in range(96):
        dying = index >= 48
        long = rng.uniform(2.5, 4.5) if dying else rng.gamma(16.0, 0.45)
        short = long * rng.uniform(0.55, 0.95)
        half = int(np.ceil(long)) + 2
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        angle = rng.uniform(0, np.pi)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        distance = np.hypot(along / long, across / short)
        chromatin = rng.uniform(0.7, 1.3, distance.shape)
        membrane = 1.0 + 0.18 * np.exp(-(((distance - 0.85) / 0.18) ** 2))
        strength = 1.3 if dying else rng.uniform(0.65, 1.15)
        stamps.append((strength * chromatin * membrane * _sharpen(1.0 - distance, 0.0, 0.18)).astype(np.float32))
    return tuple(stamps)


@cache
def _texture_tile(name: str) -> Field:
    """A (TEXTURE, TEXTURE) texture that repeats without a seam; mean 0 and sd 1, but for the red cells (0 to 1)."""
    rng = np.random.default_rng(sorted(_TEXTURES).index(name) + 1)
    frequency_y = np.fft.fftfreq(TEXTURE)[:, None]
    frequency_x = np.fft.rfftfreq(TEXTURE)[None, :]
    spectrum = np.fft.rfft2(rng.standard_normal((TEXTURE, TEXTURE)))
    if name == "red cells":
        return _red_cells(rng)
    low, high = _TEXTURES[name]
    frequency = np.hypot(frequency_y, frequency_x)
    power = np.exp(-((frequency * high) ** 2)) - np.exp(-((frequency * low) ** 2))
    if name == "fibre":
        power *= np.exp(-((frequency_y * 14.0) ** 2)) + np.exp(-((frequency_x * 22.0) ** 2))
    made = np.fft.irfft2(spectrum * power, s=(TEXTURE, TEXTURE))
    return ((made - made.mean()) / made.std()).astype(np.float32)


_TEXTURES = {"fibre": (160.0, 7.0), "grain": (12.0, 2.5), "noise": (2.0, 0.0), "red cells": (0.0, 0.0)}
"""Longest and shortest wavelength of each texture, in pixels (one e-fold of its spectrum)."""


def _red_cells(rng: np.random.Generator) -> Field:
    """Packed discs of about 7 µm on a jittered lattice, each a little brighter in its middle."""
    pitch = 16
    count = TEXTURE // pitch
    plane = np.zeros((TEXTURE, TEXTURE), dtype=np.float32)
    reach = np.arange(-9, 10)
    y, x = np.meshgrid(reach, reach, indexing="ij")
    for row in range(count):
        for column in range(count):
            centre = np.array([row, column + 0.5 * (row % 2)]) * pitch + rng.uniform(-3, 3, 2)
            distance = np.hypot(y, x) / rng.uniform(6.5, 8.5)
            disc = rng.uniform(0.75, 1.0) * _sharpen((1 - distance).astype(np.float32), 0.0, 0.2)
            disc *= 0.85 + 0.15 * np.minimum(distance, 1)
            rows, columns = (int(centre[0]) + y) % TEXTURE, (int(centre[1]) + x) % TEXTURE
            plane[rows, columns] = np.maximum(plane[rows, columns], disc)
    return (0.25 + 0.75 * plane).astype(np.float32)


def _texture(name: str, rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """The named texture over a whole slide, shifted and flipped at random."""
    tile = np.roll(_texture_tile(name), rng.integers(0, TEXTURE, 2), axis=(0, 1))
    tile = tile[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    repeats = (-(-shape[0] // TEXTURE), -(-shape[1] // TEXTURE))
    return np.tile(tile, repeats)[: shape[0], : shape[1]]


def _smooth(rng: np.random.Generator, rows: int, columns: int, scale: float) -> Field:
    """Smooth noise (rows, columns), mean 0 and sd 1, correlated over about ``scale`` cells."""
    coarse = rng.standard_normal((int(rows / scale) + 4, int(columns / scale) + 4)).astype(np.float32)
    made = _enlarge(coarse, (rows, columns))
    return (made - made.mean()) / made.std()


def _enlarge(coarse: Field, shape: tuple[int, int]) -> Field:
    """Smooth interpolation to ``shape``, as two matrix products: BLAS does it faster than any resize."""
    up_y = _interpolation(coarse.shape[0], shape[0])
    up_x = _interpolation(coarse.shape[1], shape[1])
    return np.asarray(up_y @ coarse @ up_x.T, dtype=np.float32)


@cache
def _interpolation(coarse: int, fine: int) -> Field:
    """(fine, coarse) weights of quadratic B-splines: smooth, within the range of the values, rows sum to 1."""
    position = (np.arange(fine) + 0.5) * coarse / fine - 0.5
    distance = np.abs(position[:, None] - np.arange(coarse)[None, :])
    weight = np.where(distance < 0.5, 0.75 - distance**2, 0.5 * np.maximum(1.5 - distance, 0) ** 2)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def _top(field: Field, where: NDArray[np.bool_], share: float) -> float:
    """The value above which ``share`` of the cells in ``where`` lie."""
    if not where.any():
        return float("inf")
    return float(np.quantile(field[where], 1.0 - share))


def _sharpen(field: Field, threshold: float, width: float) -> Field:
    """0 below the threshold and 1 above it, with a linear edge of the given width."""
    return np.clip((field - threshold) / width + 0.5, 0.0, 1.0)
