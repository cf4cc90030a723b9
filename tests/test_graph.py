"""The graph: measured recall, full answers, clean links through any edit, hard data, guests."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from reference import (
    DTYPES,
    MAKERS,
    Array,
    cast,
    digest,
    distances,
    make,
    rounded,
    run_python,
)
from test_guest import INTERRUPT, LONG
from test_index import History

import omendb

METRICS = ("euclidean", "sqeuclidean", "cosine", "inner_product")
LINKINGS = ("euclidean", "cosine", "inner_product")  # sqeuclidean has the links of euclidean
UNLINKED = ("manhattan", "chebyshev")
DEGREE = 32


# Data -------------------------------------------------------------------------------------


def clustered(rng: np.random.Generator, n: int, dim: int = 48) -> Array:
    """Rows around forty centres, each spread along eight directions of its own."""
    bases, centres = rng.standard_normal((40, 8, dim)), 4 * rng.standard_normal((40, dim))
    of = rng.integers(0, 40, n)
    rows = 0.05 * rng.standard_normal((n, dim)) + centres[of]
    for i, basis in enumerate(bases):
        mine = of == i
        rows[mine] += rng.standard_normal((int(mine.sum()), 8)) @ basis
    return rows.astype(np.float32)


def uniform(rng: np.random.Generator, n: int) -> Array:
    """Rows that fill a cube of four dimensions evenly."""
    return rng.random((n, 4)).astype(np.float32)


SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "clustered": clustered,
    "uniform": uniform,
}


# What must hold ---------------------------------------------------------------------------


def assert_full(
    index: omendb.Index,
    queries: Array,
    hits: omendb.Hits,
    k: int,
    allowed: Array | None = None,
) -> None:
    """Answers are as many as there can be, of rows that may answer, and judged to the last bit."""
    ids, rows = index.ids, index.vectors
    allowed = np.ones(len(ids), np.bool_) if allowed is None else allowed
    assert hits.ids.shape == hits.distances.shape == (len(queries), min(k, int(allowed.sum())))
    order = np.argsort(ids)
    for query, found, far in zip(queries, hits.ids, hits.distances, strict=True):
        assert len(np.unique(found)) == len(found), "a row answers twice"
        assert np.isin(found, ids).all(), "an answer that is not in the index"
        at = order[np.searchsorted(ids, found, sorter=order)]
        assert allowed[at].all(), "an answer that the filter excludes"
        true = distances(index.metric, query, rows[at])
        np.testing.assert_array_equal(far, rounded(true, rows.dtype))
        np.testing.assert_array_equal(np.lexsort((at, true)), np.arange(len(at)))


def assert_clean(index: omendb.Index) -> dict[str, int]:
    """Every row can be reached, no link leads to a removed row, and none has too many."""
    check = index.check()
    assert check is not None, "no graph was made"
    assert check["rows"] == len(index)
    assert check["unreachable"] == 0, check
    assert check["dangling"] == 0, check
    assert check["degree"] <= DEGREE, check
    assert check["links"] <= DEGREE * check["rows"], check
    return check


def share_found(hits: omendb.Hits, truth: omendb.Hits) -> float:
    """The share of the true answers that were found; equally far ones count."""
    return float((hits.distances <= truth.distances[:, -1:]).mean())


def recall_of(index: omendb.Index, queries: Array, k: int = 10, **how: Any) -> float:
    """The recall of full, truly judged answers of the graph."""
    mask = how.get("filter")
    truth = index.search(queries, k, method="exact", filter=mask)
    assert np.all(truth.exact)
    hits = index.search(queries, k, method="graph", **how)
    few = slice(0, 40)  # judging all of them again would only take time
    assert_full(index, queries[few], index.search(queries[few], k, method="graph", **how), k, mask)
    np.testing.assert_array_equal(hits.ids[hits.exact], truth.ids[hits.exact])
    np.testing.assert_array_equal(hits.distances[hits.exact], truth.distances[hits.exact])
    return share_found(hits, truth)


def walks_of(index: omendb.Index, queries: Array) -> str:
    """A digest of narrow walks, which almost any other link would change, and of all links."""
    answers = [
        index.search(queries, k, method="graph", effort=effort)
        for k, effort in ((1, 1), (1, 2), (1, 5), (5, 8), (10, 15), (10, 40))
    ]
    arrays = [array for hits in answers for array in (hits.ids, hits.distances, hits.exact)]
    return digest(*map(np.asarray, arrays)) + f" {index.check()}"


def state_of(index: omendb.Index) -> str:
    """A digest of everything a user can see of an index with a graph."""
    probe = np.linspace(-1, 1, 20 * index.dim).reshape(20, index.dim)
    exact = index.search(probe, 5, method="exact")
    seen = digest(index.ids, index.vectors, exact.ids, exact.distances)
    facts = f" {len(index)} {index.effort} {index.has_graph}"
    return seen + facts + (walks_of(index, probe) if index.has_graph else "")


# Recall -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metric", METRICS)
def test_a_tuned_graph_finds_what_it_was_tuned_to(
    metric: str, shape: str, rng: np.random.Generator
) -> None:
    rows = SHAPES[shape](rng, 12_800)
    rows, asked, unseen = rows[:12_000], rows[12_000:12_400], rows[12_400:]
    index = omendb.Index(rows, metric=metric, method="graph")
    if index.check() is not None:  # codes do not tell every angle in a cube apart
        assert_clean(index)
    report = index.tune(0.95, queries=asked)
    assert recall_of(index, asked[::2]) >= 0.95  # the half that chose
    # 200 queries choose and 400 are asked: by inner product recalls spread by 0.15 a query, so
    # that the two means may lie 0.05 apart, four standard errors.
    assert recall_of(index, unseen) >= 0.9
    assert report.effort <= 128, "as good as looking at every row"
    assert recall_of(index, unseen, effort=400) >= 0.98


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metric", METRICS)
def test_queries_of_its_own_making_tune_nearly_as_well(
    metric: str, shape: str, rng: np.random.Generator
) -> None:
    rows = SHAPES[shape](rng, 12_400)
    rows, unseen = rows[:12_000], rows[12_000:]
    index = omendb.Index(rows, metric=metric, method="graph")
    report = index.tune(0.95)
    found = recall_of(index, unseen)
    assert found >= 0.9
    assert found >= report.recall - 0.06, "the report promises too much"


def test_real_embeddings_reach_their_recall(
    rng: np.random.Generator, debian_packages: Array
) -> None:
    chosen = rng.permutation(len(debian_packages))[:20_800]
    vectors = debian_packages[chosen]
    rows, asked, unseen = vectors[:20_000], vectors[20_000:20_400], vectors[20_400:]
    index = omendb.Index(rows, metric="cosine", method="graph")
    assert_clean(index)
    index.tune(0.95, queries=asked)
    assert recall_of(index, asked[::2]) >= 0.95
    assert recall_of(index, unseen) >= 0.92
    assert recall_of(index, unseen, effort=400) >= 0.99


def test_the_report_on_real_embeddings_promises_what_real_queries_find(
    rng: np.random.Generator, debian_packages: Array
) -> None:
    chosen = rng.permutation(len(debian_packages))[:20_800]
    vectors = debian_packages[chosen]
    index = omendb.Index(vectors[:20_000], metric="cosine", method="graph")
    report = index.tune(0.95)
    found = recall_of(index, vectors[20_000:])
    assert found >= 0.92
    assert found >= report.recall - 0.03, "the report promises too much"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type_is_linked(dtype: str, rng: np.random.Generator) -> None:
    rows = cast(4 * clustered(rng, 6200, 24).astype(np.float64), dtype)
    index = omendb.Index(rows[:6000], method="graph")
    assert_clean(index)
    assert recall_of(index, rows[6000:], effort=64) >= 0.97
    index.add(rows[6000:])
    assert_clean(index)
    assert recall_of(index, rows[5900:6100], effort=64) >= 0.97


@pytest.mark.parametrize("metric", METRICS)
def test_a_wider_beam_finds_more(metric: str, rng: np.random.Generator) -> None:
    rows = clustered(rng, 10_300)
    index = omendb.Index(rows[:10_000], metric=metric, method="graph")
    found = [recall_of(index, rows[10_000:], effort=effort) for effort in (15, 30, 60, 240)]
    for narrow, wide in pairwise(found):
        assert wide >= narrow - 0.005
    assert found[-1] >= 0.98
    assert recall_of(index, rows[10_000:], k=1, effort=32) >= 0.95
    assert recall_of(index, rows[10_000:], k=100, effort=200) >= 0.97


def test_a_walk_by_products_finds_answers_in_any_group(rng: np.random.Generator) -> None:
    rows = clustered(rng, 12_400, 24)
    index = omendb.Index(rows[:12_000], metric="inner_product", method="graph")
    assert recall_of(index, rows[12_000:], effort=200) >= 0.98  # from one head alone, 0.95 to 0.99


# Edits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", LINKINGS)
def test_the_graph_is_clean_after_every_edit(metric: str, rng: np.random.Generator) -> None:
    pool = clustered(rng, 14_000, 24)
    asked = pool[-100:]
    index = omendb.Index(pool[:5000], metric=metric, method="graph")

    def check() -> None:
        assert_clean(index)
        assert recall_of(index, asked, effort=200) >= 0.95

    check()
    for size in (1, 3, 500, 1600, 7000):  # the last is so many that links are made anew
        some = rng.integers(0, len(pool), size)
        index.add(pool[some])
        check()
        index.remove(rng.permutation(index.ids)[:size])
        check()
        some = rng.permutation(index.ids)[: size // 2]
        index.update(some, pool[rng.integers(0, len(pool), len(some))])
        check()
    index.remove(rng.permutation(index.ids)[: len(index) * 99 // 100])
    check()
    index.add(pool[:3000])
    check()
    index.remove(index.ids[1:])
    check()
    index.remove(index.ids)
    assert len(index) == 0
    assert index.has_graph
    assert index.search(asked, method="graph").ids.shape == (100, 0)
    index.add(pool[:2])
    check()
    index.add(pool[:4000])
    check()


@pytest.mark.parametrize("batch", [1, 37, 1024])
def test_a_graph_grows_from_nothing(batch: int, rng: np.random.Generator) -> None:
    pool = clustered(rng, 3200, 16)
    index = omendb.Index(dim=16, metric="cosine", method="graph")
    assert index.has_graph
    assert index.search(pool[:2], method="graph").ids.shape == (2, 0)
    for start in range(0, 600 if batch == 1 else 3000, batch):
        ids = index.add(pool[start : start + batch])
        assert ids[0] == start
        if start % 20 == 0:
            assert_clean(index)
    assert_clean(index)
    assert recall_of(index, pool[3000:], effort=128) >= 0.97


def test_ten_turnovers_cost_no_recall(rng: np.random.Generator) -> None:
    pool = clustered(rng, 22_200, 32)
    index = omendb.Index(pool[:2000], method="graph")
    asked = pool[22_000:]
    for start in range(2000, 22_000, 500):
        index.add(pool[start : start + 500])
        index.remove(index.ids[:500])
        assert_clean(index)
    fresh = omendb.Index(index.vectors, method="graph")
    np.testing.assert_array_equal(index.ids, np.arange(20_000, 22_000))
    for effort in (15, 30, 60):
        old, new = (recall_of(one, asked, effort=effort) for one in (index, fresh))
        assert old >= new - 0.02


def test_longer_rows_may_come_later(rng: np.random.Generator) -> None:
    # Links for inner products are made for the longest row at the build.
    rows = clustered(rng, 8200, 24)
    rows, asked = rows[:8000], rows[8000:]
    index = omendb.Index(rows[:6000], metric="inner_product", method="graph")
    index.add(rows[6000:] * rng.uniform(1, 10, (2000, 1)).astype(np.float32))
    assert_clean(index)
    assert recall_of(index, asked, effort=400) >= 0.95


@pytest.mark.parametrize("edit", ["add", "update"])
def test_rows_longer_than_all_before_cost_no_recall(edit: str, rng: np.random.Generator) -> None:
    # A few at a time, and each hardly longer: what they are lifted to is that of the build.
    rows = clustered(rng, 2700, 24)
    new, asked = rows[2000:2600] * 1.5, rows[2600:]
    index = omendb.Index(rows[:2000], metric="inner_product", method="graph")
    for start in range(0, 600, 20):
        some = new[start : start + 20]
        if edit == "add":
            index.add(some)
        else:
            index.update(np.arange(start, start + 20), some)
    assert_clean(index)
    recall = recall_of(index, asked)
    index.build_graph()
    assert recall >= recall_of(index, asked) - 0.05


def test_rows_that_come_later_may_lie_far_away(rng: np.random.Generator) -> None:
    # What the codes were made for is nothing like these; they come in place, a few at a time.
    rows = rng.standard_normal((4000, 16))
    index = omendb.Index(rows, method="graph")
    far = 1e5 + rng.standard_normal((1000, 16))
    for start in range(0, 1000, 250):
        index.add(far[start : start + 250])
    if index.check() is not None:
        assert_clean(index)
    assert recall_of(index, far[:100] + 0.1, effort=1000) >= 0.95
    assert recall_of(index, rows[:100] + 0.1, effort=1000) >= 0.95


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("n", "dim"), [(3000, 96), (6000, 200)])
def test_a_row_in_the_middle_of_all_costs_no_recall(
    n: int, dim: int, metric: str, rng: np.random.Generator
) -> None:
    # Nearer to every other row than these are to each other, so that it makes their links
    # superfluous: a row of zeros, or the mean of a cloud. One leaf, and several with refining.
    rows, asked = rng.standard_normal((n, dim)), rng.standard_normal((100, dim))
    expected = recall_of(omendb.Index(rows, metric=metric, method="graph"), asked, effort=100)
    for zeros in (1, 30):
        rows[:zeros] = 0
        index = omendb.Index(rows, metric=metric, method="graph")
        assert_clean(index)
        assert recall_of(index, asked, effort=100) >= expected - 0.03
    index.remove(np.arange(30))
    index.build_graph()
    assert_clean(index)
    assert recall_of(index, asked, effort=100) >= expected - 0.03


@pytest.mark.parametrize("change", [lambda x: x + 50, lambda x: x / 1000])
def test_rows_that_are_updated_a_few_at_a_time_may_end_up_elsewhere(
    change: Callable[[Array], Array], rng: np.random.Generator
) -> None:
    rows, asked = rng.standard_normal((3000, 32)), change(rng.standard_normal((100, 32)))
    index, plain = omendb.Index(rows, method="graph"), omendb.Index(rows)
    for start in range(0, 3000, 300):
        ids = np.arange(start, start + 300)
        index.update(ids, change(rows[ids]))
        plain.update(ids, change(rows[ids]))
    assert_clean(index)
    assert recall_of(index, asked) >= 0.95
    assert plain.explain(asked[0], 10).judged <= 100


def test_an_edit_of_many_rows_costs_searches_meanwhile_no_recall(rng: np.random.Generator) -> None:
    rows = clustered(rng, 6000)
    index = omendb.Index(rows, method="graph")
    asked = rows[:200] + 0.01
    expected, during = recall_of(index, asked), []

    def progress(done: int, total: int) -> None:
        if done == total:
            during.append(recall_of(index, asked))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        index.update(np.arange(2000), clustered(rng, 2000), progress=progress)
    assert during == [expected]
    assert recall_of(index, asked) == expected


def test_what_is_read_of_links_waits_for_edits(rng: np.random.Generator, tmp_path: Path) -> None:
    # So few that their links are written where they are.
    rows = clustered(rng, 6000)
    index = omendb.Index(rows[:5990], method="graph")
    path = tmp_path / "x.omen"
    made, go = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        if done == total:
            with pytest.raises(RuntimeError, match="being edited by the call"):
                index.save(path)
            assert index.check() is not None
            with pytest.raises(ValueError, match="being edited by the call"):
                index.tune(k=5)  # which reads links as well
            made.set()
            go.wait(60)

    def late() -> None:
        made.wait(60)
        waiting.set()
        index.save(path)

    waiting = threading.Event()
    editor = threading.Thread(target=index.add, args=(rows[5990:],), kwargs={"progress": progress})
    saver = threading.Thread(target=late)
    editor.start()
    saver.start()
    waiting.wait(60)
    saver.join(0.2)
    assert saver.is_alive()
    assert not path.exists()
    go.set()
    editor.join()
    saver.join()
    loaded = omendb.Index.load(path)
    assert len(loaded) == 6000
    assert loaded.check() == assert_clean(index)


def test_building_again_replaces_the_graph(rng: np.random.Generator) -> None:
    rows = clustered(rng, 6000, 16)
    index = omendb.Index(rows)
    assert not index.has_graph
    assert index.check() is None
    index.build_graph(seed=3)
    assert index.has_graph
    asked = rows[:50] + 0.1
    first = walks_of(index, asked)
    assert first == walks_of(omendb.Index(rows, method="graph", seed=3), asked)
    index.build_graph(seed=4)
    assert_clean(index)
    index.build_graph(seed=3)
    assert walks_of(index, asked) == first
    index.remove(index.ids[::3])
    index.build_graph(seed=3)  # removed rows still hold their places
    assert_clean(index)
    assert recall_of(index, asked, effort=128) >= 0.97


# The same at any number of threads --------------------------------------------------------


@pytest.mark.parametrize("metric", LINKINGS)
@pytest.mark.parametrize("n", [3000, 9000])
def test_one_seed_gives_one_graph_at_any_number_of_threads(
    n: int, metric: str, seed: int, rng: np.random.Generator
) -> None:
    rows = clustered(rng, n + 4000, 32)
    rows, later = rows[:n], rows[n:]
    asked = rows[rng.integers(0, n, 300)] + 0.3 * rng.standard_normal((300, 32))
    index, twin = (
        omendb.Index(rows, metric=metric, method="graph", seed=seed, threads=threads)
        for threads in (1, 2)
    )
    assert walks_of(index, asked) == walks_of(twin, asked)
    gone = rng.permutation(n)[: n // 5]
    changed = np.setdiff1d(np.arange(n), gone)[:700]
    for one, threads in ((index, 1), (twin, 2)):
        one.add(later[:900], threads=threads)
        one.remove(gone)
        one.update(changed, later[900:1600], threads=threads)
    assert_clean(index)
    assert walks_of(index, asked) == walks_of(twin, asked)
    for one, threads in ((index, 1), (twin, 2)):
        one.add(later, threads=threads)
        one.build_graph(seed=seed + 1, threads=threads)
    assert walks_of(index, asked) == walks_of(twin, asked)
    one_thread, two_threads = (index.search(asked, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one_thread.ids, two_threads.ids)


def test_another_seed_gives_another_graph(rng: np.random.Generator) -> None:
    rows = clustered(rng, 9000, 32)
    asked = rng.standard_normal((300, 32))
    walks = {walks_of(omendb.Index(rows, method="graph", seed=seed), asked) for seed in (0, 1, 2)}
    assert len(walks) == 3  # and so the tests above would see a difference


# Hard data --------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", LINKINGS)
@pytest.mark.parametrize("kind", MAKERS)
def test_hard_data_has_full_and_right_answers(
    kind: str, metric: str, rng: np.random.Generator
) -> None:
    for n, dim, dtype in ((1500, 24, "float32"), (2000, 5, "float64")):
        rows, queries = make(rng, kind, n, dim, 12, dtype)
        index = omendb.Index(rows, metric=metric, method="graph")
        assert index.has_graph
        if index.check() is not None:
            assert_clean(index)
        recall_of(index, queries)  # full and truly judged
        index.remove(rng.permutation(n)[: n // 4])
        index.add(rows[: n // 8])
        if index.check() is not None:
            assert_clean(index)
        assert_full(index, queries, index.search(queries, 10, method="graph"), 10)


@pytest.mark.parametrize("metric", LINKINGS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_beam_as_wide_as_hard_data_finds_it(
    kind: str, metric: str, rng: np.random.Generator
) -> None:
    rows = cast(MAKERS[kind](rng, 2100, 12), "float64")
    rows, queries = rows[:2000], rows[2000:]  # alike
    index = omendb.Index(rows, metric=metric, method="graph")
    assert recall_of(index, queries, effort=2000) >= 0.9


@pytest.mark.parametrize("metric", LINKINGS)
@pytest.mark.parametrize("kind", ["duplicates", "thousand_identical", "sorted_clusters"])
def test_repeated_and_sorted_rows_are_found(
    kind: str, metric: str, rng: np.random.Generator
) -> None:
    rows, queries = make(rng, kind, 9000, 24, 200, "float32")
    index = omendb.Index(rows, metric=metric, method="graph")
    if index.check() is not None:
        assert_clean(index)
    assert recall_of(index, queries, effort=1000) >= 0.95
    assert recall_of(index, queries, k=200, effort=1000) >= 0.95


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_copies_in_the_middle_of_all_rows_hide_none_of_them(
    metric: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    # They are nearer to each row than other rows are, and more than a beam or a row's links hold.
    rows = (1 + rng.standard_normal((6200, 24))).astype(np.float32)
    rows, queries = rows[:6000], rows[6000:]
    copies = np.tile(rows.mean(axis=0), (1500, 1))
    edited = omendb.Index(rows, metric=metric, method="graph")
    # They come as many, as few and one by one, and go in the order in which each follows another.
    ids = [edited.add(some) for some in np.split(copies, [700, 1000, *range(1001, 1500)])]
    together = np.concatenate([copies, rows])[rng.permutation(7500)]
    for index in (edited, omendb.Index(together, metric=metric, method="graph")):
        path = tmp_path / "copies.omen"
        index.save(path)
        for one in (index, omendb.Index.load(path)):
            assert_clean(one)
            assert recall_of(one, queries) >= 0.985
            assert recall_of(one, queries, filter=rng.random(7500) < 0.9) >= 0.95
            assert recall_of(one, copies[:3], 300) == 1.0
            last = np.arange(7500) < 5990
            last[7495:] = True  # the last copies alone, where they came last
            assert recall_of(one, copies[:3], filter=last) == 1.0
    gone = np.concatenate(ids)
    for some in (gone[:1], gone[1:700], gone[1200::2], gone[701:1200], gone[700:701]):
        edited.remove(some)
        assert_clean(edited)
        assert recall_of(edited, queries) >= 0.985
        assert recall_of(edited, copies[:3]) == 1.0
    edited.update(np.arange(200), copies[:200])
    assert_clean(edited)
    assert recall_of(edited, queries) >= 0.97
    edited.remove(np.arange(150, 6000))
    assert_clean(edited)
    assert recall_of(edited, queries) == 1.0  # nothing but copies


@pytest.mark.parametrize("metric", METRICS)
def test_identical_rows_go_by_row(metric: str, rng: np.random.Generator) -> None:
    rows = np.tile(rng.standard_normal(8), (3000, 1)).astype(np.float32)
    index = omendb.Index(rows, metric=metric, method="graph")
    assert_clean(index)
    for k in (1, 10, 1000, 2999, 3000, 3001):
        assert recall_of(index, rows[:3] + 0.1, k, effort=64) == 1.0
    index.remove(rng.permutation(3000)[:1400])
    index.add(rows[:300])
    assert_clean(index)
    assert recall_of(index, rows[:3], 100) == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_few_rows_and_many_answers(metric: str, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((200, 6)).astype(np.float32)
    asked = rng.standard_normal((200, 6)).astype(np.float32)
    for n in (1, 2, 3, 7, 33, 200):
        index = omendb.Index(rows[:n], metric=metric, method="graph")
        assert_clean(index)
        for k in (1, max(n - 1, 1), n, n + 1, 10 * n, 2**40):
            assert recall_of(index, asked, k, effort=1) >= 0.6
            assert recall_of(index, asked, k, effort=200) >= 0.95
        index.search(rows[0], n, method="graph", effort=2**40)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "dim"), [(6000, 1), (6000, 2), (1200, 4096)])
def test_few_and_many_dimensions(n: int, dim: int, metric: str, rng: np.random.Generator) -> None:
    rows, queries = make(rng, "low_rank" if dim > 2 else "gaussian", n, dim, 50, "float32")
    index = omendb.Index(rows, metric=metric, method="graph")
    if index.check() is not None:
        assert_clean(index)
    assert recall_of(index, queries, effort=400) >= 0.95


def test_small_groups_far_from_the_rest_are_found(rng: np.random.Generator) -> None:
    # Too small for a head of their own, perhaps: walks must come to them from elsewhere.
    of = rng.permutation(np.repeat(np.arange(40), [16_100, *[100] * 39]))
    basis, centres = rng.standard_normal((8, 24)), 5 * rng.standard_normal((40, 24))

    def draw(of: Array) -> Array:
        return (rng.standard_normal((len(of), 8)) @ basis + centres[of]).astype(np.float32)

    index = omendb.Index(draw(of), method="graph")
    assert_clean(index)
    queries = draw(np.repeat(np.arange(1, 40), 10))
    assert recall_of(index, queries, effort=128) >= 0.95


def test_a_group_that_no_walk_starts_near_is_found() -> None:
    # Two hundred rows of twenty thousand, far away: this draw once left them one way in.
    rng = np.random.default_rng(676538460)
    of = rng.permutation(np.repeat(np.arange(5), [10_000, 2000, 200, 20, 7780]))
    basis, centres = rng.standard_normal((8, 24)), 5 * rng.standard_normal((5, 24))

    def draw(of: Array) -> Array:
        return (rng.standard_normal((len(of), 8)) @ basis + centres[of]).astype(np.float32)

    index = omendb.Index(draw(of), method="graph")
    assert_clean(index)
    queries = draw(np.arange(200) % 5)
    for group in range(5):
        assert recall_of(index, queries[group::5], effort=256) >= 0.95


def test_inner_products_with_norms_over_six_orders(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((6400, 16)) * 10.0 ** rng.uniform(-3, 3, (6400, 1))
    rows, queries = rows[:6000], rows[6000:]
    index = omendb.Index(rows, metric="inner_product", method="graph")
    if index.check() is not None:
        assert_clean(index)
    assert recall_of(index, queries, effort=1000) >= 0.95


def test_zero_vectors_have_cosine_distance_1(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((3000, 12)).astype(np.float32)
    rows[rng.permutation(3000)[:1200]] = 0
    queries = np.concatenate([rng.standard_normal((40, 12)), np.zeros((2, 12))])
    index = omendb.Index(rows, metric="cosine", method="graph")
    assert_clean(index)
    assert recall_of(index, queries, effort=400) >= 0.95
    zero = index.search(np.zeros(12), 10, method="graph")
    np.testing.assert_array_equal(zero.distances, np.ones(10, np.float32))
    index.update(index.ids[:300], np.zeros((300, 12)))
    assert_clean(index)
    assert recall_of(index, queries, effort=400) >= 0.95
    nothing = omendb.Index(np.zeros((1500, 12)), metric="cosine", method="graph")
    assert recall_of(nothing, queries) == 1.0


def test_ids_need_not_ascend(rng: np.random.Generator) -> None:
    rows = clustered(rng, 6000, 16)
    ids = rng.permutation(np.arange(-9000, 9000, 3))
    named = omendb.Index(rows, ids=ids, method="graph", seed=5)
    plain = omendb.Index(rows, method="graph", seed=5)
    asked = rows[:100] + 0.1
    for effort in (10, 100):
        by_name, by_row = (
            index.search(asked, method="graph", effort=effort) for index in (named, plain)
        )
        np.testing.assert_array_equal(by_name.ids, ids[by_row.ids])
        np.testing.assert_array_equal(by_name.distances, by_row.distances)
    named.remove(ids[::2])
    named.add(rows[:50], ids=np.arange(99_000, 98_950, -1))
    assert_clean(named)
    assert recall_of(named, asked, effort=128) >= 0.97
    chosen = rng.permutation(named.ids)[:700]
    assert recall_of(named, asked, effort=128, filter=np.isin(named.ids, chosen)) >= 0.95


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_rows_that_codes_cannot_tell_apart_are_answered_exactly(
    metric: str, rng: np.random.Generator
) -> None:
    near = np.array([[0.0], [1e6], [-1e6]])[rng.integers(0, 3, 3000)]
    for rows in (
        near + 1e-3 * rng.standard_normal((3000, 12)),  # differences below a code's step
        np.sort(rng.standard_normal((9000, 4)), axis=0),
    ):
        index = omendb.Index(rows, metric=metric, method="graph")
        assert index.has_graph
        asked = rows[:60] + 1e-4
        hits = index.search(asked, method="graph")
        assert np.all(hits.exact)
        assert recall_of(index, asked) == 1.0
        index.add(rows[:100])
        index.remove(index.ids[:200])
        assert index.has_graph
        assert recall_of(index, asked, effort=400) >= 0.95


def test_more_is_judged_where_codes_tell_less(rng: np.random.Generator) -> None:
    # Sixty rows of twenty thousand so far from the rest that codes order them by their rounding:
    # with a verdict on 16 rows whatever they say, 0.57 and 0.85.
    rows = rng.standard_normal((20_000, 8))
    group = rng.choice(len(rows), 60, replace=False)
    rows[group] += 18.0
    index = omendb.Index(rows, method="graph")
    assert recall_of(index, rows[group], effort=64) >= 0.75
    assert recall_of(index, rows[group], effort=128) >= 0.95
    near = index.explain(rows[:50], k=10, method="graph", effort=128)
    far = index.explain(rows[group[:50]], k=10, method="graph", effort=128)
    assert near.judged < 25 * 50 < far.judged


def test_a_constant_offset_costs_no_recall(rng: np.random.Generator) -> None:
    rows = 1e6 + rng.standard_normal((5000, 12))
    index = omendb.Index(rows, method="graph")
    assert recall_of(index, rows[:200] + 0.1, effort=200) >= 0.95


def test_a_query_beyond_codes_is_answered_exactly(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((5000, 8)).astype(np.float32)
    index = omendb.Index(rows, method="graph")
    queries = np.concatenate([1e100 * rng.standard_normal((3, 8)), rows[:3] + 0.1])
    hits = index.search(queries, method="graph")
    truth = index.search(queries, method="exact")
    assert np.asarray(hits.exact).tolist() == [True] * 3 + [False] * 3
    np.testing.assert_array_equal(hits.ids[:3], truth.ids[:3])


# Filters ----------------------------------------------------------------------------------

SHARES = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}


@pytest.mark.parametrize("metric", LINKINGS)
def test_filters_of_every_share_have_full_answers(metric: str, rng: np.random.Generator) -> None:
    # One group of rows for each share, far from the others; queries come from all of them.
    groups = [*SHARES.values(), 1 - sum(SHARES.values())]
    of = rng.permutation(np.repeat(np.arange(5), [round(20_000 * share) for share in groups]))
    basis = rng.standard_normal((8, 24))
    centres = 5 * rng.standard_normal((5, 24))

    def draw(of: Array) -> Array:
        return (rng.standard_normal((len(of), 8)) @ basis + centres[of]).astype(np.float32)

    rows = draw(of)
    queries = draw(np.arange(200) % 5)
    index = omendb.Index(rows, metric=metric, method="graph")
    assert_clean(index)
    for i, share in enumerate(SHARES.values()):
        alike, scattered = of == i, rng.random(len(rows)) < share
        mixed = alike | (rng.random(len(rows)) < share / 2)
        for mask in (alike, scattered, mixed):
            for k in (10, 40):
                assert recall_of(index, queries, k, effort=256, filter=mask) >= 0.95
            one_way = index.search(queries, method="graph", filter=mask)
            other = index.search(queries, method="graph", filter=index.ids[mask])
            np.testing.assert_array_equal(one_way.ids, other.ids)
            auto = index.search(queries[0], method="auto", filter=mask)
            assert set(auto.ids.tolist()) <= set(index.ids[mask].tolist())
            assert len(auto.ids) == min(10, mask.sum())
    hits = index.search(queries, method="auto", filter=np.flatnonzero(of == 3))
    assert np.all(hits.exact), "few rows are looked at one by one"


def test_walks_under_a_filter_know_when_answers_lie_elsewhere(rng: np.random.Generator) -> None:
    rows = clustered(rng, 40_000, 128)
    apart = np.arange(40_000) % 2 == 0
    rows[apart] += 20
    index = omendb.Index(rows, method="graph")
    queries = rows[1:400:2] + 0.1 * rng.standard_normal((200, 128)).astype(np.float32)
    # Eight at a time: for many, a sweep may cost less than walks do, and then it answers.
    eights = [queries[first : first + 8] for first in range(0, 200, 8)]
    for mask in (rng.random(40_000) < 0.5, ~apart):
        for some in eights:
            hits = index.search(some, method="graph", effort=30, filter=mask)
            assert not np.any(hits.exact), "answers are near"
        found = [recall_of(index, some, effort=30, filter=mask) for some in eights]
        assert np.mean(found) >= 0.95
    for some in eights:
        hits = index.search(some, method="graph", effort=30, filter=apart)
        assert np.all(hits.exact), "no answer is near"


def test_a_filter_that_allows_nothing_has_empty_answers(rng: np.random.Generator) -> None:
    rows = clustered(rng, 3000, 8)
    index = omendb.Index(rows, method="graph")
    nothings: list[Any] = [np.zeros(3000, np.bool_), np.empty(0, np.int64), []]
    for nothing in nothings:
        hits = index.search(rows[:4], method="graph", filter=nothing)
        assert hits.ids.shape == hits.distances.shape == (4, 0)
        assert index.search(rows[0], method="graph", filter=nothing).ids.shape == (0,)
    for one in (np.arange(3000) == 7, [7]):
        hits = index.search(rows[:4], method="graph", filter=one)
        np.testing.assert_array_equal(hits.ids, np.full((4, 1), 7))


# Methods ----------------------------------------------------------------------------------


def test_auto_answers_small_data_exactly(rng: np.random.Generator) -> None:
    rows = clustered(rng, 1000, 16)
    index = omendb.Index(rows, method="graph")
    for asked in (rows[:1], rows[:50]):
        hits = index.search(asked)
        assert np.all(hits.exact)
        np.testing.assert_array_equal(hits.ids, index.search(asked, method="exact").ids)
    walked = index.search(rows[:50], method="graph")
    assert not np.any(walked.exact)


def test_auto_walks_where_rows_are_many_and_queries_few(rng: np.random.Generator) -> None:
    rows = clustered(rng, 40_000, 128)
    index = omendb.Index(rows, method="graph")
    hits = index.search(rows[3] + 0.1)
    assert hits.exact is False
    np.testing.assert_array_equal(hits.ids, index.search(rows[3] + 0.1, method="graph").ids)
    assert index.search(rows[3] + 0.1, method="exact").exact is True
    assert np.all(index.search(rows[:2], effort=30_000).exact), "so wide a walk costs more"
    assert np.all(index.search(rows[:2], filter=np.arange(50)).exact)
    around = index.search_radius(rows[3], 1.0)
    assert np.all(around.exact)
    assert not np.any(omendb.Index(rows).search(rows[3]).exact is False)


def test_hits_say_how_they_were_found(rng: np.random.Generator) -> None:
    rows = clustered(rng, 2000, 8)
    index = omendb.Index(rows, method="graph")
    walked, swept = (index.search(rows[:3], method=how) for how in ("graph", "exact"))  # type: ignore[call-overload,arg-type,unused-ignore]
    assert "graph" in repr(walked)
    assert "exact" in repr(swept)
    assert "graph" not in repr(swept)
    assert walked.exact.dtype == np.bool_  # type: ignore[union-attr]


def test_the_graph_method_needs_a_graph(rng: np.random.Generator) -> None:
    index = omendb.Index(rng.standard_normal((50, 4)))
    assert not index.has_graph
    for asked in (np.ones((2, 4)), np.ones(4), np.ones((0, 4))):
        with pytest.raises(ValueError, match=r"build_graph\(\)"):
            index.search(asked, method="graph")
    empty = omendb.Index(dim=4)
    with pytest.raises(ValueError, match=r"build_graph\(\)"):
        empty.search(np.ones(4), method="graph")
    index.build_graph()
    assert index.search(np.ones(4), method="graph").ids.shape == (10,)


WRONG: dict[str, tuple[type[Exception], str, Callable[[omendb.Index], Any]]] = {
    "effort of 0": (ValueError, "effort", lambda index: index.search(np.ones(4), effort=0)),
    "effort below 0": (ValueError, "effort", lambda index: index.search(np.ones(4), effort=-5)),
    "effort of no integer": (
        TypeError,
        "effort",
        lambda index: index.search(np.ones(4), effort="x"),  # type: ignore[arg-type]
    ),
    "effort of a fraction": (
        TypeError,
        "effort",
        lambda index: index.search(np.ones(4), effort=8.5),  # type: ignore[arg-type]
    ),
    "an unknown method of search": (
        ValueError,
        "'magic'",
        lambda index: index.search(np.ones(4), method="magic"),  # type: ignore[arg-type]
    ),
    "an unknown method of the index": (
        ValueError,
        "'auto'",
        lambda index: omendb.Index(np.eye(4), method="auto"),  # type: ignore[call-overload]
    ),
    "a seed below 0": (ValueError, "seed", lambda index: index.build_graph(seed=-1)),
    "a seed below 0 of the index": (
        ValueError,
        "seed",
        lambda index: omendb.Index(np.eye(4), method="graph", seed=-1),
    ),
    "a seed beyond 64 bits": (ValueError, "seed", lambda index: index.build_graph(seed=2**64)),
    "a seed of no integer": (
        TypeError,
        "",
        lambda index: index.build_graph(seed="x"),  # type: ignore[arg-type]
    ),
    "no threads": (ValueError, "threads", lambda index: index.build_graph(threads=0)),
    "a strange progress": (
        TypeError,
        "progress",
        lambda index: index.build_graph(progress=3),  # type: ignore[arg-type]
    ),
    "queries with NaN": (
        ValueError,
        "NaN",
        lambda index: index.search(np.full((2, 4), np.nan), method="graph"),
    ),
    "queries of another width": (
        ValueError,
        "4 dimensions",
        lambda index: index.search(np.ones((2, 5)), method="graph"),
    ),
    "k of 0": (ValueError, "k", lambda index: index.search(np.ones(4), 0, method="graph")),
    "a short mask": (
        ValueError,
        "filter",
        lambda index: index.search(np.ones(4), method="graph", filter=[True]),
    ),
    "add of NaN": (ValueError, "NaN", lambda index: index.add(np.full((2, 4), np.nan))),
    "update of an unknown id": (
        ValueError,
        "99999",
        lambda index: index.update([0, 99_999], np.ones((2, 4))),
    ),
    "remove of an unknown id": (ValueError, "99999", lambda index: index.remove([0, 99_999])),
    "tuning to 0": (ValueError, "recall", lambda index: index.tune(0)),
    "tuning below 0": (ValueError, "recall", lambda index: index.tune(-0.5)),
    "tuning beyond 1": (ValueError, "recall", lambda index: index.tune(1.01)),
    "tuning to NaN": (ValueError, "recall", lambda index: index.tune(float("nan"))),
    "tuning to a text": (TypeError, "", lambda index: index.tune("high")),  # type: ignore[arg-type]
    "tuning for no neighbour": (ValueError, "k", lambda index: index.tune(k=0)),
    "tuning by one query": (
        ValueError,
        "2 queries",
        lambda index: index.tune(queries=np.ones((1, 4))),
    ),
    "tuning by no query": (
        ValueError,
        "2 queries",
        lambda index: index.tune(queries=np.ones((0, 4))),
    ),
    "tuning by a vector": (ValueError, "2 queries", lambda index: index.tune(queries=np.ones(4))),
    "tuning by wide queries": (
        ValueError,
        "4 dimensions",
        lambda index: index.tune(queries=np.ones((9, 5))),
    ),
    "tuning by NaN": (ValueError, "NaN", lambda index: index.tune(queries=np.full((9, 4), np.nan))),
    "tuning on no threads": (ValueError, "threads", lambda index: index.tune(threads=0)),
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_says_so_and_changes_nothing(call: str, rng: np.random.Generator) -> None:
    kind, word, do = WRONG[call]
    index = omendb.Index(rng.standard_normal((2000, 4)).astype(np.float32), method="graph")
    index.remove([7, 1030])
    index.tune(0.5)
    before = state_of(index)
    with pytest.raises(kind, match=f"(?i){word}"):
        do(index)
    assert state_of(index) == before


@pytest.mark.parametrize("metric", UNLINKED)
def test_a_metric_that_is_searched_exactly_takes_no_graph(
    metric: str, rng: np.random.Generator
) -> None:
    rows = rng.standard_normal((300, 5))
    with pytest.raises(ValueError, match=metric):
        omendb.Index(rows, metric=metric, method="graph")
    with pytest.raises(ValueError, match=metric):
        omendb.Index(dim=5, metric=metric, method="graph")
    index = omendb.Index(rows, metric=metric)
    before = state_of(index)
    with pytest.raises(ValueError, match=metric):
        index.build_graph()
    assert not index.has_graph
    assert state_of(index) == before
    index.add(rows[:3])
    assert index.search(rows[:3]).ids.shape == (3, 10)
    with pytest.raises(ValueError, match="build_graph"):
        index.tune()


# Tuning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 1.0])
def test_a_report_tells_what_was_measured(target: float, rng: np.random.Generator) -> None:
    rows = clustered(rng, 9400)
    rows, asked = rows[:9000], rows[9000:]
    index = omendb.Index(rows, method="graph")
    assert index.effort == 64
    for queries in (asked, asked[:2], None):
        report = index.tune(target, k=5, queries=queries)
        assert isinstance(report, omendb.RecallReport)
        assert report.target == target
        assert report.k == 5
        assert report.effort == index.effort
        efforts = [effort for effort, _, _ in report.table]
        assert efforts == sorted(set(efforts))
        assert report.effort in efforts
        assert all(0 <= recall <= 1 + 1e-9 and rate > 0 for _, recall, rate in report.table)
        assert 0 <= report.lower_bound <= report.recall <= 1 + 1e-9
        count = "1000" if queries is None else str(len(queries))
        assert report.queries.startswith(count)
        assert ("given" in report.queries) == (queries is not None)
        for shown in (repr(report), report._repr_html_()):
            assert str(report.effort) in shown
            assert report.queries in shown
            for effort in efforts:
                assert str(effort) in shown
        assert repr(report).startswith("RecallReport")
        assert report._repr_html_().count("<tr>") == len(efforts) + 1
    index.tune(target, k=10, queries=asked)
    default = index.search(asked, method="graph")
    named = index.search(asked, method="graph", effort=index.effort)
    np.testing.assert_array_equal(default.ids, named.ids)


def test_a_higher_recall_takes_a_wider_beam(rng: np.random.Generator) -> None:
    rows = clustered(rng, 9400)
    rows, asked = rows[:9000], rows[9000:]
    index = omendb.Index(rows, metric="inner_product", method="graph")
    reports = [index.tune(target, queries=asked) for target in (0.5, 0.9, 0.99)]
    efforts = [report.effort for report in reports]
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]
    assert dict((row[0], row[1]) for row in reports[-1].table)[efforts[-1]] >= 0.98
    again = index.tune(0.99, queries=asked)  # nothing in it is random but the speed
    assert (again.effort, again.recall) == (reports[-1].effort, reports[-1].recall)
    assert [row[:2] for row in again.table] == [row[:2] for row in reports[-1].table]


def test_the_queries_that_are_given_are_the_ones_that_count(rng: np.random.Generator) -> None:
    rows = clustered(rng, 9000)
    index = omendb.Index(rows, metric="cosine", method="graph")
    rows_alone = index.tune(0.95, k=1, queries=rows[:300])
    truth = index.search(rows[1:300:2], 1, method="exact")
    hits = index.search(rows[1:300:2], 1, method="graph")
    assert share_found(hits, truth) == pytest.approx(rows_alone.recall)
    noise = index.tune(0.95, k=1, queries=rng.standard_normal((300, 48)))
    assert noise.queries == rows_alone.queries
    assert [row[:2] for row in noise.table] != [row[:2] for row in rows_alone.table]


def test_tuning_for_more_rows_than_there_are_is_tuning_for_all(rng: np.random.Generator) -> None:
    index = omendb.Index(clustered(rng, 3000), method="graph")
    for k in (5000, 2**64 - 1):
        report = index.tune(k=k)
        assert report.k == 3000
        assert index.effort == 3000


def test_tuning_needs_a_graph_of_two_rows(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((300, 4))
    indices = [
        omendb.Index(rows),
        omendb.Index(dim=4),
        omendb.Index(dim=4, method="graph"),
        omendb.Index(rows[:1], method="graph"),
    ]
    for index in indices:
        with pytest.raises(ValueError, match=r"build_graph\(\)"):
            index.tune()
        assert index.effort == 64
    indices[0].build_graph()
    assert indices[0].tune().effort == indices[0].effort


def test_edits_keep_the_effort(rng: np.random.Generator) -> None:
    rows = clustered(rng, 3000, 16)
    index = omendb.Index(rows, method="graph")
    effort = index.tune(0.5).effort
    assert effort != 64
    index.add(rows[:100])
    index.update(index.ids[:9], rows[:9])
    index.remove(index.ids[100:])
    index.build_graph(seed=8)
    assert index.effort == effort


# Memory and pickles -----------------------------------------------------------------------


def test_a_graph_takes_128_bytes_a_row(rng: np.random.Generator) -> None:
    for n in (8192, 20_480):
        index = omendb.Index(clustered(rng, n, 32))
        before = index.nbytes
        index.build_graph()
        assert 128 <= (index.nbytes - before) / n <= 128 + 16
    html = index._repr_html_()
    assert "graph" in html


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_keeps_that_there_is_a_graph(protocol: int, rng: np.random.Generator) -> None:
    rows = clustered(rng, 5000, 16)
    index = omendb.Index(rows, metric="ip", ids=rng.permutation(5000), method="graph", seed=9)
    again = pickle.loads(pickle.dumps(index, protocol))
    assert again.has_graph
    asked = rows[:50] + 0.1
    assert walks_of(again, asked) == walks_of(index, asked)
    index.remove(index.ids[::5])
    index.add(rows[:70])
    again = pickle.loads(pickle.dumps(index, protocol))
    assert_clean(again)
    np.testing.assert_array_equal(again.ids, index.ids)
    assert recall_of(again, asked, effort=300) >= 0.95
    assert not pickle.loads(pickle.dumps(omendb.Index(rows), protocol)).has_graph
    empty = pickle.loads(pickle.dumps(omendb.Index(dim=5, method="graph"), protocol))
    assert empty.has_graph
    empty.add(np.eye(5))
    assert_clean(empty)


# Progress ---------------------------------------------------------------------------------


def test_a_callable_hears_of_linking(rng: np.random.Generator) -> None:
    rows = clustered(rng, 9000, 32)
    heard: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        heard.append((done, total))

    def check(n: int) -> None:
        assert heard
        assert all(type(number) is int for pair in heard for number in pair)
        assert heard == sorted(heard)
        assert {total for _, total in heard} == {n}
        assert heard[-1] == (n, n)
        assert heard[0][0] >= 0
        assert len(heard) == len(set(heard)) or n < 5000
        heard.clear()

    index = omendb.Index(rows, method="graph", progress=listen)
    check(9000)
    index.build_graph(seed=1, progress=listen)
    check(9000)
    index.add(rows[:2500], progress=listen)  # in place
    check(2500)
    index.add(rows, progress=listen)  # anew
    check(9000)
    index.update(index.ids[:2000], rows[:2000], progress=listen)
    check(2000)
    index.search(rows[:3000], method="graph", progress=listen)
    check(3000)


def test_a_callable_hears_the_end_where_nothing_can_be_linked(rng: np.random.Generator) -> None:
    rows = np.sort(rng.standard_normal((6000, 4)), axis=0)  # codes cannot tell neighbours apart
    heard: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        heard.append((done, total))

    index = omendb.Index(rows, method="graph", progress=listen)
    assert index.check() is None
    assert heard[-1:] == [(6000, 6000)]
    heard.clear()
    index.build_graph(seed=1, progress=listen)
    assert heard[-1:] == [(6000, 6000)]
    heard.clear()
    index.add(rows[:3000], progress=listen)
    assert heard[-1:] == [(3000, 3000)]


def test_an_error_while_linking_reaches_the_user_and_changes_nothing(
    rng: np.random.Generator,
) -> None:
    rows = clustered(rng, 9000, 24)
    index = omendb.Index(rows[:6000], method="graph")
    twin = omendb.Index(rows[:6000], method="graph")
    for one in (index, twin):
        one.remove(one.ids[::9])
    before = state_of(index)
    assert state_of(twin) == before
    told = 0

    def fail_after(patience: int) -> Callable[[int, int], None]:
        nonlocal told
        told = 0

        def fail(done: int, total: int) -> None:
            nonlocal told
            told += 1
            if told > patience or done == total:  # the end is always told
                raise LookupError("not today")

        return fail

    calls: list[Callable[[Callable[[int, int], None]], Any]] = [
        lambda progress: omendb.Index(rows, method="graph", progress=progress),
        lambda progress: index.build_graph(seed=7, progress=progress),
        lambda progress: index.add(rows[6000:7500], progress=progress),
        lambda progress: index.add(rows, progress=progress),
        lambda progress: index.update(index.ids[:1500], rows[7500:], progress=progress),
    ]
    for call in calls:
        for patience in (0, 1, 3, 1_000_000):
            with pytest.raises(LookupError, match="not today"):
                call(fail_after(patience))
            assert state_of(index) == before
    # What was undone leaves no trace in what is done next.
    for one in (index, twin):
        one.add(rows[6000:7500])
        one.update(one.ids[:1500], rows[7500:])
    assert state_of(index) == state_of(twin)


def test_a_callable_may_use_the_index_that_is_being_linked() -> None:
    # Held locks would hang here.
    script = """
