"""`omendb.neighbors` against scikit-learn's contract and scikit-learn's own answers."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import nearest, within

pytest.importorskip("sklearn")

import sklearn
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors as Reference
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from omendb.neighbors import NearestNeighbors

# What scikit-learn can compute too, by its names and the twin's.
METRICS = {
    "euclidean": "euclidean",
    "l2": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "cosine": "cosine",
    "manhattan": "manhattan",
    "l1": "manhattan",
    "cityblock": "manhattan",
    "chebyshev": "chebyshev",
}
DATA = ("random", "integers", "duplicates", "zero rows")
N, N_QUERIES, DIM, K = 120, 17, 11, 6


def make(data: str, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and queries; some queries are rows, the others beside one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, DIM))
    if data == "integers":
        X = rng.integers(0, 3, (N, DIM)).astype(float)
    elif data == "duplicates":
        X = X[rng.integers(0, 9, N)]
    elif data == "zero rows":
        X[rng.integers(0, N, 4)] = 0
    Q = np.concatenate([X[:4], X[rng.integers(0, N, N_QUERIES - 4)] + 1])
    return X.astype(dtype), Q.astype(dtype)


def nearest_others(metric: str, X: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and distances of the k rows nearest to each row, itself left out."""
    rows, distances = nearest(metric, X, X, len(X))
    others = rows != np.arange(len(X))[:, None]
    shape = (len(X), len(X) - 1)
    return rows[others].reshape(shape)[:, :k], distances[others].reshape(shape)[:, :k]


def radius_between(metric: str, Q: NDArray[Any], X: NDArray[Any]) -> float:
    """Choose a radius that takes a few dozen answers and that no distance is near to."""
    near = np.unique(nearest(metric, Q, X, len(X))[1].round(4))[:40]
    gap = int(np.diff(near).argmax())
    return float(near[gap : gap + 2].mean())


@parametrize_with_checks(
    [
        NearestNeighbors(),
        NearestNeighbors(metric="cosine", algorithm="brute", n_jobs=1),
        NearestNeighbors(metric="minkowski", p=1, algorithm="exact", n_jobs=-1),
        NearestNeighbors(algorithm="graph", target_recall=0.99, random_state=7),
    ]
)
def test_scikit_learns_estimator_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("algorithm", ["auto", "exact"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("metric", METRICS)
def test_kneighbors_matches_scikit_learn_up_to_ties(
    metric: str, data: str, dtype: str, algorithm: Any
) -> None:
    X, Q = make(data, dtype)
    nn = NearestNeighbors(n_neighbors=K, metric=metric, algorithm=algorithm).fit(X)
    reference = Reference(n_neighbors=K, metric=metric, algorithm="brute").fit(X)
    distances, rows = nn.kneighbors(Q)
    expected_distances, expected_rows = reference.kneighbors(Q)

    assert distances.dtype == dtype
    assert rows.dtype == expected_rows.dtype
    assert rows.shape == expected_rows.shape
    assert_allclose(distances, expected_distances, rtol=1e-4, atol=2e-6)
    if data == "random":
        assert_array_equal(rows, expected_rows)
    assert_array_equal((rows, distances), nearest(METRICS[metric], Q, X, K))
    assert_array_equal(nn.kneighbors(Q, return_distance=False), rows)
    assert nn.effective_metric_ == reference.effective_metric_


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("metric", [*METRICS, "inner_product"])
def test_without_queries_no_row_is_its_own_neighbour(metric: str, data: str, dtype: str) -> None:
    X, _ = make(data, dtype)
    nn = NearestNeighbors(n_neighbors=K, metric=metric).fit(X)
    distances, rows = nn.kneighbors()
    expected = nearest_others(METRICS.get(metric, metric), X, K)
    assert_array_equal((rows, distances), expected)
    assert_array_equal(nn.kneighbors(return_distance=False), rows)
    # scikit-learn takes the nearest row for the row itself where that one is not among the
    # k + 1 nearest; so by cosine it leaves out a neighbour of a zero row.
    if metric != "inner_product" and data != "zero rows":
        reference = Reference(n_neighbors=K, metric=metric, algorithm="brute").fit(X)
        assert_allclose(distances, reference.kneighbors()[0], rtol=1e-3, atol=1e-5)
        if data == "random":
            assert_array_equal(rows, reference.kneighbors()[1])


def test_equal_rows_are_neighbours_of_each_other() -> None:
    nn = NearestNeighbors(n_neighbors=3).fit(np.ones((6, 2)))
    distances, rows = nn.kneighbors()
    assert_array_equal(distances, np.zeros((6, 3)))
    assert_array_equal(rows, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]])


