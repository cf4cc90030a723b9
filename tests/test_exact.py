"""Exact means exact: ids and the bits of the distances, against the float64 twin."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import (
    DIMS,
    DTYPES,
    MAKERS,
    METRICS,
    Array,
    battery_of_the_twin,
    battery_under,
    cast,
    digest,
    distances,
    lane_sum,
    make,
    nearest,
    within,
)

import omendb
import omendb._core

BATTERY_SEED = 20_240_229


def assert_same_bits(found: Array, expected: Array) -> None:
    """Equal shape, dtype and values; the sign of zero counts too."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def assert_exact(
    metric: str, rows: Array, queries: Array, k: int, index: omendb.Index | None = None, **how: Any
) -> None:
    """One search gives what the twin gives, and says that it is exact."""
    index = omendb.Index(rows, metric=metric) if index is None else index
    hits = index.search(queries, k, **how)
    ids, far = nearest(metric, queries, rows, k)
    context = f"{metric} {rows.dtype} {rows.shape} {queries.shape} k={k} {how}"
    try:
        assert_same_bits(hits.ids, ids)
        assert_same_bits(hits.distances, far)
    except AssertionError as error:
        raise AssertionError(f"{context}: {error}") from None
    assert isinstance(hits.exact, np.ndarray)
    assert hits.exact.dtype == np.bool_
    assert hits.exact.shape == (len(queries),)
    assert hits.exact.all()


# The twin itself --------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
def test_the_twin_sums_like_fsum(dim: int, rng: np.random.Generator) -> None:
    terms = rng.standard_normal((20, dim)) * 10.0 ** rng.uniform(-8, 8, (20, dim))
    for total, row in zip(lane_sum(terms), terms, strict=True):
        assert abs(total - math.fsum(row)) <= dim * 2.3e-16 * math.fsum(abs(row))


def test_the_twin_adds_its_lanes_in_the_defined_order() -> None:
    # Each lane holds a number that is lost unless exactly its partner is added first.
    tiny, big = 1.0, 2.0**53
    assert lane_sum(np.array([[tiny, 0, 0, 0, tiny, 0, big, 0]]))[0] == big + 2  # (0+4) first
    assert lane_sum(np.array([[big, 0, tiny, 0, 0, 0, tiny, 0]]))[0] == big + 2  # (2+6) first
    assert lane_sum(np.array([[big, tiny, 0, 0, 0, tiny, 0, 0]]))[0] == big + 2  # (1+5) first
    assert lane_sum(np.array([[big, 0, tiny, 0, tiny, 0, 0, 0]]))[0] == big
    column = [big, 0, 0, 0, 0, 0, 0, 0, tiny, 0, 0, 0, 0, 0, 0, 0, tiny]
    assert lane_sum(np.array([column]))[0] == big  # both are lost, not 1 + 1 added first


@pytest.mark.parametrize("metric", METRICS)
def test_the_twin_agrees_with_scikit_learn(metric: str, rng: np.random.Generator) -> None:
    pairwise = pytest.importorskip("sklearn.metrics").pairwise_distances
    rows, queries = rng.standard_normal((300, 37)), rng.standard_normal((9, 37))
    rows[:4] = 0
    for query in queries:
        if metric == "inner_product":
            expected = -(rows @ query)
        else:
            expected = pairwise(query[None], rows, metric=metric)[0]
        np.testing.assert_allclose(distances(metric, query, rows), expected, rtol=1e-9, atol=1e-12)