import numpy as np, omendb

X = np.random.default_rng(0).standard_normal((9000, 16)).astype("f4")
index = omendb.Index(X[:6000])
lengths = []


def look(done, total):
    lengths.append(len(index))
    assert index.search(X[:2], 3, method="exact").ids[:, 0].tolist() == [0, 1]
    if index.has_graph:
        assert index.search(X[:2], 3, method="graph").ids.shape == (2, 3)
        check = index.check()
        assert check["rows"] == len(index)
    repr(index), index.ids, index.nbytes, index.effort


index.build_graph(progress=look)
index.add(X[6000:7900], progress=look)
index.add(X, progress=look)
index.update(index.ids[:100], X[:100], progress=look)
assert set(lengths) == {6000, 7900, 16_900}, set(lengths)
"""
    run_python(script)


# Any history ------------------------------------------------------------------------------


class Walks(History):
    """Random edits of an index with a graph, and walks through it, beside a dict of NumPy rows."""

    def _draw(self, n: int) -> Array:
        values = super()._draw(n)
        if self.rng.random() < 0.1:
            values[:] = values[:1]  # one row, many times
        return values

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        metric=st.sampled_from(METRICS),
        dtype=st.sampled_from(DTYPES),
        dim=st.sampled_from([1, 2, 3, 8, 17]),
        n=st.sampled_from([0, 1, 5, 40, 300, 1100]),
        grown=st.booleans(),
    )
    def start(self, seed: int, metric: str, dtype: str, dim: int, n: int, grown: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.metric, self.dtype, self.dim = metric, dtype, dim
        rows = self._draw(n)
        if grown:
            self.index = omendb.Index(rows[: n // 2], metric=metric, method="graph", seed=seed)
            self.index.add(rows[n // 2 :])
        else:
            self.index = omendb.Index(rows, metric=metric)
            self.index.build_graph(seed=seed)
        self.twin = dict(enumerate(rows.copy()))
        self.largest = n - 1

    @rule(what=st.sampled_from(["add", "update", "build"]), n=st.sampled_from([1, 30]))
    def interrupt(self, what: str, n: int) -> None:
        def stop(done: int, total: int) -> None:
            raise LookupError("not today")

        ids, before, rows = self._some_ids(n), state_of(self.index), self._draw(n)
        if not len(ids):
            return
        try:
            if what == "add":
                ids = self.index.add(rows, progress=stop)
            elif what == "update":
                self.index.update(ids, rows[: len(ids)], progress=stop)
            else:
                self.index.build_graph(seed=5, progress=stop)
        except LookupError:
            assert state_of(self.index) == before
            return
        if what != "build":  # it was done, and nobody told
            self.twin.update(zip(ids.tolist(), rows, strict=False))
            self.largest = max(self.largest, *ids.tolist())

    @rule(seed=st.integers(0, 9))
    def build_again(self, seed: int) -> None:
        self.index.build_graph(seed=seed)

    @rule(recall=st.sampled_from([0.5, 0.95, 1.0]), k=st.sampled_from([1, 10, 700]))
    def tune(self, recall: float, k: int) -> None:
        before = self.index.effort
        if not self.index.has_graph or len(self.twin) < 2:
            with pytest.raises(ValueError, match="build_graph"):
                self.index.tune(recall, k)
            assert self.index.effort == before
        else:
            report = self.index.tune(recall, k, queries=self._draw(9))
            assert report.effort == self.index.effort >= min(k, len(self.twin))

    @rule(k=st.sampled_from([1, 3, 10, 2000]), threads=st.integers(1, 2))
    def walk(self, k: int, threads: int) -> None:
        queries = self._draw(4)
        for effort in (1, 1500):
            hits = self.index.search(queries, k, method="graph", effort=effort, threads=threads)
            assert_full(self.index, queries, hits, k)
        truth = self.index.search(queries, k, method="exact")
        assert_full(self.index, queries, truth, k)
        if truth.ids.size:
            assert np.all(truth.distances <= hits.distances)
            np.testing.assert_array_equal(hits.ids[hits.exact], truth.ids[hits.exact])

    @rule(share=st.sampled_from([0.0, 0.01, 0.2, 0.9, 1.0]), mask=st.booleans())
    def walk_filtered(self, share: float, mask: bool) -> None:
        queries = self._draw(3)
        chosen = self.rng.random(len(self.twin)) < share
        given = chosen if mask else self._ids[chosen]
        for how in ("graph", "auto"):
            hits = self.index.search(queries, 5, method=how, filter=given)
            assert_full(self.index, queries, hits, 5, chosen)

    @invariant()
    def is_clean(self) -> None:
        assert self.index.has_graph
        if self.index.check() is not None:
            assert_clean(self.index)


TestAnyWalks = Walks.TestCase
TestAnyWalks.settings = settings(max_examples=settings().max_examples // 2)


# Guests -----------------------------------------------------------------------------------


def test_eight_threads_search_while_one_edits() -> None:
    script = """
