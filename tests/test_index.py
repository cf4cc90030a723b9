"""The Index as a user handles it: edits, filters, pickles, and what a failed call leaves."""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference import (
    DTYPES,
    METRICS,
    Array,
    cast,
    digest,
    dtype_of,
    make,
    nearest,
    run_python,
    within,
)

import omendb


def state_of(index: omendb.Index) -> str:
    """A digest of everything a user can see of an index, searches included."""
    probe = np.ones((2, index.dim), np.float32)
    hits, around = index.search(probe, 50), index.search_radius(probe, 5.0)
    return (
        digest(index.ids, index.vectors, hits.ids, hits.distances, around.offsets, around.ids)
        + f" {len(index)} {index.dim} {index.metric}"
    )


def assert_answers(index: omendb.Index, queries: Array, k: int = 10) -> None:
    """Searches agree with the twin on the rows and ids that the index shows."""
    hits = index.search(queries, k)
    ids, far = nearest(index.metric, queries, index.vectors, k, index.ids)
    np.testing.assert_array_equal(hits.ids, ids)
    np.testing.assert_array_equal(hits.distances, far)


# What it says about itself ----------------------------------------------------------------


def test_an_index_describes_itself(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1234, 56)).astype(np.float32)
    index = omendb.Index(rows, metric="cosine")
    assert len(index) == 1234
    assert index.dim == 56
    assert index.metric == "cosine"
    np.testing.assert_array_equal(index.ids, np.arange(1234))
    assert index.ids.dtype == np.int64
    np.testing.assert_array_equal(index.vectors, rows)
    text = repr(index)
    html = index._repr_html_()
    for word in ("56", "cosine"):
        assert word in text
        assert word in html
    for shown in (text, html):
        assert "1234" in shown.replace(",", "").replace("_", "").replace("\u202f", "")
    assert "Index" in text
    assert "<" in html


def test_nbytes_grows_with_the_rows(rng: np.random.Generator) -> None:
    small = omendb.Index(rng.standard_normal((100, 16)).astype(np.float32))
    large = omendb.Index(rng.standard_normal((10_000, 16)).astype(np.float32))
    assert isinstance(small.nbytes, int)
    assert 0 < small.nbytes < large.nbytes


@pytest.mark.parametrize(
    ("given_name", "canonical"),
    [
        *((name, name) for name in METRICS),
        ("l2", "euclidean"),
        ("ip", "inner_product"),
        ("dot", "inner_product"),
        ("l1", "manhattan"),
        ("cityblock", "manhattan"),
        ("linf", "chebyshev"),
    ],
)
def test_a_metric_has_one_canonical_name(given_name: str, canonical: str) -> None:
    assert omendb.Index(np.eye(3), metric=given_name).metric == canonical
    assert omendb.Index(dim=3, metric=given_name).metric == canonical


