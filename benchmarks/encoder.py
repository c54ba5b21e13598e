"""Speed of our encoder against eager torchvision, on the same CPU, and how far their features are apart.

    python benchmarks/encoder.py [--encoder resnet50] [--batch 32] [--rounds 7] [--threads N] [--compile | --no-compile]

All sides turn the same uint8 tiles into float32 features with the same (random) weights, the same threads and
inference mode. Theirs is torchvision's model as it comes: NCHW, batch normalisation as layers, the usual
``(x / 255 - mean) / std``, and the whole batch at once; ``theirs in blocks`` gets the batch cut as ours cuts it. Ours
is the encoder without a compiler and, where a C++ compiler works (or --compile demands it), with ``compile = true``. A
float32 matrix product of 2048 × 2048 takes its turn beside them: what the processor can do at best. The sides take
turns and the medians are compared.

The last line is one JSON object. ``ratio`` is the speed of the faster of ours over theirs, ``max_rel_diff`` the larger
max |ours - theirs| / max |theirs|, ``share_of_gemm`` the arithmetic of a forward pass per second over that of the
matrix product.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import cpu_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmsurv.errors import EncoderError
from mmsurv_extract._torchvision import models, torchvision_version
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder, tiles_per_block

TARGET_RATIO = 2.0
TARGET_REL_DIFF = 1e-4
TILE_PX = 224
GEMM_SIDE = 2048
Encode = Callable[[np.ndarray], object]


def eager_torchvision(settings: EncoderSettings) -> tuple[Encode, float]:
    """torchvision's own ResNet with the same weights and no classifier, and its GFLOP per tile."""
    plain = build_encoder(dataclasses.replace(settings, fold=False, channels_last=False))
    model = models.get_model(plain.name, weights=None).eval()
    model.fc = nn.Identity()
    model.load_state_dict(plain.trunk.state_dict())
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (plain.mean, plain.std))

    def encode(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().float() / 255
            return model((x - mean) / std).numpy()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, TILE_PX, TILE_PX))
    return encode, counter.get_total_flops() / 1e9


def our_encoders(settings: EncoderSettings, compiled: bool | None) -> dict[str, Encoder]:
    """``ours``, and ``compiled`` if asked for (True) or possible (None)."""
    sides = {"ours": build_encoder(settings)}
    if compiled is not False:
        try:
            sides["compiled"] = build_encoder(dataclasses.replace(settings, compile=True))
        except EncoderError as error:
            if compiled:
                raise
            print(f"without a compiler: {error}")
    return sides


def matrix_product() -> Callable[[np.ndarray], object]:
    a = torch.rand(GEMM_SIDE, GEMM_SIDE)
    return lambda _: a @ a


def seconds(encode: Encode, tiles: np.ndarray) -> float:
    start = time.perf_counter()
    encode(tiles)
    return time.perf_counter() - start


def tissue_like(n: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8: coloured blocks under noise, since the speed does not depend on what is in a tile."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(80, 230, (n, 28, 28, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return blocks + rng.integers(0, 25, blocks.shape, dtype=np.uint8)


def timed(sides: dict[str, Encode], tiles: np.ndarray, rounds: int) -> dict[str, float]:
    """Median seconds of each side, in turns, after one unmeasured run of each."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, encode in sides.items():
            times[side].append(seconds(encode, tiles))
        print(f"round {number}: " + ", ".join(f"{side} {values[-1]:.3f} s" for side, values in times.items()))
    return {side: statistics.median(values[1:]) for side, values in times.items()}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", default="resnet50", choices=[f"resnet{n}" for n in (18, 34, 50, 101, 152)])
    parser.add_argument("--batch", type=int, default=32, metavar="TILES")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help="default: if possible")
    return parser.parse_args()


def main() -> int:
    given = options()
    torch.set_num_threads(given.threads)
    settings = EncoderSettings(name=given.encoder, weights="random")
    ours = our_encoders(settings, given.compile)
    theirs, gflop = eager_torchvision(settings)
    tiles = tissue_like(given.batch)
    expected = np.asarray(theirs(tiles))
    diffs = {
        side: float(np.abs(encode(tiles) - expected).max() / np.abs(expected).max()) for side, encode in ours.items()
    }

    n_block = tiles_per_block(TILE_PX, TILE_PX)
    blocks = {"theirs in blocks": lambda tiles: [theirs(tiles[i : i + n_block]) for i in range(0, len(tiles), n_block)]}
    took = timed({**ours, "theirs": theirs, **blocks, "gemm": matrix_product()}, tiles, given.rounds)
    batched = (*ours, "theirs", *blocks)
    ratios = {side: took["theirs"] / took[side] for side in ours}
    rates = {side: given.batch * gflop / took[side] for side in batched}
    rates["gemm"] = 2 * GEMM_SIDE**3 / 1e9 / took["gemm"]
    result = {
        "benchmark": "encoder",
        "ratio": round(max(ratios.values()), 3),
        "target": TARGET_RATIO,
        "ratios": {side: round(value, 3) for side, value in ratios.items()},
        "ratio_to_theirs_in_blocks": round(took["theirs in blocks"] / min(took[side] for side in ours), 3),
        "max_rel_diff": max(diffs.values()),
        "max_rel_diff_target": TARGET_REL_DIFF,
        "met": max(ratios.values()) >= TARGET_RATIO and max(diffs.values()) < TARGET_REL_DIFF,
        "tiles_per_second": {side: round(given.batch / took[side], 2) for side in batched},
        "gflop_per_tile": round(gflop, 2),
        "gflop_per_second": {side: round(value, 1) for side, value in rates.items()},
        "share_of_gemm": {side: round(rates[side] / rates["gemm"], 3) for side in batched},
        "encoder": given.encoder,
        "weights": ours["ours"].weights_description,
        "batch": given.batch,
        "rounds": given.rounds,
        "threads": given.threads,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "torchvision": torchvision_version,
        "python": platform.python_version(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