import threading, time
import numpy as np, omendb, reference

rng = np.random.default_rng()
dim, most = 12, 60_000
basis = rng.standard_normal((5, dim))
rows = (rng.standard_normal((most, 5)) @ basis).astype("f4")  # row i gets id i
asked = (rng.standard_normal((50, 5)) @ basis).astype("f4")
index = omendb.Index(rows[:4000], method="graph")
live = np.zeros(most, bool)
live[:4000] = True
states = [live]  # by number; the number of an edit is that of the state that it makes
started = done = 0
stop, failures, counts = threading.Event(), [], []


def look(seed):
    rng = np.random.default_rng(seed)
    count = 0
    try:
        while not stop.is_set():
            some = asked[rng.integers(0, 50, 3)]
            how = ("graph", "graph", "auto")[count % 3]
            k, effort = int(rng.integers(1, 30)), int(rng.integers(1, 80))
            first = done
            hits = index.search(some, k, method=how, effort=effort, threads=1 + count % 2)
            last = started
            assert hits.ids.shape == (3, k), hits.ids.shape
            assert all(len(set(row)) == k for row in hits.ids.tolist())
            assert any(states[i][hits.ids].all() for i in range(first, last + 1)), "a dead row"
            for query, found, far in zip(some, hits.ids, hits.distances):
                true = reference.distances("euclidean", query, rows[found])
                np.testing.assert_array_equal(far, true.astype("f4"))
                assert (np.diff(true) >= 0).all()
            count += 1
            if count % 20 == 0:
                check = index.check()
                assert check["degree"] <= 32, check
    except BaseException as error:
        failures.append(repr(error))
    counts.append(count)