def test_euclidean_is_the_default_metric_and_10_the_default_k(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((40, 4))
    index = omendb.Index(rows)
    assert index.metric == "euclidean"
    assert index.search(rows[:3]).ids.shape == (3, 10)
    assert_answers(index, rows)


def test_the_package_shows_its_public_names() -> None:
    for name in ("Index", "Hits", "RadiusHits"):
        assert isinstance(getattr(omendb, name), type)
        assert getattr(omendb, name).__doc__
    assert omendb.__version__
    for method in ("search", "search_radius", "add", "remove", "update", "vectors", "ids"):
        assert getattr(omendb.Index, method).__doc__


@pytest.mark.parametrize("dtype", DTYPES)
def test_hits_have_the_promised_shapes_and_dtypes(dtype: str, rng: np.random.Generator) -> None:
    rows, queries = make(rng, "gaussian", 60, 12, 5, dtype)
    index = omendb.Index(rows)
    floats = np.float64 if dtype == "float64" else np.float32
    for k, width in ((1, 1), (7, 7), (60, 60), (61, 60), (np.int32(3), 3), (np.uint8(3), 3)):
        hits = index.search(queries, k)  # type: ignore[arg-type]
        assert isinstance(hits, omendb.Hits)
        assert isinstance(hits.exact, np.ndarray)
        for array, kind in ((hits.ids, np.int64), (hits.distances, floats)):
            assert array.shape == (5, width)
            assert array.dtype == kind
        assert hits.exact.shape == (5,)
        assert len(hits) == 5
    alone = index.search(queries[0], 7)
    assert alone.ids.shape == alone.distances.shape == (7,)
    assert alone.ids.dtype == np.int64
    assert alone.distances.dtype == floats
    assert alone.exact is True
    none = index.search(queries[:0], 7)
    assert none.ids.shape == none.distances.shape == (0, 7)
    assert none.distances.dtype == floats
    assert isinstance(none.exact, np.ndarray)
    assert none.exact.shape == (0,)
    for shown in (hits, alone, none):
        assert isinstance(repr(shown), str)
        assert "<" in shown._repr_html_()


@pytest.mark.parametrize("dtype", DTYPES)
def test_radius_hits_have_the_promised_shapes_and_dtypes(
    dtype: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, "gaussian", 60, 12, 5, dtype)
    index = omendb.Index(rows)
    floats = np.float64 if dtype == "float64" else np.float32
    for asked, n in ((queries, 5), (queries[:0], 0), (queries[0], 1)):
        for radius in (1e9, -1.0):
            hits = index.search_radius(asked, radius)
            assert isinstance(hits, omendb.RadiusHits)
            assert hits.offsets.shape == (n + 1,)
            assert hits.offsets.dtype == hits.ids.dtype == np.int64
            assert hits.distances.dtype == floats
            assert hits.offsets[0] == 0
            assert hits.offsets[-1] == len(hits.ids) == len(hits.distances)
            assert len(hits.ids) == (60 * n if radius > 0 else 0)
            assert np.all(hits.exact)
            assert isinstance(repr(hits), str)
            assert "<" in hits._repr_html_()


def test_a_result_cannot_be_changed_through_another(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((30, 4))
    index = omendb.Index(rows)
    before = state_of(index)
    for array in (index.ids, index.search(rows, 5).ids, index.search(rows, 5).distances):
        if array.flags.writeable:
            array[...] = 7
    assert state_of(index) == before


def test_methods_auto_and_exact_agree(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((300, 8))
    index = omendb.Index(rows)
    auto, exact = index.search(rows, 5, method="auto"), index.search(rows, 5, method="exact")
    np.testing.assert_array_equal(auto.ids, exact.ids)
    np.testing.assert_array_equal(auto.distances, exact.distances)


# Empty ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_index_gives_empty_answers(dtype: str) -> None:
    for index in (omendb.Index(dim=3), omendb.Index(np.empty((0, 3), dtype_of(dtype)))):
        assert len(index) == 0
        assert index.dim == 3
        assert index.ids.shape == (0,)
        assert index.vectors.shape == (0, 3)
        assert 0 not in index
        assert index.search(np.ones((4, 3)), 10).ids.shape == (4, 0)
        assert index.search(np.ones((4, 3)), 10).distances.shape == (4, 0)
        assert index.search(np.ones(3)).ids.shape == (0,)
        assert index.search_radius(np.ones((4, 3)), 1.0).offsets.tolist() == [0] * 5
        assert index.search(np.ones((4, 3)), filter=np.zeros(0, bool)).ids.shape == (4, 0)
        assert index.search(np.ones((4, 3)), filter=np.zeros(0, np.int64)).ids.shape == (4, 0)
        index.remove(np.empty(0, np.int64))
        assert index.add(np.empty((0, 3), dtype_of(dtype))).shape == (0,)
        repr(index)
        index._repr_html_()
        assert len(pickle.loads(pickle.dumps(index))) == 0


def test_an_index_of_a_dimension_grows_from_nothing(rng: np.random.Generator) -> None:
    index = omendb.Index(dim=5, metric="cosine")
    rows = rng.standard_normal((2000, 5)).astype(np.float32)
    np.testing.assert_array_equal(index.add(rows[:3]), [0, 1, 2])
    np.testing.assert_array_equal(index.add(rows[3:]), np.arange(3, 2000))
    np.testing.assert_array_equal(index.vectors, rows)
    assert_answers(index, rows[:20])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_emptied_index_keeps_its_dtype(dtype: str, rng: np.random.Generator) -> None:
    rows = cast(rng.standard_normal((3, 4)), dtype)
    for index in (omendb.Index(rows), omendb.Index(rows[:0])):
        index.remove(index.ids)
        floats = np.float64 if dtype == "float64" else np.float32
        assert index.vectors.dtype == dtype_of(dtype)
        assert index.search(rows, 2).distances.dtype == floats
        assert index.search_radius(rows, 2.0).distances.dtype == floats
        index.add(rows)
        assert index.vectors.dtype == dtype_of(dtype)
        np.testing.assert_array_equal(index.vectors, rows)


def test_an_emptied_index_grows_again(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1500, 6)).astype(np.float32)
    index = omendb.Index(rows)
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(rows[:2]).ids.shape == (2, 0)
    index.add(rows[:1100], ids=np.arange(1100))
    np.testing.assert_array_equal(index.vectors, rows[:1100])
    assert_answers(index, rows[:5])


# Ids --------------------------------------------------------------------------------------


def test_ids_may_be_any_integers(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((6, 3))
    ids = [-(2**63), 2**63 - 1, -1, 0, 7, 10**15]
    for kind in (list, np.array, lambda x: np.array(x, ">i8"), lambda x: np.array(x)[::1]):
        index = omendb.Index(rows, ids=kind(ids))
        np.testing.assert_array_equal(index.ids, ids)
        assert_answers(index, rows)
    for id in ids:
        assert id in index
        assert np.int64(id) in index
    for stranger in (1, -2, 2**63, 2**70, "7", 7.5, None, (7,)):
        assert stranger not in index
    np.testing.assert_array_equal(
        omendb.Index(rows, ids=np.arange(5, -1, -1, dtype=np.uint8)).ids, [5, 4, 3, 2, 1, 0]
    )


def test_new_rows_continue_after_the_largest_id_so_far(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4, 3))
    index = omendb.Index(rows, ids=[5, 100, 7, -3])
    np.testing.assert_array_equal(index.add(rows[:2]), [101, 102])
    np.testing.assert_array_equal(index.add(rows[:1], ids=[50]), [50])
    np.testing.assert_array_equal(index.add(rows[:1]), [103])
    index.remove([103])
    np.testing.assert_array_equal(index.add(rows[:1]), [104])  # a gone id is not given again
    np.testing.assert_array_equal(index.ids, [5, 100, 7, -3, 101, 102, 50, 104])
    assert index.add(rows).dtype == np.int64


def test_a_removed_id_may_be_used_again(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4, 3))
    index = omendb.Index(rows)
    index.remove([1])
    assert 1 not in index
    index.add(rows[1:2], ids=[1])
    assert 1 in index
    np.testing.assert_array_equal(index.ids, [0, 2, 3, 1])  # added rows come last
    assert_answers(index, rows)


def test_equal_distances_go_by_row_not_by_id() -> None:
    index = omendb.Index(np.zeros((5, 2)), ids=[9, 3, 7, 1, 5])
    np.testing.assert_array_equal(index.search(np.zeros((1, 2)), 3).ids, [[9, 3, 7]])
    index.update([9], np.zeros((1, 2)))  # keeps its place
    index.remove([3])
    index.add(np.zeros((1, 2)), ids=[-1])
    np.testing.assert_array_equal(index.search(np.zeros(2), 9).ids, [9, 7, 1, 5, -1])
    np.testing.assert_array_equal(index.search_radius(np.zeros(2), 0).ids, [9, 7, 1, 5, -1])


# Edits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_edits_across_chunks_of_1024_rows_keep_every_row(
    dtype: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, "gaussian", 5200, 20, 4, dtype)
    index = omendb.Index(rows[:1023], metric=METRICS[DTYPES.index(dtype)])
    vectors, ids = rows[:1023].copy(), np.arange(1023)

    def check() -> None:
        np.testing.assert_array_equal(index.ids, ids)
        np.testing.assert_array_equal(index.vectors, vectors)
        assert_answers(index, queries, 30)

    for size in (1, 1, 1023, 1, 1024, 1025):
        start = len(ids)
        index.add(rows[start : start + size])
        vectors, ids = rows[: start + size].copy(), np.arange(start + size)
        check()
    for gone in (
        [1023],
        [1024],
        [0],
        list(range(1025, 2049)),  # a whole chunk
        [int(ids[-1])],
        rng.permutation(np.arange(2100, 4000))[:1000].tolist(),
    ):
        index.remove(gone)
        keep = ~np.isin(ids, gone)
        vectors, ids = vectors[keep], ids[keep]
        check()
    changed = rng.permutation(ids)[:200]
    new = rows[-200:]
    index.update(changed, new)
    for id, row in zip(changed, new, strict=True):
        vectors[ids == id] = row
    check()
    index.remove(rng.permutation(ids))
    assert len(index) == 0


