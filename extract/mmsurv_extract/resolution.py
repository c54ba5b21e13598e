"""A slide's resolution: how many µm one level-0 pixel is, and who says so.

Owns the order in which sources are believed and the refusal of absurd values. Reads properties by name only, so it
knows no slide format and is tested without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mmsurv.errors import MppError

MPP_RANGE = (0.05, 20.0)
"""µm per pixel a scanner can have: 0.05 is twice as fine as a 100x objective gives, 20 is a macro photograph."""
MAX_ANISOTROPY = 0.02
"""Largest relative difference of x and y that still counts as square pixels."""

_TIFF_UNIT_UM = {"centimeter": 10_000.0, "inch": 25_400.0}


@dataclass(frozen=True, kw_only=True)
class MppOptions:
    """What the user says about resolution."""

    fill: float | None = None
    """µm per pixel for slides that do not say (``--mpp``)."""
    override: float | None = None
    """µm per pixel for every slide of the job, whatever it says (``--override-mpp``)."""
    from_objective: bool = False
    """Derive a missing value from the objective power, 10 / power: a guess, so it must be asked for."""

    def __post_init__(self) -> None:
        for option, value in (("--mpp", self.fill), ("--override-mpp", self.override)):
            if value is not None and not _plausible(value):
                raise ValueError(
                    f"{option} is µm per pixel at level 0, {MPP_RANGE[0]} to {MPP_RANGE[1]}, not {value:g}."
                )
        if self.fill is not None and self.override is not None:
            raise ValueError("--mpp fills a gap and --override-mpp replaces: give one of them.")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """µm per level-0 pixel, and its source."""

    mpp: float
    source: str
    """"property", "tiff-resolution", "option", "override" or "objective"."""


def resolve_mpp(properties: Mapping[str, str], options: MppOptions, *, name: str) -> Resolution:
    """Decide a slide's resolution.

    Believed in this order: the override; the slide's own mpp; the TIFF resolution, if plausible; ``--mpp``; the
    objective power, if asked for.

    Args:
        properties: the slide's properties under OpenSlide's names.
        options: what the user said.
        name: the slide, for messages.

    Raises:
        MppError: nobody says, pixels are not square, or the slide's own value is absurd. An absurd value is refused
            even with ``--mpp``: only an override replaces what a slide says.
    """
    if options.override is not None:
        return Resolution(mpp=options.override, source="override")
    own = _own_mpp(properties, name)
    if own is not None:
        return own
    tiff = _tiff_mpp(properties)
    if tiff is not None and all(map(_plausible, tiff)):
        return Resolution(mpp=_square(*tiff, name), source="tiff-resolution")
    if options.fill is not None:
        return Resolution(mpp=options.fill, source="option")
    power = _number(properties.get("openslide.objective-power"))
    if options.from_objective and power:
        return Resolution(mpp=_require_plausible(10.0 / power, name), source="objective")
    raise MppError(_missing(name, power, tiff[0] if tiff else None))


def _own_mpp(properties: Mapping[str, str], name: str) -> Resolution | None:
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    x, y = x or y, y or x
    if x is None or y is None:
        return None
    _require_plausible(x, name)
    _require_plausible(y, name)
    # For a plain TIFF, OpenSlide makes its mpp property from the TIFF resolution.
    plain = properties.get("openslide.vendor") == "generic-tiff"
    return Resolution(mpp=_square(x, y, name), source="tiff-resolution" if plain else "property")


def _square(x: float, y: float, name: str) -> float:
    if abs(x - y) > MAX_ANISOTROPY * max(x, y):
        raise MppError(
            f"{name}: its pixels are not square, {x:g} × {y:g} µm. If that is wrong, give the truth: --override-mpp UM."
        )
    return math.sqrt(x * y) if x != y else x


def _tiff_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """µm per pixel across and down, by the TIFF resolution tags."""
    unit = _TIFF_UNIT_UM.get(properties.get("tiff.ResolutionUnit", "").lower())
    across, down = (_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
    across, down = across or down, down or across
    return (unit / across, unit / down) if unit and across and down else None


def _number(text: str | None) -> float | None:
    """A positive finite number, or None for a property that is missing, empty, zero or no number."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _plausible(mpp: float) -> bool:
    return MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def _require_plausible(mpp: float, name: str) -> float:
    if not _plausible(mpp):
        raise MppError(
            f"{name}: it says {mpp:.6g} µm per pixel, which no scanner has (expected {MPP_RANGE[0]:g} to "
            f"{MPP_RANGE[1]:g}). Give the true value: --override-mpp UM."
        )
    return mpp


def _missing(name: str, power: float | None, tiff: float | None) -> str:
    absurd = f" (its TIFF resolution would be {tiff:.6g} µm, which is absurd)" if tiff else ""
    guess = f", or --mpp-from-objective to guess {10 / power:g} from its {power:g}x objective" if power else ""
    return f"{name}: it does not say its µm per pixel{absurd}. Give it: --mpp UM{guess}."