# Ids and bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("maker", MAKERS)
def test_adversarial_rows_get_the_twins_answers(
    maker: str, dtype: str, rng: np.random.Generator
) -> None:
    for n in (31, 300, int(rng.choice([1025, 2500]))):
        dim = int(rng.choice([dim for dim in DIMS if n * dim <= 150_000]))
        rows, queries = make(rng, maker, n, dim, 12, dtype)
        for metric in METRICS:
            assert_exact(metric, rows, queries, int(rng.choice([1, 10, 50])))


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_many_adversarial_rows_get_the_twins_answers(maker: str, rng: np.random.Generator) -> None:
    for _ in range(60):
        n = int(rng.integers(1, 3000))
        dim = int(rng.choice([dim for dim in DIMS if n * dim <= 1_000_000]))
        dtype = str(rng.choice(DTYPES))
        rows, queries = make(rng, maker, n, dim, int(rng.integers(1, 40)), dtype)
        for metric in METRICS:
            assert_exact(metric, rows, queries, int(rng.integers(1, n + 2)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", DIMS)
def test_every_dimension_gets_the_twins_answers(
    dim: int, metric: str, rng: np.random.Generator
) -> None:
    for dtype in DTYPES:
        rows, queries = make(rng, str(rng.choice(list(MAKERS))), 70, dim, 7, dtype)
        assert_exact(metric, rows, queries, 5)


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 31, 32, 33, 1023, 1024, 1025, 2500])
def test_every_number_of_rows_and_answers_gets_the_twins_answers(
    n: int, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, "small_integers", n, 9, 5, "float32")
    more, more_queries = make(rng, "duplicates", n, 24, 5, "float32")
    for metric in METRICS:
        integers, floats = (omendb.Index(x, metric=metric) for x in (rows, more))
        for k in sorted({1, 2, 9, 10, 11, 16, 17, 100, max(n - 1, 1), n + 1, n + 1000, n or 1}):
            assert_exact(metric, rows, queries, k, integers)
            assert_exact(metric, more, more_queries, k, floats)


def test_k_beyond_every_number_gives_all_rows(rng: np.random.Generator) -> None:
    rows, queries = make(rng, "gaussian", 40, 6, 3, "float32")
    assert_exact("euclidean", rows, queries, 10**18)


@pytest.mark.parametrize("n_queries", [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 129, 300])
def test_every_number_of_queries_gets_the_twins_answers(
    n_queries: int, rng: np.random.Generator
) -> None:
    for maker, dtype in (("decaying_spectrum", "float32"), ("extreme_integers", "int8")):
        rows, queries = make(rng, maker, 1100, 40, n_queries, dtype)
        for metric in METRICS:
            assert_exact(metric, rows, queries, 10)


@pytest.mark.parametrize("metric", METRICS)
def test_one_query_alone_gets_flat_answers(metric: str, rng: np.random.Generator) -> None:
    for dtype in DTYPES:
        rows, queries = make(rng, "gaussian", 1500, 33, 6, dtype)
        index = omendb.Index(rows, metric=metric)
        ids, far = nearest(metric, queries, rows, 10)
        for i, query in enumerate(queries):
            hits = index.search(query, 10)
            assert_same_bits(hits.ids, ids[i])
            assert_same_bits(hits.distances, far[i])
            assert hits.exact is True


@pytest.mark.parametrize("metric", METRICS)
def test_queries_keep_their_own_precision(metric: str, rng: np.random.Generator) -> None:
    # A float64 query of a float32 index is not rounded to float32, nor an int8 one to codes.
    for dtype in DTYPES:
        rows, _ = make(rng, "gaussian", 500, 20, 0, dtype)
        queries = rng.standard_normal((6, 20)) * (100 if "int" in dtype else 1)
        assert_exact(metric, rows, queries, 10)
        assert_exact(metric, rows, queries.astype(np.float32), 10)
        assert_exact(metric, rows, queries.astype(np.float16), 10)
        assert_exact(metric, rows, rng.integers(-1000, 1000, (6, 20)), 10)