def test_edits_leave_the_users_array_alone(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1500, 6)).astype(np.float32)
    kept = rows.copy()
    index = omendb.Index(rows)
    index.update([3, 1400], rows[:2] + 1)
    index.remove([5, 1030])
    index.add(rows[:3])
    np.testing.assert_array_equal(rows, kept)
    np.testing.assert_array_equal(index.vectors[3], kept[0] + 1)


def test_an_update_answers_with_the_new_numbers(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2100, 10)).astype(np.float32)
    for metric in METRICS:
        index = omendb.Index(rows, metric=metric)
        index.update([2050, 7, 1024], 1e6 * rows[:3])
        assert_answers(index, np.concatenate([rows[:10], 1e6 * rows[:3]]))
        index.update([], np.empty((0, 10), np.float32))
        assert_answers(index, rows[:10])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edit_takes_other_dtypes_that_hold_the_same_numbers(
    dtype: str, rng: np.random.Generator
) -> None:
    rows = rng.integers(0, 100, (50, 4))
    index = omendb.Index(rows.astype(dtype_of(dtype)))
    index.add(rows.astype(dtype_of(dtype))[:, ::-1])
    for other in (rows.astype(np.float64), rows.astype(np.float32)):
        if dtype not in ("int8", "uint8"):
            index.add(other)
            index.update([0, 1], other[5:7].tolist())
    assert index.vectors.dtype == dtype_of(dtype)
    assert_answers(index, rows.astype(dtype_of(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("before", [0, 1000, 1024])
def test_an_edit_keeps_nothing_of_the_array_that_came(
    before: int, dtype: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, "gaussian", before + 3000, 9, 3, dtype)
    index = omendb.Index(rows[:before]) if before else omendb.Index(dim=9)
    given, other = rows[before:].copy(), rows[-700:].copy()
    index.add(given)
    index.update(index.ids[:700], other)
    given[:] = other[:] = 0
    np.testing.assert_array_equal(index.vectors, np.concatenate([rows[-700:], rows[700:]]))
    assert_answers(index, queries)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["exact", "graph"])
def test_numbers_whose_squares_overflow_are_refused_by_every_metric(
    metric: str, method: Literal["exact", "graph"], rng: np.random.Generator
) -> None:
    if method == "graph" and metric in ("manhattan", "chebyshev"):
        pytest.skip("has no graph")
    rows = rng.standard_normal((2000, 4))
    wrong = rows.copy()
    wrong[1] = 1e160
    with pytest.raises(ValueError, match="row 1 of the vectors"):
        omendb.Index(wrong, metric=metric, method=method)
    for equal in (wrong[1:2], np.repeat(wrong[1:2], 3000, axis=0)):
        with pytest.raises(ValueError, match="row 0 of the vectors"):
            omendb.Index(equal, metric=metric, method=method)
    index = omendb.Index(rows, metric=metric, method=method)
    before = state_of(index)
    with pytest.raises(ValueError, match="row 1 of the vectors"):
        index.add(wrong[:3])
    with pytest.raises(ValueError, match="row 0 of the vectors"):
        index.update([7], wrong[1:2])
    assert state_of(index) == before


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("inner", ["add", "remove", "update", "build_graph"])
@pytest.mark.parametrize("outer", ["add", "update", "build_graph"])
def test_an_edit_from_the_callback_of_another_is_refused(
    outer: str, inner: str, labels: bool
) -> None:
    script = """
import sys, numpy as np, omendb
outer, inner, labels = sys.argv[1:]
X = np.eye(4, dtype=np.float32)
names, more = (list("abcd"), list("efgh")) if labels == "True" else (None, None)
index = omendb.Index(X, ids=names)
ids = list(index.ids)
calls = {
    "add": lambda **options: index.add(X, more, **options),
    "remove": lambda: index.remove(ids[:1]),
    "update": lambda **options: index.update(ids[:1], X[1:2], **options),
    "build_graph": lambda **options: index.build_graph(**options),
}
try:
    calls[outer](progress=lambda done, total: calls[inner]())
except RuntimeError as error:
    assert "is being edited" in str(error)
else:
    raise SystemExit("nothing was refused")
assert list(index.ids) == ids and np.array_equal(index.vectors, X) and not index.has_graph
calls[outer](progress=lambda done, total: index.search(X, 2))
calls[inner]()
"""
    if (outer, inner) == ("add", "add"):
        script = script.removesuffix("calls[inner]()\n")  # the ids are there then
    run_python(script, outer, inner, labels, timeout=30)


def test_a_bar_that_fails_to_close_leaves_the_edit_whole() -> None:
    pytest.importorskip("tqdm.auto")
    run_python(
        """
import numpy as np, omendb, tqdm.auto
closed = []
class Bar(tqdm.auto.tqdm):
    def close(self):
        super().close()
        if not closed:
            closed.append(True)
            raise error
tqdm.auto.tqdm = Bar
X = np.eye(4, dtype=np.float32)
for error, labels in [(KeyboardInterrupt(), 1), (KeyError("x"), 1), (KeyboardInterrupt(), 0)]:
    index = omendb.Index(X, ids=list("abcd") if labels else None)
    for edit in ("add", "update"):
        closed.clear()
        try:
            if edit == "add":
                index.add(X + 5, list("efgh") if labels else None, progress=True)
            else:
                index.update(index.ids[:1], X[:1] + 9, progress=True)
            for _ in range(100):
                pass  # Ctrl-C comes between two lines
        except KeyboardInterrupt:
            assert isinstance(error, KeyboardInterrupt)
        else:
            assert not isinstance(error, KeyboardInterrupt)
    assert closed and len(index) == 8 and index.vectors.shape == (8, 4)
    assert index.vectors[0, 0] == 10 and index.search(X[0] + 9, 1).distances[0] == 0
    index.add(X[:1], ["z"] if labels else None)
    assert len(index.ids) == 9
"""
    )


@pytest.mark.parametrize("how", [copy.copy, lambda index: pickle.loads(pickle.dumps(index))])
def test_a_copy_goes_on_as_the_index_would(
    how: Callable[[omendb.Index], omendb.Index], rng: np.random.Generator
) -> None:
    index = omendb.Index(rng.standard_normal((500, 8)), method="graph")
    index.tune(0.99, k=5)
    index.remove([499])
    again = how(index)
    assert again.effort == index.effort != 64
    np.testing.assert_array_equal(again.add(np.ones((1, 8))), [500])
    # The number type of an index that never had a row is that of the first.
    empty = how(omendb.Index(dim=2, metric="cosine"))
    empty.add(np.array([[1 / 3, 2.0**40 + 1]]))
    assert empty.vectors.dtype == np.float64
    assert empty.metric == "cosine"


def test_an_edit_that_drops_the_graph_can_be_discarded(rng: np.random.Generator) -> None:
    index = omendb.Index(rng.standard_normal((3000, 16)), method="graph")
    before, told = state_of(index), []

    def refuse(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyError

    with pytest.raises(KeyError):
        index.update([0], np.full((1, 16), 1e100), progress=refuse)
    assert told == [(1, 1)]
    assert state_of(index) == before


def test_an_add_that_an_integer_index_would_wrap_is_refused() -> None:
    index = omendb.Index(np.ones((3, 2), np.int8))
    before = state_of(index)
    for wrong in ([[1, 300]], [[1, -129]], np.array([[200, 1]], np.uint8)):
        with pytest.raises(ValueError, match=r"(?i)int8|300|-129|200|row"):
            index.add(wrong)
        with pytest.raises(ValueError, match=r"(?i)int8|300|-129|200|row"):
            index.update([0], wrong)
    assert state_of(index) == before


def test_an_add_that_the_dtype_cannot_hold_is_refused() -> None:
    index = omendb.Index(np.ones((3, 2), np.float32))
    before = state_of(index)
    with pytest.raises(ValueError, match=r"(?i)row|float32|finite"):
        index.add([[1.0, 1e200]])
    with pytest.raises(ValueError, match=r"(?i)row|float32|finite"):
        index.update([0], [[1.0, 1e200]])
    assert state_of(index) == before


# Copies and pickles -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_index_gives_the_same_answers(
    dtype: str, protocol: int, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, "gaussian", 1100, 9, 3, dtype)
    index = omendb.Index(rows, metric="cosine", ids=rng.permutation(5000)[:1100])
    index.remove(index.ids[::7])
    index.add(rows[:3])
    again = pickle.loads(pickle.dumps(index, protocol))
    assert state_of(again) == state_of(index)
    assert again.vectors.dtype == dtype_of(dtype)
    assert_answers(again, queries)
    again.remove(again.ids[:1])
    assert len(again) == len(index) - 1


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copied_index_is_independent(
    how: Callable[[omendb.Index], omendb.Index], rng: np.random.Generator
) -> None:
    index = omendb.Index(rng.standard_normal((30, 4)), metric="ip")
    before = state_of(index)
    twin = how(index)
    assert state_of(twin) == before
    twin.add(np.ones((2, 4)))
    twin.remove([0, 1])
    twin.update([2], np.ones((1, 4)))
    assert state_of(index) == before


def test_a_pickle_is_read_by_another_process(rng: np.random.Generator, tmp_path: Path) -> None:
    index = omendb.Index(rng.standard_normal((50, 4)).astype(np.float32), metric="manhattan")
    path = tmp_path / "index.pickle"
    path.write_bytes(pickle.dumps(index))
    script = """
import pickle, sys
import numpy as np, reference

index = pickle.load(open(sys.argv[1], "rb"))
hits = index.search(index.vectors, 10)
print(reference.digest(index.ids, index.vectors, hits.ids, hits.distances))
"""
    hits = index.search(index.vectors, 10)
    expected = digest(index.ids, index.vectors, hits.ids, hits.distances)
    assert run_python(script, path).strip() == expected


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("labels", [False, True])
def test_pickled_answers_are_the_same(
    labels: bool, protocol: int, rng: np.random.Generator
) -> None:
    rows = rng.standard_normal((300, 5)).astype(np.float32)
    ids = [f"row {i}" for i in range(300)] if labels else None
    index = omendb.Index(rows, ids=ids, method="graph", seed=0)
    index.remove(index.ids[:40])
    hits: list[omendb.Hits | omendb.RadiusHits] = [
        index.search(rows[:7], 4),
        index.search(rows[:7], 4, method="graph"),
        index.search(rows[0], 4),
        index.search(rows[:0], 4),
        index.search_radius(rows[:7], 1.5),
        index.search_radius(rows[0], 1.5),
        index.search_radius(rows[:7], 1e-9),
        index.search_radius(rows[:0], 1.5),
    ]
    for one in hits:
        for again in (
            pickle.loads(pickle.dumps(one, protocol)),
            pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(one, protocol)), protocol)),
            copy.copy(one),
            copy.deepcopy(one),
        ):
            assert type(again) is type(one)
            assert repr(again) == repr(one)
            assert len(again) == len(one)
            for name in ("ids", "distances", "exact", "offsets"):
                if hasattr(one, name):
                    expected, got = getattr(one, name), getattr(again, name)
                    assert type(got) is type(expected)
                    np.testing.assert_array_equal(got, expected)
                    if isinstance(expected, np.ndarray):
                        assert got.dtype == expected.dtype
            assert again.to_arrow().equals(one.to_arrow())


