"""Cross-attention at its edges."""

from __future__ import annotations

import pytest
import torch

from mmsurv_train import blocks, pool
from mmsurv_train.attention import AttentionPooling, CrossAttention


def bags_of(*lengths, dim=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(n, dim, generator=generator).to(dtype) for n in lengths]


@pytest.fixture
def module():
    torch.manual_seed(0)
    return CrossAttention(feature_dim=6, dim=8)


@pytest.fixture
def query():
    return torch.randn(1, 3, 1, 8, generator=torch.Generator().manual_seed(1))


def test_one_tile_gives_its_own_value(module, query):
    bags = bags_of(1, 1, 1)
    torch.testing.assert_close(module(query, bags)[:, :, 0], module.value(torch.cat(bags)[None]))


def test_a_bag_is_not_touched_by_its_neighbours(module, query):
    bags = bags_of(5, 1, 70)
    together = module(query, bags)
    for index, bag in enumerate(bags):
        torch.testing.assert_close(together[:, index : index + 1], module(query[:, index : index + 1], [bag]))


def test_small_blocks_give_the_same_value_and_gradient(module, query, monkeypatch):
    bags = bags_of(50, 50, 31)
    results = []
    for elements in (1 << 20, 6 * 7):
        monkeypatch.setitem(blocks.BLOCK_ELEMENTS, "cpu", elements)
        module.zero_grad()
        out = module(query, bags)
        out.square().sum().backward()
        results.append((out.detach(), module.key.weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e15])
def test_extreme_logits_stay_finite(module, query, scale):
    query = (query * scale).requires_grad_()
    out = module(query, bags_of(40, 3, 1))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(query.grad).all()


def test_half_precision_bags_are_accumulated_in_the_queries_dtype(module, query):
    bags = bags_of(3000, 17, 1, dtype=torch.float16)
    out = module(query, bags)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, module(query, [bag.float() for bag in bags]))


def test_standardised_features_are_folded_in(module, query):
    bags = [bag * torch.arange(1.0, 7) + 40 for bag in bags_of(30, 8, 2)]
    mean, sd = torch.cat(bags).mean(0), torch.cat(bags).std(0)
    expected = module(query, [(bag - mean) / sd for bag in bags])
    module.standardise_by(mean, sd)
    torch.testing.assert_close(module(query, bags), expected, atol=1e-4, rtol=1e-4)


def test_weights_sum_to_one_and_make_the_output(module, query):
    bags = bags_of(9, 4, 1)
    module.standardise_by(torch.full((6,), 0.3), torch.full((6,), 2.0))
    weights = []
    outs = module(query, bags, weights=weights)
    torch.testing.assert_close(outs, module(query, bags))
    assert [tuple(weight.shape) for weight in weights] == [(1, 1, 1, 9), (1, 1, 1, 4), (1, 1, 1, 1)]
    for bag, weight, out in zip(bags, weights, outs[0], strict=True):
        assert weight.sum().item() == pytest.approx(1, abs=1e-6)
        values = module.value((bag[None] - 0.3) / 2)
        torch.testing.assert_close(weight[0, 0] @ values[0], out)


def test_dropped_weights_are_scaled_and_take_the_value_bias_along(query):
    """With one tile, dropout either doubles the value, bias and all, or leaves nothing of it."""
    torch.manual_seed(3)
    module = CrossAttention(feature_dim=6, dim=8, dropout=0.5)
    module.standardise_by(torch.full((6,), 0.7), torch.full((6,), 3.0))
    bag = bags_of(1)[0]
    value = module.value((bag[None] - 0.7) / 3)[0]
    out = module(query[:, :1].expand(1, 200, 1, 8), [bag] * 200)[0, :, 0]
    dropped = (out == 0).all(1)
    assert 60 < dropped.sum() < 140
    torch.testing.assert_close(out[~dropped], (2 * value).expand(int((~dropped).sum()), -1))


def test_no_dropout_outside_training(query):
    module = CrossAttention(feature_dim=6, dim=8, dropout=0.9).eval()
    bags = bags_of(9, 4, 1)
    torch.testing.assert_close(module(query, bags), module(query, bags), atol=0, rtol=0)


def test_many_heads_form_keys_and_give_the_same(query):
    torch.manual_seed(0)
    module = CrossAttention(feature_dim=6, dim=8, heads=2)
    module.standardise_by(torch.full((6,), 0.3), torch.full((6,), 2.0))
    bags = bags_of(9, 4, 1)
    assert module.absorbs(1)
    assert not module.absorbs(2)
    twice = module(query.expand(1, 3, 2, 8), bags)  # two queries of two heads: no longer less work
    torch.testing.assert_close(twice[:, :, :1], module(query, bags))
    torch.testing.assert_close(twice[:, :, 1:], module(query, bags))
    torch.testing.assert_close(module(query.expand(1, 3, 2, 8), bags, weights=[]), twice)


def test_no_gradient_is_kept_for_tiles(module, query):
    bags = bags_of(9, 4, 1)
    module(query.requires_grad_(), bags).sum().backward()
    assert all(bag.grad is None for bag in bags)
    assert query.grad is not None


@pytest.mark.parametrize(
    ("bags", "message"),
    [
        (bags_of(4, 0, 2), "bag 1 has no tiles"),
        (bags_of(4, 1), "need as many bags"),
        ([*bags_of(4, 1), torch.zeros(2, 5)], r"bag 2 must have the shape \(tiles, 6\), not \(2, 5\)"),
    ],
)
def test_bags_that_cannot_be_attended_are_refused(module, query, bags, message):
    with pytest.raises(ValueError, match=message):
        module(query, bags)
    with pytest.raises(ValueError, match=message):
        module(query, bags, weights=[])