threads = [threading.Thread(target=look, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
end = time.perf_counter() + 3
used, turn = 4000, 0
while time.perf_counter() < end and not failures and used + 3000 < most:
    live = states[-1].copy()
    now = np.flatnonzero(live)
    n = int(rng.integers(1, 1200))
    turn += 1
    if turn % 5 == 0:
        # Numbers stay; links are taken out and put in again.
        chosen = rng.permutation(now)[:n]
        index.update(chosen, rows[chosen])
        continue
    if turn % 7 == 0:
        index.build_graph(seed=turn)
        continue
    gone = rng.permutation(now)[: max(0, len(now) - 3000)] if turn % 2 else []
    live[used : used + n] = not len(gone)
    live[gone] = False
    states.append(live)
    started += 1
    if len(gone):
        index.remove(gone)
    else:
        index.add(rows[used : used + n], ids=np.arange(used, used + n))
        used += n
    done += 1
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures[:1]
assert min(counts) > 5 and done > 5, (counts, done)
np.testing.assert_array_equal(np.sort(index.ids), np.flatnonzero(states[-1]))
check = index.check()
assert check["unreachable"] == check["dangling"] == 0, check
"""
    run_python(script)


def test_a_python_thread_runs_during_a_long_build_of_a_graph() -> None:
    script = f"""{LONG}
X = rng.standard_normal((12_000, 64), dtype=np.float32)
index = omendb.Index(X, threads=1)
calls = [
    lambda: index.build_graph(threads=1),
    lambda: index.add(X[:3900], threads=1),
    lambda: index.tune(threads=1),
]
print(json.dumps([ticked(call, 0.005) for call in calls]))
"""
    for seconds, _, longest in json.loads(run_python(script)):
        assert seconds > 0.05, "the call was too short to tell"
        assert longest < max(0.1, 0.3 * seconds)


@pytest.mark.parametrize(
    "call", ["build", "build_graph", "add", "add many", "update", "remove", "remove most"]
)
def test_ctrl_c_ends_linking_within_200_ms_and_changes_nothing(call: str) -> None:
    # `twin` is never interrupted: it tells how long the call takes, and what it must give.
    script = f"""{INTERRUPT}
dim, n = 48, 8000
X = rng.standard_normal((n + 2500, dim), dtype=np.float32)
asked = rng.standard_normal((200, dim))
index, twin = (omendb.Index(X[:n], method="graph") for _ in range(2))


def seen(index):
    hits = [index.search(asked, k, method="graph", effort=k) for k in (1, 3, 12)]
    answers = [array.tobytes() for h in hits for array in (h.ids, h.distances)]
    return state(index), index.check(), index.has_graph, index.effort, answers


changed = rng.permutation(n)[:2500]
calls = {{
    "build": lambda index: omendb.Index(X, method="graph", threads=1),
    "build_graph": lambda index: index.build_graph(seed=5, threads=1),
    "add": lambda index: index.add(X[n:], threads=1),
    "add many": lambda index: index.add(X[:4000], threads=1),
    "update": lambda index: index.update(changed, X[n:], threads=1),
    "remove": lambda index: index.remove(changed),
    "remove most": lambda index: index.remove(index.ids[: n // 2 + 1]),
}}
run = calls[sys.argv[1]]
before = seen(index)
assert seen(twin) == before
start = time.perf_counter()
run(twin)
seconds = time.perf_counter() - start
after = seen(twin)
times = []
for _ in range(6):
    times.append(trial(lambda: run(index), seconds))
    now = seen(index)
    if now != before:
        # The signal came with the end of the call: all of it is done, or this is a fault.
        assert now == after, "half of it was done"
        times.pop()
        break
    if sum(t is not None for t in times) == 3:
        break
if now == before:
    run(index)
assert seen(index) == after, "what was undone left a trace"
print(json.dumps(times))
"""
    times = [time for time in json.loads(run_python(script, call)) if time is not None]
    if not times:
        pytest.skip("every call ended before its signal: too fast to interrupt")
    assert min(times) <= 0.2, times


def test_walks_come_to_rows_that_changed_where_they_are_now(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    # So many rows have their codes in one stretch of memory, except for chunks that changed.
    X = rng.normal(size=(20_000, 8)).astype(np.float32)
    index = omendb.Index(X, method="graph", seed=0)
    for turn in range(3):
        ids = rng.choice(len(X), 60, replace=False)
        moved = (rng.normal(size=(60, 8)) + 2.0 * (turn + 1)).astype(np.float32)
        index.update(ids, moved)
        hits = index.search(moved, 1, method="graph", effort=64)
        np.testing.assert_array_equal(hits.ids[:, 0], ids)
        assert hits.distances.max() == 0.0
        index.save(tmp_path / "moved.omen")
        index = omendb.Index.load(tmp_path / "moved.omen")
        if turn == 1:  # with certified codes, which take the place of the file's
            np.testing.assert_array_equal(index.search(moved, 1, method="exact").ids[:, 0], ids)
        hits = index.search(moved, 1, method="graph", effort=64)
        np.testing.assert_array_equal(hits.ids[:, 0], ids)


def test_a_search_may_be_made_while_another_tells_its_progress(rng: np.random.Generator) -> None:
    X = rng.standard_normal((20_000, 24), dtype=np.float32)
    queries = rng.standard_normal((20_000, 24), dtype=np.float32)
    index = omendb.Index(X, method="graph")
    within = index.search(queries[:40], 3, method="graph")
    told = []

    def progress(done: int, total: int) -> None:
        inner = index.search(queries[:40], 3, method="graph", threads=1)
        told.append(np.array_equal(inner.ids, within.ids))

    hits = index.search(queries, 3, method="graph", threads=1, progress=progress)
    assert len(told) > 2
    assert all(told)
    assert np.array_equal(hits.ids, index.search(queries, 3, method="graph").ids)