def test_pickled_answers_carry_their_own_lines_alone(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2000, 3))
    index = omendb.Index(rows, ids=[f"row {i}" for i in range(2000)])
    assert len(pickle.dumps(index.search(rows[:1], 2))) < 2000


def test_what_no_answers_were_pickled_as_is_refused() -> None:
    index, labelled = omendb.Index(np.eye(3)), omendb.Index(np.eye(3), ids=list("abc"))
    one = np.zeros((1, 1), np.int64)
    make, (answers, exact) = labelled.search(np.eye(3), 2).__reduce__()
    ids, distances, lines = answers
    wrong: list[tuple[Any, ...]] = [
        ((ids + 1, distances, lines), exact),
        ((ids - 1, distances, lines), exact),
        ((ids, distances[:1], lines), exact),
        ((ids, distances, lines), exact[:1]),
        ((ids[0], distances[0], lines), exact),
        ((ids[0, 0], distances[0, 0], lines), exact),
        ((ids, distances, lines[:9]), exact),
        ((ids, distances, b""), exact),
        ((ids.astype(np.int32), distances, None), exact),
        (
            (
                np.frombuffer(b"." + ids.tobytes(), ids.dtype, offset=1).reshape(3, 2),
                distances,
                lines,
            ),
            exact,
        ),
        ((ids, distances.astype(np.float16), None), exact),
        ((ids, distances.tolist(), None), exact),
    ]
    for state in wrong:
        with pytest.raises((ValueError, TypeError)):
            make(*state)
    make, (answers, offsets, single) = index.search_radius(np.eye(3), 1).__reduce__()
    states = [([0, 1, 2, 3], True)]
    states += [(offsets, False) for offsets in ([], [0], [0, 2, 1, 3], [1, 3], [0, 4], [-1, 3])]
    for offsets, single in states:
        with pytest.raises((ValueError, OverflowError)):
            make(answers, offsets, single)
    with pytest.raises(ValueError, match="pickled answers"):
        make((one, np.zeros((1, 2)), None), [0, 1], False)


