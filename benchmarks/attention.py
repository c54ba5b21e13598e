"""Speed and memory of exact attention over ragged bags against forming keys and values.

    python benchmarks/attention.py [--bags 64] [--tiles 2000] [--dim 2048] [--width 256] [--rounds 5]

Forward and backward over made-up float16 bags, one query a bag, gradients for the queries and the parameters only.
Theirs is the faster of two: all bags as one float32 tensor (padded; these bags are of one length, so that nothing is
wasted), and bag after bag; each projects keys and values and calls torch's scaled_dot_product_attention. All sides
take turns on the same bags and threads, and the medians are compared; so are values and gradients, whose greatest
difference is printed as a share of the greatest value, so that it is seen that all compute one function.
    ratio         theirs ÷ ours, seconds, with one head; ratio_4_heads: with four
    bound_share   seconds to convert the same bags to float32 twice ÷ ours: what any such attention has to do, once
                  forward and once backward. Block by block into one buffer, with the best of a few block sizes
    memory_share  greatest anonymous memory (RssAnon, looked at every millisecond) that ours takes beside the bags ÷
                  that of the padded way, each in a process of its own
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from field import Projections, padded, per_bag
from measure import PeakMemory, alternate, facts, in_child
from torch import Tensor

from mmsurv_train.attention import CrossAttention

TARGETS = {"ratio": 6.0, "ratio_4_heads": 6.0, "bound_share": 0.25}
LIMITS = {"memory_share": 0.05, "memory_share_4_heads": 0.05}
"""Smaller is better."""
HEADS = (1, 4)
BLOCK_ROWS = (32, 64, 128, 256, 512, 1024)
"""Of the stream bound; the best is taken."""
SAME = 1e-4
"""Of the greatest value: more would be another function, not rounding."""

Step = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Result:
    """Of one number of heads."""

    difference: float
    seconds: dict[str, float]
    memory_mb: dict[str, float]

    @property
    def shares(self) -> dict[str, float]:
        theirs, ours = min(self.seconds["padded"], self.seconds["per bag"]), self.seconds["ours"]
        return {
            "ratio": round(theirs / ours, 2),
            "bound_share": round(self.seconds["convert"] / ours, 3),
            "memory_share": round(self.memory_mb["ours"] / self.memory_mb["padded"], 4),
        }


def make_bags(n_bags: int, n_tiles: int, dim: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n_tiles, dim, generator=generator).half() for _ in range(n_bags)]


def make_steps(bags: list[Tensor], heads: int, width: int) -> dict[str, Step]:
    """Forward and backward of each side: output, then gradients of queries, key and value weights and value bias."""
    torch.manual_seed(0)
    attention = CrossAttention(feature_dim=bags[0].shape[1], dim=width, heads=heads)
    query_MBQE = torch.randn(1, len(bags), 1, width, requires_grad=True)
    weight_MBQE = torch.randn(1, len(bags), 1, width)
    key, value, bias = attention.key.weight, attention.value.weight, attention.value.bias
    weights = Projections(key[0], value[0], bias[0], heads)

    def step(out_BQE: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(out_BQE, [query_MBQE, key, value, bias], weight_MBQE.view_as(out_BQE))
        return [out_BQE.detach().flatten(), *(gradient.flatten() for gradient in gradients)]

    return {
        "ours": lambda: step(attention(query_MBQE, bags)),
        "padded": lambda: step(padded(query_MBQE[0], bags, weights)),
        "per bag": lambda: step(per_bag(query_MBQE[0], bags, weights)),
    }


def convert_twice(bags: list[Tensor], rows: int) -> None:
    buffer_ND = torch.empty(rows, bags[0].shape[1])
    for _ in range(2):
        for bag in bags:
            for block_ND in bag.split(rows):
                buffer_ND[: len(block_ND)].copy_(block_ND)


def measure(bags: list[Tensor], heads: int, given: argparse.Namespace) -> Result:
    steps = make_steps(bags, heads, given.width)
    ours = steps["ours"]()
    difference = max(
        float((mine - other).abs().max() / other.abs().max())
        for side in ("padded", "per bag")
        for mine, other in zip(ours, steps[side](), strict=True)
    )
    print(f"{heads} heads: values and gradients differ by at most {difference:.1e} of the greatest")
    assert difference < SAME, "ours and theirs are not the same function"
    convert = {f"convert {rows}": lambda rows=rows: convert_twice(bags, rows) for rows in BLOCK_ROWS}
    times = alternate(given.rounds, {**steps, **convert})
    print("  " + ", ".join(f"{name} {taken:.3f} s" for name, taken in times.items()), flush=True)
    times["convert"] = min(times.pop(name) for name in convert)
    memory = {side: round(memory_of(side, heads, given) / 1e6, 1) for side in ("ours", "padded")}
    print(f"  memory beside the bags: ours {memory['ours']} MB, padded {memory['padded']} MB", flush=True)
    return Result(difference, {name: round(taken, 4) for name, taken in times.items()}, memory)


def memory_of(side: str, heads: int, given: argparse.Namespace) -> int:
    """Peak extra bytes of one step in a process of its own."""
    sizes = {name: str(getattr(given, name)) for name in ("bags", "tiles", "dim", "width", "threads")}
    options = [text for name, value in sizes.items() for text in (f"--{name}", value)]
    return in_child(__file__, "--peak", side, "--heads", str(heads), *options)["extra"]


def peak(side: str, heads: int, bags: list[Tensor], width: int) -> int:
    make_steps(bags[:1], heads, width)[side]()  # what is loaded at the first call is not the step's
    step = make_steps(bags, heads, width)[side]
    with PeakMemory() as memory:
        step()
    return memory.extra


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bags", type=int, default=64)
    parser.add_argument("--tiles", type=int, default=2000, help="of each bag")
    parser.add_argument("--dim", type=int, default=2048, help="of the features")
    parser.add_argument("--width", type=int, default=256, help="of queries, keys and values")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--heads", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    bags = make_bags(given.bags, given.tiles, given.dim)
    if given.peak:
        print(json.dumps({"extra": peak(given.peak, given.heads, bags, given.width)}))
        return
    found = {heads: measure(bags, heads, given) for heads in HEADS}
    shares = {
        key + ("" if heads == 1 else f"_{heads}_heads"): share
        for heads, result in found.items()
        for key, share in result.shares.items()
    }
    result = {
        "benchmark": "attention",
        **shares,
        "target": TARGETS | LIMITS,
        "met": all(
            (shares[key] < least) if "memory" in key else (shares[key] >= least) for key, least in TARGETS.items()
        ),
        "greatest_difference": max(result.difference for result in found.values()),
        "seconds": {heads: result.seconds for heads, result in found.items()},
        "memory_mb": {heads: result.memory_mb for heads, result in found.items()},
        "bags": [given.bags, given.tiles, given.dim, "float16"],
        "width": given.width,
        "rounds": given.rounds,
        "data": "made-up features, random weights",
        **facts(given.threads),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
