"""Cross-attention on drawn bags."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train.attention import CrossAttention, _Pool

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)
seeds = st.integers(0, 10_000)


def drawn(lengths, seed, *, dim=5):
    generator = torch.Generator().manual_seed(seed)
    bags = [torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in lengths]
    return bags, generator


@SETTINGS
@given(lengths, seeds)
def test_permuting_tiles_changes_nothing(lengths, seed):
    bags, generator = drawn(lengths, seed)
    module = CrossAttention(feature_dim=5, dim=8).double()
    query = torch.randn(len(bags), 1, 8, generator=generator, dtype=torch.float64)
    shuffled = [bag[torch.randperm(len(bag), generator=generator)] for bag in bags]
    torch.testing.assert_close(module(query, bags), module(query, shuffled))


@SETTINGS
@given(lengths, seeds)
def test_permuting_bags_permutes_the_output(lengths, seed):
    bags, generator = drawn(lengths, seed)
    module = CrossAttention(feature_dim=5, dim=8).double()
    query = torch.randn(len(bags), 1, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(bags), generator=generator)
    torch.testing.assert_close(module(query, bags)[order], module(query[order], [bags[i] for i in order]))


@SETTINGS
@given(lengths, seeds)
def test_repeating_every_tile_changes_nothing(lengths, seed):
    """Only shares of tiles count, not their number."""
    bags, generator = drawn(lengths, seed)
    module = CrossAttention(feature_dim=5, dim=8).double()
    query = torch.randn(len(bags), 1, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(module(query, bags), module(query, [bag.repeat(3, 1) for bag in bags]))


@settings(SETTINGS, max_examples=8)
@given(lengths, st.sampled_from([0.0, 0.4]), seeds)
def test_gradient_equals_finite_differences(lengths, dropout, seed):
    bags, generator = drawn(lengths, seed)
    u = torch.randn(len(bags), 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)

    def pool(u):
        torch.manual_seed(seed)  # the same weights are dropped each time
        return _Pool.apply(u, bags, dropout)

    assert torch.autograd.gradcheck(pool, u)