# Sizes that are swept in strides, and queries from elsewhere.
@pytest.mark.parametrize(
    ("maker", "n", "dim", "dtype"),
    [
        ("decaying_spectrum", 20_000, 64, "float32"),
        ("decaying_spectrum", 10_000, 256, "float32"),
        ("decaying_spectrum", 9_000, 192, "float64"),
        ("shared_heads", 20_000, 128, "float32"),
        ("shared_heads", 12_000, 96, "float16"),
        ("low_rank", 16_384, 128, "float32"),
        ("low_rank", 10_001, 64, "int8"),
        ("sorted_clusters", 12_000, 128, "float32"),
        ("one_hot", 10_000, 128, "uint8"),
        ("heavy_tails", 10_000, 64, "float32"),
        ("giant_coordinate", 10_000, 64, "float32"),
        ("huge_offset", 10_000, 64, "float64"),
        ("last_bit", 10_000, 64, "float32"),
    ],
)
def test_large_sets_of_every_kind_stay_exact(
    maker: str, n: int, dim: int, dtype: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, maker, n, dim, 12, dtype)
    # Two queries at right angles to what the rows mostly do: all they see is the tail.
    _, _, directions = np.linalg.svd(rows[:2000].astype(np.float64), full_matrices=False)
    with np.errstate(over="ignore"):
        beside = cast(directions[-2:] * np.abs(rows.astype(np.float64)).mean(), dtype)
    for metric in METRICS:
        index = omendb.Index(rows, metric=metric)
        assert_exact(metric, rows, np.concatenate([queries, beside]), 10, index)
        assert_exact(metric, rows, queries[:1], 100, index)


def coded_dimensions(index: omendb.Index) -> int:
    """How many dimensions the index codes: fewer than it has where it uses principal axes."""
    found = re.search(r"8 bits, (\d+) of \d+ dimensions", index._repr_html_())
    assert found is not None
    return int(found[1])