@pytest.mark.parametrize("metric", ["inner_product", "ip", "dot"])
def test_inner_product_matches_numpy(metric: str) -> None:
    X, Q = make("random", "float64")
    nn = NearestNeighbors(n_neighbors=K, metric=metric).fit(X)
    distances, rows = nn.kneighbors(Q)
    assert_array_equal((rows, distances), nearest("inner_product", Q, X, K))
    near, found = nn.radius_neighbors(Q, radius=-1.0)
    offsets, expected_rows, expected_distances = within("inner_product", Q, X, -1.0)
    assert_array_equal([len(row) for row in found], np.diff(offsets))
    assert_array_equal(np.concatenate(found), expected_rows)
    assert_array_equal(np.concatenate(near), expected_distances)


@pytest.mark.parametrize(("p", "same"), [(1, "manhattan"), (2, "euclidean"), (np.inf, "chebyshev")])
def test_p_resolves_minkowski_and_nothing_else(p: float, same: str) -> None:
    X, Q = make("random", "float64")
    nn = NearestNeighbors(p=p).fit(X)
    assert nn.effective_metric_ == same
    assert_allclose(nn.kneighbors(Q)[0], Reference(p=p).fit(X).kneighbors(Q)[0])
    assert NearestNeighbors(metric="cosine", p=p).fit(X).effective_metric_ == "cosine"


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
@pytest.mark.parametrize("with_queries", [True, False])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan", "chebyshev"])
def test_graphs_match_scikit_learn(metric: str, with_queries: bool, mode: Any) -> None:
    X, Q = make("random", "float64")
    queries = Q if with_queries else None
    radius = radius_between(metric, X if queries is None else Q, X)
    nn = NearestNeighbors(metric=metric, radius=radius).fit(X)
    reference = Reference(metric=metric, radius=radius, algorithm="brute").fit(X)
    for ours, theirs in [
        (nn.kneighbors_graph(queries, mode=mode), reference.kneighbors_graph(queries, mode=mode)),
        (nn.kneighbors_graph(queries, 2, mode), reference.kneighbors_graph(queries, 2, mode)),
        (
            nn.radius_neighbors_graph(queries, mode=mode),
            reference.radius_neighbors_graph(queries, mode=mode),
        ),
    ]:
        assert isinstance(ours, csr_matrix)
        assert isinstance(theirs, csr_matrix)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.nnz == theirs.nnz
        assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-6)


@pytest.mark.skipif("sparse_interface" not in sklearn.get_config(), reason="scikit-learn < 1.9")
def test_graphs_are_sparse_arrays_where_scikit_learn_is_configured_so() -> None:
    nn = NearestNeighbors().fit(make("random", "float64")[0])
    with sklearn.config_context(sparse_interface="sparray"):
        assert isinstance(nn.kneighbors_graph(), csr_array)
        assert isinstance(nn.radius_neighbors_graph(), csr_array)


@pytest.mark.parametrize("with_queries", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", ["random", "integers", "duplicates"])
@pytest.mark.parametrize("metric", METRICS)
def test_radius_neighbors_matches_scikit_learn(
    metric: str, data: str, dtype: str, with_queries: bool
) -> None:
    X, Q = make(data, dtype)
    queries = Q if with_queries else None
    radius = radius_between(METRICS[metric], X if queries is None else Q, X)
    nn = NearestNeighbors(metric=metric, radius=radius).fit(X)
    reference = Reference(metric=metric, radius=radius, algorithm="brute").fit(X)
    distances, rows = nn.radius_neighbors(queries, sort_results=True)
    expected_distances, expected_rows = reference.radius_neighbors(queries, sort_results=True)

    assert distances.dtype == rows.dtype == object
    assert distances.shape == rows.shape == expected_rows.shape
    for i, row in enumerate(rows):
        assert row.dtype == np.int64
        assert distances[i].dtype == dtype
        assert_allclose(distances[i], expected_distances[i], rtol=1e-3, atol=1e-3)
        assert_array_equal(np.sort(row), np.sort(expected_rows[i]))
    for row, again in zip(rows, nn.radius_neighbors(queries, return_distance=False), strict=True):
        assert_array_equal(row, again)


def test_a_radius_includes_its_boundary_and_may_find_nothing() -> None:
    nn = NearestNeighbors(radius=5).fit([[0, 0], [3, 4], [60, 80]])
    distances, rows = nn.radius_neighbors([[0, 0], [-30, 0]])
    assert_array_equal(rows[0], [0, 1])
    assert_array_equal(distances[0], [0, 5])
    assert len(rows[1]) == len(distances[1]) == 0
    assert [len(row) for row in nn.radius_neighbors(return_distance=False)] == [1, 1, 0]
    assert nn.radius_neighbors_graph(radius=0).nnz == 0
    assert nn.radius_neighbors_graph(radius=np.inf).nnz == 6


def test_answers_of_equal_length_stay_an_array_of_arrays() -> None:
    nn = NearestNeighbors().fit(np.eye(3))
    distances, rows = nn.radius_neighbors(np.eye(3))
    assert distances.shape == rows.shape == (3,)


def test_dbscan_takes_the_radius_graph() -> None:
    X, _ = make("duplicates", "float64")
    graph = NearestNeighbors(radius=2.0).fit(X).radius_neighbors_graph(X, mode="distance")
    labels = DBSCAN(eps=2.0, metric="precomputed").fit_predict(graph)
    assert_array_equal(labels, DBSCAN(eps=2.0).fit_predict(X))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "uint8", "bfloat16"])
