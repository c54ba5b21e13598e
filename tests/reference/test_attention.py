"""Absorbed cross-attention against ``torch.nn.MultiheadAttention``, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmsurv_train.attention import CrossAttention

FEATURES, DIM = 10, 24
LENGTHS = (7, 1, 40, 7)


def reference_for(module: CrossAttention) -> nn.MultiheadAttention:
    """torch's module with our keys and values, and projections of queries and outputs that do nothing."""
    theirs = nn.MultiheadAttention(
        DIM, module.heads, kdim=FEATURES, vdim=FEATURES, batch_first=True, dtype=torch.float64
    )
    with torch.no_grad():
        theirs.q_proj_weight.copy_(torch.eye(DIM))
        theirs.k_proj_weight.copy_(module.key.weight[0])
        theirs.v_proj_weight.copy_(module.value.weight[0])
        # A key bias of any size must change nothing, since ours has none.
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(DIM), torch.full((DIM,), 3.0), module.value.bias[0]]))
        theirs.out_proj.weight.copy_(torch.eye(DIM))
        theirs.out_proj.bias.zero_()
    return theirs


def padded(bags):
    x_BND = nn.utils.rnn.pad_sequence(bags, batch_first=True)
    lengths = torch.tensor([len(bag) for bag in bags])
    return x_BND, torch.arange(x_BND.shape[1]) >= lengths[:, None]


@pytest.mark.parametrize(("heads", "queries"), [(1, 1), (4, 1), (2, 3), (12, 1), (6, 4)])
def test_value_and_gradients_equal_torch(heads, queries):
    compare(LENGTHS, heads, queries, heads * 10 + queries)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.sampled_from([1, 2, 3, 4, 6]),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_value_and_gradients_equal_torch_for_drawn_shapes(lengths, heads, queries, seed):
    compare(lengths, heads, queries, seed)


def compare(lengths, heads, queries, seed):
    torch.manual_seed(seed)
    module = CrossAttention(feature_dim=FEATURES, dim=DIM, heads=heads).double()
    mean, sd = torch.randn(FEATURES).double(), torch.rand(FEATURES).double() + 0.5
    module.standardise_by(mean, sd)
    bags = [torch.randn(n, FEATURES, dtype=torch.float64) * 2 + 1 for n in lengths]
    ours = torch.randn(len(bags), queries, DIM, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    probe = torch.randn(len(bags), queries, DIM, dtype=torch.float64)

    reference = reference_for(module)
    x_BND, mask_BN = padded([(bag - mean) / sd for bag in bags])
    expected, weights = reference(theirs, x_BND, x_BND, key_padding_mask=mask_BN, average_attn_weights=False)
    weights_of_ours = []
    value = module(ours[None], bags)[0]
    (value * probe).sum().backward()
    (expected * probe).sum().backward()

    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(module.key.weight.grad[0], reference.k_proj_weight.grad)
    torch.testing.assert_close(module.value.weight.grad[0], reference.v_proj_weight.grad)
    torch.testing.assert_close(module.value.bias.grad[0], reference.in_proj_bias.grad[2 * DIM :])
    module(ours[None], bags, weights=weights_of_ours)
    for index, (weight_QHN,) in enumerate(weights_of_ours):
        torch.testing.assert_close(weight_QHN.transpose(0, 1), weights[index, :, :, : lengths[index]])