def test_dim_must_be_shared_evenly_by_heads():
    with pytest.raises(ValueError, match="must be a multiple of heads"):
        CrossAttention(feature_dim=6, dim=8, heads=3)


def test_networks_side_by_side_equal_each_alone():
    torch.manual_seed(0)
    bags = bags_of(9, 4, 1, 400)
    module = CrossAttention(feature_dim=6, dim=8, heads=2, networks=3)
    module.standardise_by(torch.rand(3, 6), torch.rand(3, 6) + 0.5)
    query = torch.randn(3, 4, 1, 8)
    together = module(query, bags)
    for m in range(3):
        alone = CrossAttention(feature_dim=6, dim=8, heads=2)
        alone.load_state_dict({name: value[m : m + 1] for name, value in module.state_dict().items()})
        torch.testing.assert_close(alone(query[m : m + 1], bags), together[m : m + 1])


def test_learnt_queries_pool_every_bag_alike_and_learn():
    torch.manual_seed(0)
    bags = bags_of(9, 4, 9)
    module = AttentionPooling(feature_dim=6, dim=8, queries=2)
    weights = []
    out = module.pool(bags, weights=weights)
    assert out.shape == (1, 3, 2, 8)
    assert [tuple(weight.shape) for weight in weights] == [(1, 2, 1, 9), (1, 2, 1, 4), (1, 2, 1, 9)]
    torch.testing.assert_close(module.pool([bags[1]]), out[:, 1:2])
    out.square().sum().backward()
    assert module.query.grad.abs().sum() > 0


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_weights_that_are_computed_again_give_the_same_gradient(query, monkeypatch, rate):
    """Beyond a size they are not kept from the forward pass: memory does not grow with the tiles."""
    bags = bags_of(50, 31, 50)
    results = []
    for kept in (1 << 20, 0):
        monkeypatch.setattr(pool, "KEPT_BYTES", kept)
        torch.manual_seed(0)
        module = CrossAttention(feature_dim=6, dim=8, heads=2, dropout=rate)
        asked = query.clone().requires_grad_()
        module(asked, bags).square().sum().backward()
        results.append((asked.grad, module.key.weight.grad, module.value.weight.grad))
    torch.testing.assert_close(results[0], results[1])


def test_a_later_block_with_far_greater_logits_takes_over(module, monkeypatch):
    """The softmax is taken relative to the first block's maximum until that is left behind: nothing overflows."""
    monkeypatch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 6 * 4)
    u = torch.tensor([[1.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]], requires_grad=True)
    bag = torch.randn(40, 6)
    bag[:, 0] = torch.linspace(0, 4000, 40)
    z, _ = pool.softmax_pool(u, [2], blocks.ListedBags([bag]))
    torch.testing.assert_close(z[0], bag[-1])
    torch.testing.assert_close(z[1], bag[0])
    z.sum().backward()
    assert torch.isfinite(u.grad).all()


def test_a_row_that_is_not_a_number_does_not_touch_the_others(monkeypatch):
    monkeypatch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 6 * 4)
    bag = torch.randn(40, 6)
    bag[:, 0] = torch.linspace(0, 4000, 40)
    healthy = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    both = torch.cat([healthy, torch.full((1, 6), float("nan"))])
    z, _ = pool.softmax_pool(both, [2], blocks.ListedBags([bag]))
    torch.testing.assert_close(z[0], pool.softmax_pool(healthy, [1], blocks.ListedBags([bag]))[0][0])
    assert torch.isnan(z[1]).all()


def test_a_second_derivative_is_refused_rather_than_wrong(module, query):
    out = module(query.requires_grad_(), bags_of(9, 4, 1))
    (gradient,) = torch.autograd.grad(out.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_bits_do_not_depend_on_the_number_of_threads(module, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "WORTH_THREADS", 0)
    bags = bags_of(50, 31, 50, 7, 1200, dtype=dtype)
    query = torch.randn(1, 5, 1, 8)
    found, threads = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            asked = query.clone().requires_grad_()
            out = module(asked, bags)
            out.square().sum().backward()
            found.append((out.detach(), asked.grad))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(threads)
    for more in found[1:]:
        torch.testing.assert_close(more, found[0], rtol=0, atol=0)


def test_an_error_in_one_thread_is_raised(module, monkeypatch):
    monkeypatch.setattr(blocks, "WORTH_THREADS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    class Broken(blocks.ListedBags):
        def pieces(self, order, *, readers=1):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        module(torch.randn(1, 5, 1, 8), Broken(bags_of(5, 4, 3, 2, 1)))


def test_features_far_from_zero_cost_the_gradient_no_digits():
    """What is alike in all tiles drops out of the softmax's gradient, and so must its rounding."""
    torch.manual_seed(0)
    bags = [torch.rand(500, 64).half() + 4 for _ in range(3)]
    module = CrossAttention(feature_dim=64, dim=16)
    query = torch.randn(1, 3, 1, 16)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        module = module.to(dtype)
        asked = query.to(dtype).requires_grad_()
        gradients.append(torch.autograd.grad(module(asked, bags).sum(), asked)[0].double())
    error = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    assert error < 2e-5
