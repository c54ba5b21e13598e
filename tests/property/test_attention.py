"""Cross-attention on drawn bags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train import blocks, pool
from mmsurv_train.attention import CrossAttention

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
    query = torch.randn(1, len(bags), 1, 8, generator=generator, dtype=torch.float64)
    shuffled = [bag[torch.randperm(len(bag), generator=generator)] for bag in bags]
    torch.testing.assert_close(module(query, bags), module(query, shuffled))


@SETTINGS
@given(lengths, seeds)
def test_permuting_bags_permutes_the_output(lengths, seed):
    bags, generator = drawn(lengths, seed)
    module = CrossAttention(feature_dim=5, dim=8).double()
    query = torch.randn(1, len(bags), 1, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(bags), generator=generator)
    torch.testing.assert_close(module(query, bags)[:, order], module(query[:, order], [bags[i] for i in order]))


@SETTINGS
@given(lengths, seeds)
def test_repeating_every_tile_changes_nothing(lengths, seed):
    """Only shares of tiles count, not their number."""
    bags, generator = drawn(lengths, seed)
    module = CrossAttention(feature_dim=5, dim=8).double()
    query = torch.randn(1, len(bags), 1, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(module(query, bags), module(query, [bag.repeat(3, 1) for bag in bags]))


@settings(SETTINGS, max_examples=10)
@given(lengths, st.data(), st.sampled_from([0.0, 0.4]), st.booleans(), st.integers(1, 50), seeds)
def test_gradient_equals_finite_differences(lengths, data, dropout, kept, block, seed):
    """Of every row of u, their number drawn for each bag, with and without the weights kept, in blocks of any size."""
    bags, generator = drawn(lengths, seed)
    rows = [data.draw(st.integers(0, 3)) for _ in bags]
    u = torch.randn(sum(rows), 5, generator=generator, dtype=torch.float64, requires_grad=True)
    factors = [
        torch.empty(n, r, dtype=torch.float64).bernoulli_(1 - dropout, generator=generator) / (1 - dropout)
        for n, r in zip(lengths, rows, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "KEPT_BYTES", 1 << 20 if kept else 0)
        patch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 5 * block)

        def pooled(u):
            keep = factors.__getitem__ if dropout else None
            return pool.softmax_pool(u, rows, blocks.ListedBags(bags), keep=keep)

        if sum(rows):
            assert torch.autograd.gradcheck(pooled, u)
        else:
            assert pooled(u)[0].shape == (0, 5)


@SETTINGS
@given(lengths, st.integers(1, 4), st.integers(1, 60), seeds)
def test_pooling_is_softmax_times_tiles(lengths, rows, block, seed):
    bags, generator = drawn(lengths, seed)
    u = torch.randn(len(bags), rows, 5, generator=generator, dtype=torch.float64) * 5
    weights = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 5 * block)
        listed = blocks.ListedBags(bags)
        z, s = pool.softmax_pool(u.flatten(0, 1), [rows] * len(bags), listed, weights=weights)
        (each,) = pool.softmax_pool_each([u], listed)
    for b, bag in enumerate(bags):
        expected = torch.softmax(u[b] @ bag.T, 1)
        torch.testing.assert_close(weights[b], expected)
        torch.testing.assert_close(z.view_as(u)[b], expected @ bag)
    assert torch.equal(s, torch.ones_like(s))
    torch.testing.assert_close(each, z.view_as(u))


@SETTINGS
@given(lengths, st.integers(1, 40), seeds)
def test_who_else_is_asked_changes_no_bit(lengths, block, seed):
    bags, generator = drawn(lengths, seed)
    us = [torch.randn(len(bags), rows, 5, generator=generator) for rows in (1, 4, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 5 * block)
        listed = blocks.ListedBags([bag.half() for bag in bags])
        together = pool.softmax_pool_each(us, listed)
        for u, z in zip(us, together, strict=True):
            assert torch.equal(pool.softmax_pool_each([u], listed)[0], z)
