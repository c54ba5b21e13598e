"""Speed of our encoder against eager torchvision, on the same CPU, and how far their features are apart.

    python benchmarks/encoder.py [--encoder resnet50] [--batch 32] [--rounds 7] [--threads N]

Both sides turn the same uint8 tiles into float32 features with the same (random) weights, the same threads and
inference mode. Theirs is torchvision's model as it comes: NCHW, batch normalisation as layers, and the usual
``(x / 255 - mean) / std``. The sides take turns and the medians are compared. The last line is one JSON object;
``ratio`` is our speed over theirs, ``max_rel_diff`` is max |ours - theirs| / max |theirs|.
"""

from __future__ import annotations

import argparse
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

from mmsurv_extract._torchvision import models, torchvision_version
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder

TARGET_RATIO = 1.5
TARGET_REL_DIFF = 1e-4
TILE_PX = 224


def eager_torchvision(encoder: Encoder) -> Callable[[np.ndarray], np.ndarray]:
    """torchvision's own ResNet with the weights of ``encoder`` (unfolded) and no classifier."""
    model = models.get_model(encoder.name, weights=None).eval()
    model.fc = nn.Identity()
    model.load_state_dict(encoder.trunk.state_dict())
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))

    def encode(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().float() / 255
            return model((x - mean) / std).numpy()

    return encode


def seconds(encode: Callable[[np.ndarray], np.ndarray], tiles: np.ndarray) -> float:
    start = time.perf_counter()
    encode(tiles)
    return time.perf_counter() - start


def tissue_like(n: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8: coloured blocks under noise, since the speed does not depend on what is in a tile."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(80, 230, (n, 28, 28, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return blocks + rng.integers(0, 25, blocks.shape, dtype=np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", default="resnet50", choices=[f"resnet{n}" for n in (18, 34, 50, 101, 152)])
    parser.add_argument("--batch", type=int, default=32, metavar="TILES")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    ours = build_encoder(EncoderSettings(name=options.encoder, weights="random"))
    theirs = eager_torchvision(
        build_encoder(EncoderSettings(name=options.encoder, weights="random", fold=False, channels_last=False))
    )
    tiles = tissue_like(options.batch)
    expected = theirs(tiles)
    max_rel_diff = float(np.abs(ours(tiles) - expected).max() / np.abs(expected).max())
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(options.rounds):
        for side, encode in (("ours", ours), ("theirs", theirs)):
            times[side].append(seconds(encode, tiles))
        print(f"round {number + 1}: ours {times['ours'][-1]:.3f} s, torchvision {times['theirs'][-1]:.3f} s")

    speed = {side: options.batch / statistics.median(values) for side, values in times.items()}
    ratio = speed["ours"] / speed["theirs"]
    result = {
        "benchmark": "encoder",
        "ratio": round(ratio, 3),
        "target": TARGET_RATIO,
        "max_rel_diff": max_rel_diff,
        "max_rel_diff_target": TARGET_REL_DIFF,
        "met": ratio >= TARGET_RATIO and max_rel_diff < TARGET_REL_DIFF,
        "tiles_per_second": {side: round(value, 2) for side, value in speed.items()},
        "encoder": options.encoder,
        "weights": ours.weights_description,
        "batch": options.batch,
        "rounds": options.rounds,
        "threads": options.threads,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "torchvision": torchvision_version,
        "python": platform.python_version(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