def test_a_contiguous_array_is_borrowed(dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    X, Q = make("integers", dtype)
    nn = NearestNeighbors(n_neighbors=K).fit(X)
    assert np.shares_memory(nn._index.vectors, X)
    distances, rows = nn.kneighbors(Q)
    assert distances.dtype == ("float64" if dtype == "float64" else "float32")
    assert_array_equal((rows, distances), nearest("euclidean", Q, X, K))


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.tolist(),
        lambda X: X.astype(object),
        lambda X: X.astype(np.int64),
        lambda X: X.astype(">f8"),
        lambda X: np.asfortranarray(X),
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    ],
    ids=["list", "object", "int64", "big-endian", "fortran", "strided"],
)
def test_any_other_array_is_converted(convert: Any) -> None:
    X, Q = make("integers", "float64")
    distances, rows = NearestNeighbors(n_neighbors=K).fit(convert(X)).kneighbors(convert(Q))
    assert_array_equal((rows, distances), nearest("euclidean", Q, X, K))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_give_their_names_and_the_same_answers(library: str, dtype: str) -> None:
    frames = pytest.importorskip(library)
    X, Q = make("random", dtype)
    names = [f"column {i}" for i in range(DIM)]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    queries = frames.DataFrame(dict(zip(names, Q.T, strict=True)))
    nn = NearestNeighbors().fit(frame)
    assert_array_equal(nn.feature_names_in_, np.array(names, dtype=object))
    assert nn.n_features_in_ == DIM
    assert nn.n_samples_fit_ == N
    distances, rows = nn.kneighbors(queries)
    expected_distances, expected_rows = NearestNeighbors().fit(X).kneighbors(Q)
    assert distances.dtype == dtype
    assert_array_equal(distances, expected_distances)
    assert_array_equal(rows, expected_rows)
    with pytest.raises(ValueError, match="feature names should match"):
        nn.kneighbors(queries[names[::-1]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        nn.kneighbors(Q)
    assert not hasattr(nn.fit(X), "feature_names_in_")


def test_parameters_are_stored_untouched_and_checked_by_fit() -> None:
    bad: dict[str, Any] = {"n_neighbors": np.int64(3), "metric": "nonesuch", "p": [], "n_jobs": 0}
    nn = NearestNeighbors(**bad)
    assert all(nn.get_params()[name] is value for name, value in bad.items())
    copy = clone(nn)
    assert copy is not nn
    assert copy.get_params() == nn.get_params()
    with pytest.raises(ValueError, match="must be"):
        nn.fit(np.eye(3))
    assert not hasattr(nn, "n_samples_fit_")


@pytest.mark.parametrize(
    "bad",
    [
        {"n_neighbors": 0},
        {"n_neighbors": 1.5},
        {"radius": -1.0},
        {"radius": float("nan")},
        {"algorithm": "kd_tree"},
        {"metric": "euclid"},
        {"metric": "precomputed"},
        {"metric": max},
        {"p": 0},
        {"p": 3},
        {"p": None},
        {"n_jobs": 0},
        {"n_jobs": 2.0},
    ],
)
def test_a_bad_parameter_is_an_error_that_names_it(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        NearestNeighbors(**bad).fit(np.eye(3))


def test_more_neighbours_than_rows_is_scikit_learns_error() -> None:
    X, Q = make("random", "float64")
    for nn in (NearestNeighbors(), Reference()):
        nn.fit(X)
        message = rf"Expected n_neighbors <= n_samples_fit, but n_neighbors = {N + 1}, "
        with pytest.raises(ValueError, match=message):
            nn.kneighbors(Q, N + 1)
        message = rf"Expected n_neighbors < n_samples_fit, but n_neighbors = {N}, "
        with pytest.raises(ValueError, match=message):
            nn.kneighbors(n_neighbors=N)
        with pytest.raises(ValueError, match=message):
            nn.kneighbors_graph(n_neighbors=N)
        assert nn.kneighbors(Q, N)[1].shape == (N_QUERIES, N)
        assert nn.kneighbors(n_neighbors=N - 1)[1].shape == (N, N - 1)


def test_a_bad_call_is_scikit_learns_error() -> None:
    X, Q = make("random", "float64")
    for nn in (NearestNeighbors(), Reference()):
        for method in ("kneighbors", "radius_neighbors", "kneighbors_graph"):
            with pytest.raises(NotFittedError):
                getattr(nn, method)(Q)
        nn.fit(X)
        with pytest.raises(ValueError, match=r"Expected n_neighbors > 0\. Got 0"):
            nn.kneighbors(Q, 0)
        with pytest.raises(TypeError, match="n_neighbors does not take <class 'float'> value"):
            nn.kneighbors(Q, 1.5)  # type: ignore[call-overload]
        for method in ("kneighbors", "radius_neighbors"):
            with pytest.raises(ValueError, match="expecting 11 features"):
                getattr(nn, method)(Q[:, 1:])
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            nn.kneighbors(Q[0])
        with pytest.raises(ValueError, match="Input X contains NaN"):
            nn.kneighbors(np.full_like(Q, np.nan))
        with pytest.raises(ValueError, match="Input X contains infinity"):
            nn.radius_neighbors(np.full_like(Q, np.inf))
        with pytest.raises(ValueError, match="sort_results"):
            nn.radius_neighbors(Q, return_distance=False, sort_results=True)
        for method in ("kneighbors_graph", "radius_neighbors_graph"):
            with pytest.raises(ValueError, match="Unsupported mode"):
                getattr(nn, method)(Q, mode="weights")


def test_defaults_of_none_must_be_given_to_the_method() -> None:
    X, Q = make("random", "float64")
    nn = NearestNeighbors(n_neighbors=None, radius=None).fit(X)
    with pytest.raises(TypeError, match="n_neighbors"):
        nn.kneighbors(Q)
    with pytest.raises(ValueError, match="radius"):
        nn.radius_neighbors(Q)
    assert nn.kneighbors(Q, 2)[1].shape == (N_QUERIES, 2)
    assert nn.radius_neighbors(Q, 2.0)[1].shape == (N_QUERIES,)


def test_sparse_input_and_what_is_no_real_number_are_errors() -> None:
    with pytest.raises(TypeError, match="dense data is required"):
        NearestNeighbors().fit(csr_matrix(np.eye(3)))
    with pytest.raises(ValueError, match="Complex data not supported"):
        NearestNeighbors().fit(np.eye(3) * 1j)
    with pytest.raises(ValueError, match="not compatible"):
        NearestNeighbors().fit(np.array([["a", "b"]]))
    with pytest.raises(TypeError, match="real numbers"):
        NearestNeighbors().fit(np.array([["2020-02-29"]], dtype="datetime64[D]"))


def test_pickling_keeps_the_answers() -> None:
    for dtype in ("float32", "int8"):
        X, Q = make("integers", dtype)
        nn = NearestNeighbors(n_neighbors=K, metric="cosine").fit(X)
        copy = pickle.loads(pickle.dumps(nn))
        assert copy.get_params() == nn.get_params()
        for ours, theirs in zip(copy.kneighbors(Q), nn.kneighbors(Q), strict=True):
            assert_array_equal(ours, theirs)
    assert pickle.loads(pickle.dumps(NearestNeighbors(radius=2.0))).radius == 2.0


def test_grid_search_and_pipelines_take_the_estimator() -> None:
    X, _ = make("random", "float64")

    def compactness(estimator: Any, X: Any, y: Any = None) -> float:
        scaled = estimator[:-1].transform(X)
        return -float(estimator[-1].kneighbors(scaled)[0].mean())

    search = GridSearchCV(
        make_pipeline(StandardScaler(), NearestNeighbors()),
        {"nearestneighbors__n_neighbors": [5, 1, 3], "nearestneighbors__metric": ["l1", "l2"]},
        scoring=compactness,
        cv=3,
    ).fit(X)
    assert search.best_params_["nearestneighbors__n_neighbors"] == 1
    assert search.best_params_["nearestneighbors__metric"] == "l2"


def test_n_jobs_sets_the_threads_and_not_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Q = make("integers", "float32")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert NearestNeighbors()._threads() is None
    assert NearestNeighbors(n_jobs=3)._threads() == 3
    cores = NearestNeighbors(n_jobs=-1)._threads()
    assert cores is not None
    assert NearestNeighbors(n_jobs=-2)._threads() == max(1, cores - 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert NearestNeighbors()._threads() == 1
    assert NearestNeighbors(n_jobs=2)._threads() == 2
    expected = NearestNeighbors().fit(X).kneighbors(Q)
    for n_jobs in (1, 2, 3, -1, -100):
        answer = NearestNeighbors(n_jobs=n_jobs).fit(X).kneighbors(Q)
        assert_array_equal(answer, expected)


def test_refitting_replaces_everything() -> None:
    nn = NearestNeighbors(n_neighbors=1, metric="cosine").fit(np.eye(5))
    nn.set_params(metric="manhattan").fit(np.zeros((2, 3)))
    assert nn.effective_metric_ == "manhattan"
    assert (nn.n_samples_fit_, nn.n_features_in_) == (2, 3)
    assert_array_equal(nn.kneighbors([[1.0, 1.0, 1.0]])[0], [[3.0]])
    nn.set_params(metric="cosine", algorithm="graph").fit(np.eye(5))
    assert nn.recall_ == 1
    nn.set_params(algorithm="auto").fit(np.eye(5))
    assert not hasattr(nn, "recall_")
    with pytest.raises(ValueError, match="call fit again"):
        nn.set_params(algorithm="graph").kneighbors(np.eye(5))


def test_a_fit_that_fails_changes_nothing() -> None:
    nn = NearestNeighbors(n_neighbors=1)
    for bad in ([[0.0, 0], [1e200, 0]], [[np.nan]]):
        with pytest.raises(ValueError, match=r"1e200|NaN"):
            nn.fit(bad)
        with pytest.raises(NotFittedError):
            nn.kneighbors([[0.0]])
    nn.fit([[0.0], [1.0]])
    with pytest.raises(ValueError, match="1e200"):
        nn.fit([[0.0, 0], [1e200, 0]])
    assert nn.kneighbors([[0.9]])[1].tolist() == [[1]]


def test_interrupted_tuning_leaves_the_graph_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(list[Any]):
        def __init__(self, rows: Any, **options: Any) -> None:
            super().__init__(rows)

        def tune(self, *arguments: Any, **options: Any) -> None:
            raise KeyboardInterrupt

    nn = NearestNeighbors(n_neighbors=1, algorithm="graph").fit(np.eye(5))
    index, recall = nn._index, nn.recall_
    monkeypatch.setattr("omendb.neighbors.Index", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        nn.fit(np.zeros((9, 5)))
    assert nn._index is index
    assert (nn.recall_, nn.n_samples_fit_) == (recall, 5)


def test_omendb_needs_scikit_learn_for_its_estimators_only() -> None:
    program = (
        "import sys, omendb\n"
        "assert 'sklearn' not in sys.modules\n"
        "sys.modules['sklearn'] = None\n"
        "try:\n"
        "    import omendb.neighbors\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "omendb.neighbors needs scikit-learn 1.6 or newer" in done.stdout, done.stderr


def test_a_graph_finds_the_share_that_was_asked_for(rng: np.random.Generator) -> None:
    basis = rng.standard_normal((6, 24))
    X = (rng.standard_normal((8_400, 6)) @ basis).astype(np.float32)
    X, queries = X[:8_000], X[8_000:]
    nn = NearestNeighbors(n_neighbors=10, algorithm="graph", target_recall=0.95).fit(X)
    assert 0.9 <= nn.recall_ <= 1
    truth, _ = NearestNeighbors(n_neighbors=10).fit(X).kneighbors(queries)
    for estimator in (nn, pickle.loads(pickle.dumps(nn))):
        distances, rows = estimator.kneighbors(queries)
        assert np.mean(distances <= truth[:, -1:]) >= 0.9
        assert rows.shape == (400, 10)
    again = clone(nn).fit(X)
    np.testing.assert_array_equal(again.kneighbors(queries)[1], nn.kneighbors(queries)[1])
    with pytest.raises(ValueError, match="manhattan is searched exactly"):
        NearestNeighbors(algorithm="graph", metric="manhattan").fit(X)
    with pytest.raises(ValueError, match="target_recall"):
        NearestNeighbors(algorithm="graph", target_recall=0.0).fit(X)