# Filters ----------------------------------------------------------------------------------


def test_a_filter_is_a_mask_over_index_ids_or_a_list_of_ids(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((50, 4))
    index = omendb.Index(rows, ids=np.arange(50) * 10)
    index.remove([100, 200])
    mask = (index.ids % 30 == 0) & (index.ids > 100)
    by_mask = index.search(rows, 8, filter=mask)
    for chosen in (
        index.ids[mask],
        index.ids[mask].tolist(),
        index.ids[mask][::-1],
        index.ids[mask].astype(np.uint16),
        index.ids[mask].astype(">i4"),
        np.repeat(index.ids[mask], 3),
    ):
        by_ids = index.search(rows, 8, filter=chosen)
        np.testing.assert_array_equal(by_ids.ids, by_mask.ids)
        np.testing.assert_array_equal(by_ids.distances, by_mask.distances)
    np.testing.assert_array_equal(index.search(rows, 8, filter=mask.tolist()).ids, by_mask.ids)
    strided = np.repeat(mask, 2)[::2]
    np.testing.assert_array_equal(index.search(rows, 8, filter=strided).ids, by_mask.ids)
    assert set(by_mask.ids.ravel()) <= set(index.ids[mask])


def test_a_filter_limits_the_width_of_the_answer(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2000, 4))
    index = omendb.Index(rows)
    for count in (0, 1, 2, 9, 10, 11, 1999, 2000):
        chosen = rng.permutation(2000)[:count].astype(np.int64)
        assert index.search(rows[:3], 10, filter=chosen).ids.shape == (3, min(10, count))
        assert index.search(rows[0], 10, filter=chosen).ids.shape == (min(10, count),)


