"""Health, explanations and missing answers, each against a naive twin."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import Array

import omendb

METRICS = ("euclidean", "sqeuclidean", "cosine", "inner_product", "manhattan", "chebyshev")


def naive(metric: str, queries: Array, rows: Array) -> Array:
    """Distances of every row from every query, in float64."""
    q, x = queries.astype(np.float64)[:, None], rows.astype(np.float64)[None]
    match metric:
        case "euclidean":
            distances = np.sqrt(((q - x) ** 2).sum(axis=-1))
        case "sqeuclidean":
            distances = ((q - x) ** 2).sum(axis=-1)
        case "cosine":
            lengths = np.linalg.norm(q, axis=-1) * np.linalg.norm(x, axis=-1)
            distances = 1 - (q * x).sum(axis=-1) / np.where(lengths == 0, 1, lengths)
        case "inner_product":
            distances = -(q * x).sum(axis=-1)
        case "manhattan":
            distances = np.abs(q - x).sum(axis=-1)
        case _:
            distances = np.abs(q - x).max(axis=-1)
    return np.asarray(distances)


# --- health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8])
def test_duplicates_and_zeros_are_counted_as_numpy_does(
    dtype: Any, rng: np.random.Generator
) -> None:
    rows = rng.integers(-1, 2, (3000, 6)).astype(dtype)
    if dtype is not np.int8:
        rows[rows == 0] *= -1  # zeros of either sign are equal
    _, counts = np.unique(rows + dtype(0), axis=0, return_counts=True)
    for metric in ("euclidean", "inner_product", "chebyshev"):
        health = omendb.Index(rows, metric=metric).health()
        assert health.duplicate_rows == int((counts - 1).sum())
        assert health.duplicate_groups == int((counts > 1).sum())
        assert health.zero_rows == int((rows == 0).all(axis=1).sum())
        assert any("equal an earlier one" in sentence for sentence in health.advice)


def test_rows_that_differ_in_the_last_bit_are_no_duplicates(rng: np.random.Generator) -> None:
    rows = np.repeat(rng.standard_normal((1, 16)), 500, axis=0)
    rows[:, 3] = np.nextafter(rows[:, 3], np.inf)
    rows[250:, 3] = np.nextafter(rows[250:, 3], np.inf)
    health = omendb.Index(rows).health()
    assert (health.duplicate_rows, health.duplicate_groups) == (498, 2)


def test_lengths_are_percentiles(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2500, 5)) * rng.lognormal(size=(2500, 1))
    expected = np.percentile(np.linalg.norm(rows, axis=1), np.arange(101))
    health = omendb.Index(rows).health()
    np.testing.assert_allclose(health.norms, expected, rtol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("dimension", [2, 5])
def test_the_dimension_of_a_curved_surface_is_found(
    metric: str, dimension: int, rng: np.random.Generator
) -> None:
    # A sphere of `dimension` dimensions, turned into 20 numbers a row.
    points = rng.standard_normal((4000, dimension + 1))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    basis, _ = np.linalg.qr(rng.standard_normal((20, dimension + 1)))
    health = omendb.Index(points @ basis.T, metric=metric).health()
    assert health.intrinsic_dimension == pytest.approx(dimension, rel=0.12)


@pytest.mark.parametrize("metric", METRICS)
def test_hubness_is_that_of_a_naive_count(metric: str, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((600, 30))
    distances = naive(metric, rows, rows)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1, kind="stable")[:, :10]
    counts = np.bincount(near.ravel(), minlength=600)
    health = omendb.Index(rows, metric=metric).health()
    assert (health.sample, health.k) == (600, 10)
    np.testing.assert_array_equal(health.occurrences, counts)
    deviations = counts - counts.mean()
    skewness = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    assert health.hubness == pytest.approx(skewness)
    assert health.antihubs == pytest.approx((counts == 0).mean())
    assert any("neighbours of very many" in s for s in health.advice) == (skewness > 1.4)


def test_a_sample_is_seeded_and_told_of(rng: np.random.Generator) -> None:
    index = omendb.Index(rng.standard_normal((3000, 8)))
    first, again, other = (index.health(sample=500, seed=seed) for seed in (1, 1, 2))
    assert first.sample == len(first.occurrences) == 500
    assert first.occurrences.sum() == 5000
    np.testing.assert_array_equal(first.occurrences, again.occurrences)
    assert not np.array_equal(first.occurrences, other.occurrences)
    assert "500 of 3,000 rows that differ" in repr(first)
    np.testing.assert_array_equal(
        index.health(threads=1).occurrences, index.health(threads=3).occurrences
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "rows",
    [np.zeros((0, 3)), np.ones((1, 3)), np.ones((300, 3)), np.zeros((300, 3)), np.eye(40)],
    ids=["none", "one", "same", "zeros", "equally far"],
)
def test_health_knows_what_it_cannot_know(metric: str, rows: Array) -> None:
    health = omendb.Index(rows, metric=metric).health()
    same = len(rows) - len(np.unique(rows, axis=0))
    assert (health.rows, health.duplicate_rows) == (len(rows), same)
    assert health.intrinsic_dimension is None
    assert (health.hubness is None) == (len(rows) - same < 3)
    assert len(health.norms) == (101 if len(rows) else 0)
    assert "HealthReport" in repr(health)
    assert health._repr_html_().count("<tr>") == 9


def test_health_sees_only_the_rows_that_are_there(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((2000, 12)).astype(np.float32)
    rows[:400] = 0
    index = omendb.Index(rows, metric="cosine", method="graph")
    index.remove(np.arange(500))
    health = index.health()
    assert (health.rows, health.removed) == (1500, 0.25)
    assert (health.duplicate_rows, health.zero_rows) == (0, 0)
    assert any("25 % of all places" in sentence for sentence in health.advice)
    index.save(tmp_path / "x.omen")
    loaded = omendb.Index.load(tmp_path / "x.omen").health()
    assert loaded.removed == 0
    assert loaded.graph is not None
    assert loaded.graph["unreachable"] == loaded.graph["dangling"] == 0
    np.testing.assert_array_equal(loaded.norms, health.norms)
    np.testing.assert_array_equal(loaded.occurrences, health.occurrences)


def test_damage_in_a_file_is_an_error_or_mended(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "x.omen"
    omendb.Index(rng.standard_normal((3000, 16)).astype(np.float32), method="graph").save(path)
    good = path.read_bytes()
    for place, damaged in ((0.2, True), (0.9, False)):
        content = bytearray(good)
        content[int(len(good) * place)] ^= 1
        path.write_bytes(content)
        index = omendb.Index.load(path)
        if damaged:
            with pytest.raises(ValueError, match="column vectors"):
                index.health()
        else:  # of the links, which are made again
            health = index.health()
            assert health.graph is not None
            assert health.graph["unreachable"] == 0


def test_advice_follows_what_is_off(rng: np.random.Generator) -> None:
    def advice(rows: Array, metric: str = "euclidean", **options: Any) -> str:
        return "\n".join(omendb.Index(rows, metric=metric, **options).health().advice)

    rows = rng.standard_normal((3000, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert advice(rows) == advice(rows, "cosine") == ""
    varied = rows * rng.uniform(0.1, 10, (3000, 1)).astype(np.float32)
    assert "prefers long rows" in advice(varied, "inner_product")
    assert "cosine ignores them" in advice(varied, "cosine")
    assert "lengths vary" not in advice(varied)
    assert "lie near a curve" in advice(np.outer(np.linspace(0, 1, 3000), np.ones(8)))
    # In one dimension of hundreds lies all that is large: a code has no digits for the others.
    heavy = rng.standard_normal((3000, 200)) * np.where(np.arange(200) == 7, 1e6, 1)
    heavy[:, 7] = np.sign(heavy[:, 7]) * 1e6
    found = omendb.Index(heavy).health()
    assert (found.codes_prune is False) == any("rule out too few" in s for s in found.advice)
    with pytest.raises(ValueError, match="expected sample of at least 1, got 0"):
        omendb.Index(rows).health(sample=0)


def test_health_lets_other_threads_run_and_stops(rng: np.random.Generator) -> None:
    index = omendb.Index(rng.standard_normal((20_000, 64)), metric="manhattan")
    turns = 0
    done = threading.Event()

    def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=turn)
    thread.start()
    index.health(sample=3000)
    done.set()
    thread.join()
    assert turns > 5


# --- explain --------------------------------------------------------------------------------------


@pytest.fixture
def linked(rng: np.random.Generator) -> tuple[omendb.Index, Array]:
    rows = rng.standard_normal((20_000, 24)).astype(np.float32)
    return omendb.Index(rows, method="graph"), rows


def test_each_way_is_told_with_its_counts(
    linked: tuple[omendb.Index, Array], rng: np.random.Generator
) -> None:
    index, rows = linked
    n = len(rows)
    exact = index.explain(rows[0], method="exact")
    assert exact.answered == {"walk": 0, "codes": 1, "floats": 0, "float64": 0}
    assert (exact.scored, exact.exact, exact.estimates) == (n, True, None)
    assert 10 <= exact.judged < n // 20
    assert exact.reasons == ["an exact search was asked for"]
    walk = index.explain(rows[0], method="graph", effort=20)
    assert walk.answered == {"walk": 1, "codes": 0, "floats": 0, "float64": 0}
    assert (walk.exact, walk.effort, walk.discarded) == (False, 20, 0)
    assert 200 < walk.scored < n // 4
    assert 10 <= walk.judged <= 30
    wider = index.explain(rows[0], method="graph", effort=200)
    assert wider.scored > walk.scored
    auto = index.explain(rows[0])
    assert auto.estimates is not None
    assert (auto.answered["walk"] == 1) == (auto.estimates["walk"] < auto.estimates["exact"])
    assert "walk through the graph was estimated" in auto.reasons[0]
    batch = index.explain(rows[:70], method="exact")
    assert (batch.answered["codes"], batch.scored) == (70, 70 * n)
    assert isinstance(batch.exact, np.ndarray)
    assert np.all(batch.exact)
    for explanation in (exact, walk, batch):
        parts = explanation.milliseconds
        assert 0 < parts["walk"] + parts["exact"] + parts["filter"] <= parts["total"]


def test_filters_are_told_of(linked: tuple[omendb.Index, Array]) -> None:
    index, rows = linked
    few = index.explain(rows[0], filter=np.arange(50), method="graph")
    assert (few.allowed, few.judged, few.scored) == (50, 50, 0)
    assert few.answered["float64"] == 1
    assert few.reasons[0] == "the filter lets 50 of 20,000 rows answer, 0.25 %"
    assert any("a walk was asked for, but so few rows may answer" in r for r in few.reasons)
    assert any("each was judged in float64" in r for r in few.reasons)
    half = index.explain(rows[0], filter=np.arange(20_000) < 10_000, method="exact")
    assert (half.scored, half.allowed) == (10_000, 10_000)
    assert "50.00 %" in half.reasons[0]
    none = index.explain(rows[0], filter=np.zeros(20_000, bool))
    assert (none.allowed, none.scored, none.judged) == (0, 0, 0)
    assert none.way == "nothing to do"


def test_walks_that_are_thrown_away_are_told_of(rng: np.random.Generator) -> None:
    # Two clouds far apart; only rows of the other one may answer.
    rows = rng.standard_normal((12_000, 128)).astype(np.float32)
    rows[6_000:] += 2
    index = omendb.Index(rows, method="graph")
    told = index.explain(rows[:5], filter=np.arange(12_000) >= 6_000, method="graph", effort=16)
    assert told.discarded == 5
    assert np.all(told.exact)
    assert told.answered["walk"] == 0
    assert sum(told.answered.values()) == 5
    assert any("did not come to where the answers lie" in reason for reason in told.reasons)


def test_the_ways_of_the_exact_search_are_told_apart(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4000, 16))
    tiny = omendb.Index(rows[:5]).explain(rows[0])
    assert tiny.answered["float64"] == 1
    assert tiny.judged == 5
    assert "so little to look at" in tiny.reasons[0]
    manhattan = omendb.Index(rows, metric="manhattan").explain(rows[:3])
    assert (manhattan.judged, manhattan.scored) == (12_000, 0)
    assert any("manhattan has no codes" in reason for reason in manhattan.reasons)
    # Rows that differ only far behind the largest number: codes are blind to it.
    blind = np.full((9000, 16), 100.0) * np.sign(rng.standard_normal((9000, 1)))
    blind += rng.standard_normal((9000, 16)) * 1e-4
    floats = omendb.Index(blind).explain(blind[:4])
    assert floats.answered["floats"] == 4
    assert any("float32 products answered 4 queries" in reason for reason in floats.reasons)
    # A large batch tries its first queries on a sixteenth of the rows.
    many = np.tile(blind[:, :4], (14, 1))
    batch = omendb.Index(many).explain(np.repeat(many[:4], 64, axis=0))
    assert batch.answered["floats"] == 256
    assert any("for the first of them" in reason for reason in batch.reasons)


def test_an_explained_search_is_the_search(linked: tuple[omendb.Index, Array]) -> None:
    index, rows = linked
    wanted: list[dict[str, Any]] = [{}, {"method": "exact"}, {"method": "graph", "effort": 9}]
    for options in wanted:
        hits = index.search(rows[:40], **options)
        told = index.explain(rows[:40], **options)
        np.testing.assert_array_equal(told.exact, hits.exact)
        assert (told.queries, len(told), told.k) == (40, 40, 10)
        assert told.way in repr(told)
        assert "<ul><li>" in told._repr_html_()


def test_explain_refuses_what_search_refuses(linked: tuple[omendb.Index, Array]) -> None:
    index, rows = linked
    plain = omendb.Index(rows)
    wrong: list[tuple[omendb.Index, Any, dict[str, Any]]] = [
        (index, rows[0, :3], {}),
        (index, rows[0], {"k": 0}),
        (index, rows[0], {"effort": 0}),
        (index, rows[0], {"method": "best"}),
        (index, np.full(24, np.nan), {}),
        (index, rows[0], {"filter": [99_999]}),
        (index, rows[0], {"filter": np.ones(3, bool)}),
        (plain, rows[0], {"method": "graph"}),
        (index, [["a"] * 24], {}),
    ]
    for one, query, options in wrong:
        messages = []
        for call in (one.search, one.explain):
            with pytest.raises((ValueError, TypeError)) as error:
                call(query, **options)
            messages.append(str(error.value))
        options = {"k": 10} | options
        with pytest.raises((ValueError, TypeError)) as error:
            one.why_not(query, 0, **options)
        assert [str(error.value)] * 2 == messages


# --- why_not --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_rank_and_distance_are_those_of_a_naive_search(
    metric: str, rng: np.random.Generator
) -> None:
    rows = rng.integers(-3, 4, (400, 5)).astype(np.float64)  # with ties
    ids = rng.permutation(10_000)[:400]
    index = omendb.Index(rows, metric=metric, ids=ids)
    query = rng.standard_normal(5)
    distances = naive(metric, query[None], rows)[0]
    places = {id_: rank for rank, id_ in enumerate(index.search(query, k=400).ids.tolist())}
    for row in rng.permutation(400)[:30]:
        why = index.why_not(query, ids[row], k=10)
        rank = places[int(ids[row])]
        assert why.rank == rank
        assert why.distance == pytest.approx(distances[row])
        assert why.kth_distance == pytest.approx(np.sort(distances)[9])
        assert why.reason == ("found" if rank < 10 else "beyond k")
        if why.reason == "beyond k":
            assert f"k = {rank + 1} would reach it" in why.sentence
            assert index.why_not(query, ids[row], k=rank + 1).reason == "found"


def test_ties_are_told_of() -> None:
    index = omendb.Index(np.array([[1.0], [1.0], [1.0], [2.0]]))
    why = index.why_not([0.0], 2, k=2)
    assert (why.reason, why.rank) == ("beyond k", 2)
    assert "as far as the last answer" in why.sentence
    assert "1.000000 beyond the last answer" in index.why_not([0.0], 3, k=2).sentence


@pytest.mark.parametrize("id_", [3, -1, 2**70, 1.0, "one", None, (1,), np.int64(3)])
def test_an_id_that_is_not_there_is_an_answer(id_: object) -> None:
    index = omendb.Index(np.eye(3))
    why = index.why_not([1.0, 0.0, 0.0], id_)
    assert (why.reason, why.rank, why.distance) == ("not in index", None, None)
    assert str(why) == f"id {id_} is not in the index"
    index.remove([1])
    assert index.why_not([1.0, 0.0, 0.0], 1).reason == "not in index"
    index.add(np.eye(3)[:1], ids=[1])
    assert index.why_not([1.0, 0.0, 0.0], 1).rank == 1


def test_a_filter_that_excludes_a_row_is_told_of() -> None:
    index = omendb.Index(np.arange(6.0)[:, None])
    near = index.why_not([0.1], 0, k=2, filter=[2, 3, 4])
    assert (near.reason, near.rank) == ("filtered out", 0)
    assert "would come 1st among the 3 rows that may answer, and so would be" in near.sentence
    far = index.why_not([0.1], 5, k=2, filter=np.arange(6) < 4)
    assert (far.reason, far.rank) == ("filtered out", 4)
    assert "would not be one of the 2 nearest" in far.sentence
    assert index.why_not([0.1], 3, k=2, filter=[2, 3]).reason == "found"
    nobody = index.why_not([0.1], 3, filter=np.zeros(6, bool))
    assert (nobody.reason, nobody.kth_distance) == ("filtered out", None)
    assert "lets no row answer" in nobody.sentence


def test_a_row_that_a_walk_missed_is_found_at_the_effort_that_is_told(
    rng: np.random.Generator,
) -> None:
    rows = rng.standard_normal((20_000, 48)).astype(np.float32)
    index = omendb.Index(rows, method="graph")
    queries = rng.standard_normal((60, 48)).astype(np.float32)
    truth = index.search(queries, k=10, method="exact").ids
    walked = index.search(queries, k=10, method="graph", effort=10).ids
    missed = [
        (query, id_)
        for query, row, found in zip(queries, truth, walked, strict=True)
        for id_ in np.setdiff1d(row, found)
    ]
    assert missed
    for query, id_ in missed[:10]:
        why = index.why_not(query, id_, method="graph", effort=10)
        assert (why.reason, why.effort) == ("missed", 10)
        assert why.rank is not None
        assert why.rank < 10
        assert why.effort_needed is not None
        assert why.effort_needed > 10
        found = index.search(query, k=10, method="graph", effort=why.effort_needed)
        assert id_ in found.ids
        narrower = index.search(query, k=10, method="graph", effort=why.effort_needed - 1)
        assert id_ not in narrower.ids
        assert f"at effort {why.effort_needed:,}" in why.sentence
        assert index.why_not(query, id_, method="exact").reason == "found"


def test_why_not_takes_one_query() -> None:
    index = omendb.Index(np.eye(3))
    assert index.why_not(np.eye(3)[:1], 0).rank == 0
    with pytest.raises(ValueError, match="expected one query, got 2"):
        index.why_not(np.eye(3)[:2], 0)
    with pytest.raises(ValueError, match="expected one query, got 0"):
        index.why_not(np.eye(3)[:0], 0)


def test_nothing_of_a_users_is_html() -> None:
    html = omendb.Index(np.eye(2)).why_not([1.0, 0.0], "<script>")._repr_html_()
    assert html == "<p>id &lt;script&gt; is not in the index</p>"


def test_ids_of_ones_own_and_conditions_are_explained_too(rng: np.random.Generator) -> None:
    arrow = pytest.importorskip("pyarrow")
    rows = rng.standard_normal((500, 6)).astype(np.float32)
    names = [f"row {i}" for i in range(500)]
    table = arrow.table({"name": names, "size": range(500), "vector": rows.tolist()})
    index = omendb.Index.from_frame(table, vector="vector", id="name")
    plain = omendb.Index(rows)
    told = index.explain(rows[:2], k=3, where="size < 200")
    assert (told.queries, told.allowed) == (2, 200)
    order = plain.search(rows[0], k=500).ids.tolist()
    found = index.why_not(rows[0], names[order[20]], k=3)
    assert (found.id, found.rank) == (names[order[20]], 20)
    small = [row for row in order if row < 200]
    left = index.why_not(rows[0], names[small[20]], k=3, where="size < 200")
    assert left.rank == 20
    large = next(row for row in order if row >= 200)
    excluded = index.why_not(rows[0], names[large], k=3, where="size < 200")
    assert excluded.reason == "filtered out"
    assert names[large] in str(excluded)
    assert "not in the index" in str(index.why_not(rows[0], "nobody", k=3))
    keys = [uuid.UUID(int=i) for i in range(500)]
    mine = omendb.Index(rows, ids=keys).why_not(rows[0], keys[order[20]], k=3)
    assert (mine.id, mine.rank) == (keys[order[20]], 20)
