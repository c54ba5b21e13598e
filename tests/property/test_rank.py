"""The nested sample: what holds of the row order for any slide."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmsurv.store import rank_order

tiles = st.sets(st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=1, max_size=60)
names = st.text(min_size=1, max_size=20)
seeds = st.integers(-(2**63), 2**63 - 1)


@given(tiles, names, seeds, st.randoms())
def test_the_order_of_the_tiles_does_not_matter(tiles, name, seed, random):
    rows = sorted(tiles)
    shuffled = random.sample(rows, len(rows))
    one, two = np.array(rows), np.array(shuffled)
    np.testing.assert_array_equal(one[rank_order(name, one, seed)], two[rank_order(name, two, seed)])


@given(tiles, names, seeds, st.data())
def test_the_sample_of_a_part_of_the_slide_keeps_its_order(tiles, name, seed, data):
    """Masking out tissue never reorders what is left, so a stricter mask gives a subsequence."""
    rows = np.array(sorted(tiles))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool)
    everything = [tuple(row) for row in rows[rank_order(name, rows, seed)] if tuple(row) in set(map(tuple, rows[keep]))]
    part = [tuple(row) for row in rows[keep][rank_order(name, rows[keep], seed)]]
    assert everything == part


@given(names, seeds)
def test_every_tile_appears_once(name, seed):
    rows = np.stack(np.meshgrid(np.arange(7), np.arange(5)), -1).reshape(-1, 2)
    assert sorted(rank_order(name, rows, seed)) == list(range(35))


def test_a_prefix_is_a_uniform_sample_of_the_slide():
    """Over many slides every position is drawn about equally often (binomial: 1000 slides, 100 of 400 tiles)."""
    rows = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) * 448
    counts = np.zeros(400)
    for slide in range(1000):
        counts[rank_order(f"slide-{slide}", rows, 0)[:100]] += 1
    sd = np.sqrt(1000 * 0.25 * 0.75)
    assert np.abs(counts - 250).max() < 5 * sd
    assert 0.8 < counts.std() / sd < 1.2