# Progress ---------------------------------------------------------------------------------


def test_a_callable_hears_of_progress(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4000, 32)).astype(np.float32)
    heard: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        heard.append((done, total))

    def check() -> None:
        assert heard
        assert all(type(number) is int for pair in heard for number in pair)
        done = [pair[0] for pair in heard]
        assert done == sorted(done)
        assert len({total for _, total in heard}) == 1
        assert heard[-1][0] == heard[-1][1] > 0
        assert done[0] >= 0
        heard.clear()

    index = omendb.Index(rows, progress=listen)
    check()
    hits = index.search(rows, 5, progress=listen)
    check()
    np.testing.assert_array_equal(hits.ids, index.search(rows, 5).ids)
    index.search_radius(rows[:500], 3.0, progress=listen)
    check()
    index.add(rows, progress=listen)
    check()
    index.update(index.ids[:2000], rows[:2000], progress=listen)
    check()


def test_progress_true_draws_a_bar_where_tqdm_is(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm.auto")
    rows = rng.standard_normal((3000, 16))
    index = omendb.Index(rows, progress=True)
    index.search(rows, 5, progress=True)
    assert capsys.readouterr().err
    index.search(rows, 5, progress=False)
    assert not capsys.readouterr().err


def test_progress_true_is_silent_where_tqdm_is_not(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    rows = rng.standard_normal((300, 16))
    index = omendb.Index(rows, progress=True)
    assert index.search(rows, 5, progress=True).ids.shape == (300, 5)


def test_an_error_in_a_progress_callable_reaches_the_user_and_changes_nothing(
    rng: np.random.Generator,
) -> None:
    def fail(done: int, total: int) -> None:
        raise LookupError("not today")

    rows = rng.standard_normal((3000, 16))
    index = omendb.Index(rows[:10])
    before = state_of(index)
    calls: list[Callable[[], Any]] = [
        lambda: omendb.Index(rows, progress=fail),
        lambda: index.search(rows, progress=fail),
        lambda: index.search_radius(rows, 1.0, progress=fail),
        lambda: index.add(rows, progress=fail),
        lambda: index.update(range(10), rows[:10] + 1, progress=fail),
    ]
    for call in calls:
        with pytest.raises(LookupError, match="not today"):
            call()
        assert state_of(index) == before


# Nothing changes when a call fails --------------------------------------------------------

_nan = np.ones((3, 4), np.float32)
_nan[2, 1] = np.nan
_three = np.ones((3, 4), np.float32)

FAILING: dict[str, Callable[[omendb.Index], Any]] = {
    "add of NaN": lambda index: index.add(_nan),
    "add of another width": lambda index: index.add(np.ones((3, 5))),
    "add of 3-D": lambda index: index.add(np.ones((3, 4, 1))),
    "add of strings": lambda index: index.add(np.array([["a"] * 4])),
    "add with a known id": lambda index: index.add(_three, ids=[5000, 5001, 0]),
    "add with a repeated id": lambda index: index.add(_three, ids=[5000, 5001, 5000]),
    "add with too few ids": lambda index: index.add(_three, ids=[5000, 5001]),
    "add with ids of another kind": lambda index: index.add(_three, ids=[0.5, 1.5, 2.5]),
    "add on no threads": lambda index: index.add(_three, threads=0),
    "add with a strange progress": lambda index: index.add(_three, progress=3),  # type: ignore[arg-type]
    "remove of an unknown id": lambda index: index.remove([0, 1, 2, 99_999]),
    "remove of a repeated id": lambda index: index.remove([0, 1, 2, 1]),
    "remove of floats": lambda index: index.remove([0.0]),
    "remove of a scalar array of ids in 2-D": lambda index: index.remove([[0, 1]]),
    "update of an unknown id": lambda index: index.update([0, 1, 99_999], _three),
    "update of a repeated id": lambda index: index.update([0, 1, 0], _three),
    "update with NaN": lambda index: index.update([0, 1, 2], _nan),
    "update with too few rows": lambda index: index.update([0, 1, 2], _three[:2]),
    "update with too many rows": lambda index: index.update([0, 1], _three),
    "update of another width": lambda index: index.update([0], np.ones((1, 3))),
    "search with NaN": lambda index: index.search(_nan),
    "search of another width": lambda index: index.search(np.ones((3, 5))),
    "search for 0": lambda index: index.search(_three, 0),
    "search with a short mask": lambda index: index.search(_three, filter=[True]),
    "search among unknown ids": lambda index: index.search(_three, filter=[99_999]),
    "search by a strange method": lambda index: index.search(_three, method="magic"),  # type: ignore[arg-type]
    "radius search with NaN": lambda index: index.search_radius(_three, float("nan")),
}


@pytest.mark.parametrize("call", FAILING)
def test_nothing_changes_when_a_call_fails(call: str, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1100, 4)).astype(np.float32)
    fresh = omendb.Index(rows)
    edited = omendb.Index(rows, metric="cosine")
    edited.remove([7, 1030])
    edited.add(rows[:5])
    for index in (fresh, edited):
        before = state_of(index)
        with pytest.raises((ValueError, TypeError)):
            FAILING[call](index)
        assert state_of(index) == before
        next_id = int(index.ids.max()) + 1
        np.testing.assert_array_equal(index.add(rows[:1]), [next_id])  # nor a hidden counter


def test_an_add_past_the_largest_id_fails_and_changes_nothing() -> None:
    index = omendb.Index(np.eye(2), ids=[0, 2**63 - 1])
    before = state_of(index)
    with pytest.raises(ValueError, match="id"):
        index.add(np.eye(2))
    assert state_of(index) == before
    index.add(np.eye(2), ids=[1, 2])
    assert len(index) == 4


# Any history ------------------------------------------------------------------------------


class History(RuleBasedStateMachine):
    """Random edits and searches of an index beside a dict of NumPy rows."""

    def __init__(self) -> None:
        super().__init__()
        self.index = omendb.Index(dim=1)
        self.twin: dict[int, Array] = {}
        self.rng = np.random.default_rng(0)
        self.largest = -1
        self.metric = "euclidean"
        self.dtype = "float32"
        self.dim = 1

    def _draw(self, n: int) -> Array:
        values = self.rng.standard_normal((n, self.dim))
        if self.rng.random() < 0.3:
            values = np.round(values)  # ties
        if self.rng.random() < 0.1:
            values *= 1e4
        return cast(values * 20, self.dtype)

    def _some_ids(self, count: int) -> Array:
        return self.rng.permutation(np.array(list(self.twin), np.int64))[:count]

    @property
    def _rows(self) -> Array:
        rows = np.empty((len(self.twin), self.dim), dtype_of(self.dtype))
        for i, row in enumerate(self.twin.values()):
            rows[i] = row
        return rows

    @property
    def _ids(self) -> Array:
        return np.array(list(self.twin), np.int64)

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        metric=st.sampled_from(METRICS),
        dtype=st.sampled_from(DTYPES),
        dim=st.sampled_from([1, 2, 8, 9, 33]),
        n=st.sampled_from([0, 1, 5, 40, 1023, 1024, 1100]),
    )
    def start(self, seed: int, metric: str, dtype: str, dim: int, n: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.metric, self.dtype, self.dim = metric, dtype, dim
        rows = self._draw(n)
        self.index = omendb.Index(rows, metric=metric)
        self.twin = dict(enumerate(rows.copy()))
        self.largest = n - 1

    @rule(n=st.sampled_from([0, 1, 2, 17, 90, 400, 600, 1024]))
    def add(self, n: int) -> None:
        rows = self._draw(n)
        ids = self.index.add(rows)
        np.testing.assert_array_equal(ids, np.arange(self.largest + 1, self.largest + 1 + n))
        self.twin.update(zip(ids.tolist(), rows, strict=True))
        self.largest += n

    @rule(n=st.integers(1, 20))
    def add_with_ids(self, n: int) -> None:
        rows = self._draw(n)
        ids = np.setdiff1d(self.rng.integers(-5000, 5000, n), self._ids)
        ids = self.rng.permutation(ids)
        np.testing.assert_array_equal(self.index.add(rows[: len(ids)], ids=ids), ids)
        self.twin.update(zip(ids.tolist(), rows, strict=False))
        self.largest = max(self.largest, int(ids.max(initial=-1)))

    @rule(share=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.95, 1.0]))
    def remove(self, share: float) -> None:
        gone = self._some_ids(int(np.ceil(share * len(self.twin))))
        self.index.remove(gone)
        for id in gone.tolist():
            del self.twin[id]

    @rule(n=st.integers(0, 60))
    def update(self, n: int) -> None:
        ids = self._some_ids(n)
        rows = self._draw(len(ids))
        self.index.update(ids, rows)
        self.twin.update(zip(ids.tolist(), rows, strict=True))

    @rule(again=st.booleans())
    def fail(self, again: bool) -> None:
        unknown = self.largest + 1000
        rows = self._draw(1)
        with pytest.raises(ValueError, match=r"\d"):
            self.index.remove([*self._some_ids(3), unknown])
        with pytest.raises(ValueError, match=r"\d"):
            self.index.update([unknown], rows)
        if self.twin and again:
            with pytest.raises(ValueError, match=r"\d"):
                self.index.add(rows, ids=self._some_ids(1))

    @rule()
    def pickle(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))
        # A pickle holds rows, ids and metric; ids that were removed before are forgotten.
        self.index.add(self._draw(1), ids=[self.largest + 1])
        self.index.remove([self.largest + 1])
        self.largest += 1

    @rule(verify=st.booleans(), twice=st.booleans())
    def save_and_load(self, verify: bool, twice: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:  # mapped files live on without their names
            path = Path(folder) / "x.omen"
            self.index.save(path)
            if twice:
                omendb.Index.load(path).save(path)
            self.index = omendb.Index.load(path, verify=verify)

    @rule(k=st.sampled_from([1, 3, 10, 2000]), n=st.integers(1, 9), threads=st.integers(1, 3))
    def search(self, k: int, n: int, threads: int) -> None:
        queries = self._draw(n)
        hits = self.index.search(queries, k, threads=threads)
        ids, far = nearest(self.metric, queries, self._rows, k, self._ids)
        np.testing.assert_array_equal(hits.ids, ids)
        np.testing.assert_array_equal(hits.distances, far)

    @rule(share=st.sampled_from([0.0, 0.01, 0.5, 1.0]), mask=st.booleans())
    def search_filtered(self, share: float, mask: bool) -> None:
        queries = self._draw(3)
        chosen = self.rng.random(len(self.twin)) < share
        given = chosen if mask else self._ids[chosen]
        hits = self.index.search(queries, 5, filter=given)
        ids, far = nearest(self.metric, queries, self._rows, 5, self._ids, chosen)
        np.testing.assert_array_equal(hits.ids, ids)
        np.testing.assert_array_equal(hits.distances, far)

    @rule(rank=st.integers(0, 50))
    def search_radius(self, rank: int) -> None:
        queries = self._draw(2)
        _, far = nearest(self.metric, queries[:1], self._rows, rank + 1)
        radius = float(far[0, -1]) if far.size else 1.0
        hits = self.index.search_radius(queries, radius)
        offsets, ids, far = within(self.metric, queries, self._rows, radius, self._ids)
        np.testing.assert_array_equal(hits.offsets, offsets)
        np.testing.assert_array_equal(hits.ids, ids)
        np.testing.assert_array_equal(hits.distances, far)

    @invariant()
    def shows_its_rows(self) -> None:
        assert len(self.index) == len(self.twin)
        np.testing.assert_array_equal(self.index.ids, self._ids)
        if self.twin:
            np.testing.assert_array_equal(self.index.vectors, self._rows)
            assert self.index.vectors.dtype == dtype_of(self.dtype)


TestAnyHistory = History.TestCase


def test_an_edit_gets_its_turn_beside_a_thread_that_asks_for_one_again_and_again() -> None:
    index = omendb.Index(np.random.default_rng(0).standard_normal((2000, 8)), method="graph")
    done = threading.Event()

    def again() -> None:
        while not done.is_set():
            index.check()

    other = threading.Thread(target=again)
    other.start()
    editor = threading.Thread(target=index.remove, args=([0],), daemon=True)
    editor.start()
    editor.join(20)
    done.set()
    other.join()
    assert not editor.is_alive(), "it never had a turn"
    editor.join()