# Principal axes are taken from 100,000 rows, where their spectrum falls fast enough.
@pytest.mark.parametrize(
    ("maker", "dim", "dtype", "metrics"),
    [
        ("decaying_spectrum", 128, "float32", ("euclidean", "cosine", "inner_product")),
        ("unseen_tails", 128, "float32", ("euclidean", "cosine", "inner_product")),
        pytest.param(
            *("decaying_spectrum", 192, "float16", ("sqeuclidean", "cosine")),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("unseen_tails", 160, "float64", ("euclidean", "inner_product")),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_axes_leave_out_does_not_change_an_answer(
    maker: str, dim: int, dtype: str, metrics: tuple[str, ...], rng: np.random.Generator
) -> None:
    rows, queries = make(rng, maker, 101_000, dim, 3, dtype)
    # Two queries at right angles to what the rows mostly do, and a row that axes may not fit.
    some = rows[:: len(rows) // 2000].astype(np.float64)
    _, _, directions = np.linalg.svd(some, full_matrices=False)
    beside = cast(directions[-2:] * np.abs(some).mean(), dtype)
    queries = np.concatenate([queries, beside, rows[-1:]])
    mask = rng.random(len(rows)) < 0.5
    for metric in metrics:
        index = omendb.Index(rows, metric=metric)
        assert coded_dimensions(index) < dim, "this case is about axes"
        assert_exact(metric, rows, queries, 10, index)
        ids, far = nearest(metric, queries[-2:], rows, 100, chosen=mask)
        hits = index.search(queries[-2:], 100, filter=mask)
        assert_same_bits(hits.ids, ids)
        assert_same_bits(hits.distances, far)
        away = np.sort(distances(metric, queries[0], rows))
        for radius in (float(away[7]), float(away[500])):
            assert_radius_exact(metric, rows, queries[:1], radius, index)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_axes_do_not_bind_rows_that_are_added_later(metric: str, rng: np.random.Generator) -> None:
    rows, queries = make(rng, "decaying_spectrum", 100_000, 128, 4, "float32")
    strangers = rng.standard_normal((1500, 128)).astype(np.float32)
    strangers[::2] *= 1e-3
    index = omendb.Index(rows, metric=metric)
    index.add(strangers)
    assert coded_dimensions(index) < 128
    everything = np.concatenate([rows, strangers])
    assert_exact(metric, everything, np.concatenate([queries, strangers[:4]]), 10, index)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_unlike_all_earlier_ones_are_found_after_an_add(
    metric: str, rng: np.random.Generator
) -> None:
    # What the codes learnt from the first rows must not bind the later ones.
    rows, queries = make(rng, "low_rank", 9000, 64, 6, "float32")
    strangers = (1e3 * rng.standard_normal((1500, 64))).astype(np.float32)
    index = omendb.Index(rows, metric=metric)
    index.add(strangers)
    everything = np.concatenate([rows, strangers])
    assert_exact(metric, everything, np.concatenate([queries, strangers[:6] + 1]), 10, index)


@given(
    maker=st.sampled_from(sorted(MAKERS)),
    dtype=st.sampled_from(DTYPES),
    metric=st.sampled_from(METRICS),
    n=st.integers(0, 200),
    dim=st.integers(1, 70),
    n_queries=st.integers(0, 20),
    k=st.integers(1, 220),
    draw=st.integers(0, 2**32 - 1),
)
def test_any_draw_gets_the_twins_answers(
    maker: str, dtype: str, metric: str, n: int, dim: int, n_queries: int, k: int, draw: int
) -> None:
    rows, queries = make(np.random.default_rng(draw), maker, n, dim, n_queries, dtype)
    assert_exact(metric, rows, queries, k)


# Any bit pattern, denormals and both zeros among them.
_float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    values=st.lists(st.lists(_float32s, min_size=4, max_size=4), min_size=1, max_size=12),
    query=st.lists(_float32s, min_size=4, max_size=4),
    metric=st.sampled_from(METRICS),
)
def test_any_float32_bits_get_the_twins_answers(
    values: list[list[float]], query: list[float], metric: str
) -> None:
    rows = np.array(values, np.float32)
    assert_exact(metric, rows, np.array([query], np.float32), len(rows))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("size", [1e-20, 1e-22, 1e-30, 1e-36, 1e-37, 1e-38])
def test_rows_far_below_the_largest_get_the_twins_answers(
    size: float, metric: str, rng: np.random.Generator
) -> None:
    # In pairs of opposites, so that centring leaves them small; the first rows set the scale,
    # along a dimension that no query looks along.
    half = size * rng.standard_normal((400, 20))
    half[:32] = 0
    half[:, 0] = np.arange(400) < 32
    rows = np.stack([half, -half], axis=1).reshape(-1, 20).astype(np.float32)
    queries = rng.choice([-1.0, 1.0], (9, 20))
    queries[:, 0] = 0
    queries *= np.repeat([1.0, size, math.sqrt(size)], 3)[:, None]
    assert_exact(metric, rows, queries, 30)


# Radius -----------------------------------------------------------------------------------


def assert_radius_exact(
    metric: str, rows: Array, queries: Array, radius: float, index: omendb.Index
) -> None:
    """One radius search gives what the twin gives."""
    hits = index.search_radius(queries, radius)
    offsets, ids, far = within(metric, queries, rows, radius)
    assert_same_bits(hits.offsets, offsets)
    assert_same_bits(hits.ids, ids)
    assert_same_bits(hits.distances, far)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_radius_is_inclusive_to_the_last_bit(
    maker: str, dtype: str, rng: np.random.Generator
) -> None:
    n = int(rng.choice([40, 700, 1500]))
    dim = int(rng.choice([dim for dim in DIMS if n * dim <= 60_000]))
    rows, queries = make(rng, maker, n, dim, 6, dtype)
    for metric in METRICS:
        index = omendb.Index(rows, metric=metric)
        far = distances(metric, queries[int(rng.integers(6))], rows)
        # The exact distance of some near row includes it; one float64 less leaves it out.
        edge = float(np.sort(far)[int(rng.integers(min(n, 60)))])
        for radius in (edge, math.nextafter(edge, -math.inf), math.nextafter(edge, math.inf)):
            assert_radius_exact(metric, rows, queries, radius, index)


@pytest.mark.parametrize("metric", METRICS)
def test_extreme_radii_give_all_rows_or_none(metric: str, rng: np.random.Generator) -> None:
    rows, queries = make(rng, "duplicates", 1300, 10, 4, "float32")
    index = omendb.Index(rows, metric=metric)
    for radius in (math.inf, -math.inf, 0.0, -0.0, -1.0, 1.0, 1e300, 5e-324, 2):
        assert_radius_exact(metric, rows, queries, radius, index)
    assert len(index.search_radius(queries, math.inf).ids) == 4 * 1300
    assert_radius_exact(metric, rows, queries[:0], 1.0, index)


@pytest.mark.parametrize("metric", METRICS)
def test_a_radius_in_a_large_set_stays_exact(metric: str, rng: np.random.Generator) -> None:
    rows, queries = make(rng, "shared_heads", 10_000, 96, 8, "float32")
    index = omendb.Index(rows, metric=metric)
    far = np.sort(distances(metric, queries[0], rows))
    for radius in (float(far[0]), float(far[37]), float(far[3000])):
        assert_radius_exact(metric, rows, queries, radius, index)


# Filters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_filters_of_every_selectivity_get_the_twins_answers(
    share: float, rng: np.random.Generator
) -> None:
    for maker, dtype, dim in (
        ("duplicates", "float32", 24),
        ("extreme_integers", "int8", 65),
        ("last_bit", "float64", 9),
    ):
        rows, queries = make(rng, maker, 2500, dim, 9, dtype)
        ids = rng.permutation(10_000)[:2500] - 5000
        mask = rng.random(2500) < share
        listed = rng.permutation(np.repeat(ids[mask], 2))  # order and repeats do not matter
        for metric in METRICS:
            index = omendb.Index(rows, ids=ids, metric=metric)
            radius = float(np.quantile(distances(metric, queries[0], rows), 0.05))
            for chosen in (mask, listed):
                hits = index.search(queries, 10, filter=chosen)
                expected, far = nearest(metric, queries, rows, 10, ids, chosen)
                assert_same_bits(hits.ids, expected)
                assert_same_bits(hits.distances, far)
                around = index.search_radius(queries, radius, filter=chosen)
                offsets, expected, far = within(metric, queries, rows, radius, ids, chosen)
                assert_same_bits(around.offsets, offsets)
                assert_same_bits(around.ids, expected)
                assert_same_bits(around.distances, far)


def test_a_filter_that_leaves_only_far_rows_is_complete(rng: np.random.Generator) -> None:
    # The nearest rows are all forbidden, so no threshold may come from them.
    rows, queries = make(rng, "decaying_spectrum", 9000, 64, 6, "float32")
    for metric in METRICS:
        far = distances(metric, queries[0], rows)
        mask = far >= np.sort(far)[-40]
        hits = omendb.Index(rows, metric=metric).search(queries, 10, filter=mask)
        ids, expected = nearest(metric, queries, rows, 10, chosen=mask)
        assert_same_bits(hits.ids, ids)
        assert_same_bits(hits.distances, expected)


# The same bits, however it is computed ----------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("maker", "n", "dim", "dtype"),
    [
        ("shared_heads", 9000, 64, "float32"),
        ("heavy_tails", 1500, 100, "float64"),
        ("shuffled_coordinates", 1500, 65, "float32"),
        ("extreme_integers", 1100, 127, "uint8"),
        ("last_bit", 2500, 17, "bfloat16"),
    ],
)
def test_threads_and_batches_do_not_change_a_bit(
    maker: str, n: int, dim: int, dtype: str, metric: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, maker, n, dim, 25, dtype)
    radius = float(np.quantile(distances(metric, queries[0], rows), 0.03))
    ids, far = nearest(metric, queries, rows, 10)
    offsets, near, near_far = within(metric, queries, rows, radius)
    for threads in (1, 2, 3, None):
        index = omendb.Index(rows, metric=metric, threads=threads)
        for batch in (25, 7, 1):
            parts = [queries[i : i + batch] for i in range(0, 25, batch)]
            hits = [index.search(part, 10, threads=threads) for part in parts]
            assert_same_bits(np.concatenate([h.ids for h in hits]), ids)
            assert_same_bits(np.concatenate([h.distances for h in hits]), far)
            around = [index.search_radius(part, radius, threads=threads) for part in parts]
            assert_same_bits(np.concatenate([h.ids for h in around]), near)
            assert_same_bits(np.concatenate([h.distances for h in around]), near_far)
            counts = np.concatenate([np.diff(h.offsets) for h in around])
            assert_same_bits(counts, np.diff(offsets))


def test_more_threads_than_any_machine_has_do_not_change_a_bit(rng: np.random.Generator) -> None:
    rows, queries = make(rng, "gaussian", 3000, 32, 40, "float32")
    assert_exact("euclidean", rows, queries, 10, threads=64)
    assert_exact("euclidean", rows, queries[:1], 10, threads=64)


def test_an_index_grown_in_pieces_answers_as_one_made_at_once(rng: np.random.Generator) -> None:
    for metric in METRICS:
        rows, queries = make(rng, "mixed_scales", 3000, 48, 10, "float32")
        index = omendb.Index(rows[:10], metric=metric)
        for start, stop in ((10, 11), (11, 1024), (1024, 1025), (1025, 2048), (2048, 3000)):
            index.add(rows[start:stop])
        assert_exact(metric, rows, queries, 10, index)


@cache
def _expected_battery() -> dict[str, str]:
    return battery_of_the_twin(BATTERY_SEED)


@pytest.mark.parametrize("isa", omendb._core.kernels()["available"])
def test_every_instruction_set_gives_the_twins_bits(isa: str) -> None:
    assert battery_under(isa, BATTERY_SEED) == _expected_battery()


@pytest.mark.slow
@pytest.mark.parametrize("isa", omendb._core.kernels()["available"])
def test_every_instruction_set_gives_the_twins_bits_on_new_draws(isa: str, seed: int) -> None:
    for draw in range(seed, seed + 5):
        assert battery_under(isa, draw) == battery_of_the_twin(draw)


def test_the_portable_kernels_are_always_there() -> None:
    kernels = omendb._core.kernels()
    assert "portable" in kernels["available"]
    assert kernels["isa"] in kernels["available"]


# Real data --------------------------------------------------------------------------------


def _twin_of_many_rows(queries: Array, rows: Array, k: int) -> tuple[Array, Array]:
    """`nearest` for cosine, the twin judging only what a float64 product cannot rule out."""
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ids, far = [], []
    for block in np.array_split(queries, -(-len(queries) // 50)):
        wide = block.astype(np.float64)
        rough = 1 - (wide / np.linalg.norm(wide, axis=1, keepdims=True)) @ unit.T
        limit = np.partition(rough, k - 1, axis=1)[:, k - 1 : k] + 1e-9  # error is below 1e-12
        for query, near in zip(block, rough <= limit, strict=True):
            found, distant = nearest("cosine", query[None], rows, k, chosen=near)
            ids.append(found)
            far.append(distant)
    return np.concatenate(ids), np.concatenate(far)


def _held_out(vectors: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    order = rng.permutation(len(vectors))
    return vectors[order[:2000]], np.ascontiguousarray(vectors[np.sort(order[2000:])])


def test_real_embeddings_get_the_twins_answers(
    debian_packages: Array, rng: np.random.Generator
) -> None:
    queries, rows = _held_out(debian_packages, rng)
    rows = rows.astype(np.float32)
    hits = omendb.Index(rows, metric="cosine").search(queries, 10)
    some = rng.permutation(2000)[:200]
    ids, far = _twin_of_many_rows(queries[some], rows, 10)
    assert_same_bits(hits.ids[some], ids)
    assert_same_bits(hits.distances[some], far)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_all_real_queries_get_the_twins_answers(
    dtype: str, debian_packages: Array, rng: np.random.Generator
) -> None:
    queries, rows = (cast(x.astype(np.float64), dtype) for x in _held_out(debian_packages, rng))
    index = omendb.Index(rows, metric="cosine")
    hits = index.search(queries, 10)
    ids, far = _twin_of_many_rows(queries, rows, 10)
    assert_same_bits(hits.ids, ids)
    assert_same_bits(hits.distances, far)
    alone = [index.search(query, 10) for query in queries]
    assert digest(*[h.ids for h in alone]) == digest(*ids)
    assert digest(*[h.distances for h in alone]) == digest(*far)
