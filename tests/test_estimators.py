"""Classifier, regressor and transformers, against scikit-learn's own on its data sets."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn")

from scipy.sparse import csr_matrix
from sklearn import neighbors as reference
from sklearn.cluster import SpectralClustering
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_linnerud,
    load_wine,
)
from sklearn.exceptions import DataConversionWarning
from sklearn.manifold import TSNE, Isomap
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from omendb import neighbors
from omendb.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    RadiusNeighborsTransformer,
)

WEIGHTS = [
    pytest.param("uniform", id="uniform"),
    pytest.param("distance", id="distance"),
    pytest.param(lambda distances: 1 / (1 + distances), id="callable"),
]
CLASSES = {
    "iris": load_iris,
    "wine": load_wine,
    "digits": load_digits,
    "breast cancer": load_breast_cancer,
}


@parametrize_with_checks(
    [
        KNeighborsClassifier(),
        KNeighborsClassifier(weights="distance", metric="manhattan"),
        KNeighborsRegressor(),
        KNeighborsRegressor(weights="distance", algorithm="graph", target_recall=0.99),
        KNeighborsTransformer(),
        KNeighborsTransformer(mode="connectivity"),
        RadiusNeighborsTransformer(),
    ]
)
def test_scikit_learns_estimator_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def split(load: Any) -> tuple[Any, Any, Any]:
    """Rows to fit, their targets, and other rows; some of these are beside fitted ones."""
    X, y = load(return_X_y=True)
    # Whole numbers give the same distances to both libraries, so that ties are the same ties.
    X = np.round(X)
    return X[::2], y[::2], np.concatenate([X[1::2], X[:20]])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("data", CLASSES)
@pytest.mark.parametrize("k", [1, 5])
def test_the_classifier_answers_as_scikit_learns(data: str, weights: Any, k: int) -> None:
    X, y, Q = split(CLASSES[data])
    ours = KNeighborsClassifier(k, weights=weights).fit(X, y)
    # Between equally far rows scikit-learn chooses freely: it gets ours as its own neighbours.
    theirs = reference.KNeighborsClassifier(k, weights=weights, algorithm="brute").fit(X, y)
    theirs.kneighbors = ours.kneighbors
    assert_array_equal(ours.predict(Q), theirs.predict(Q))
    assert_allclose(ours.predict_proba(Q), theirs.predict_proba(Q), rtol=1e-12)
    assert_array_equal(ours.classes_, theirs.classes_)
    assert ours.score(Q[-20:], y[:10].repeat(2)) == pytest.approx(
        np.mean(theirs.predict(Q[-20:]) == y[:10].repeat(2))
    )


def without_ties(X: Any, Q: Any, k: int) -> Any:
    """Return the rows of Q whose k nearest are the same in every library: no other is as near."""
    distances = np.sort(np.linalg.norm(Q[:, None] - X, axis=2), axis=1)
    return Q[distances[:, k] > distances[:, k - 1] * (1 + 1e-9)]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("k", [1, 5, 8])
@pytest.mark.parametrize("data", [*CLASSES.values(), load_diabetes, load_linnerud])
def test_predictions_are_those_of_scikit_learn_with_its_own_neighbours(
    data: Any, k: int, weights: Any
) -> None:
    X, y = data(return_X_y=True)
    X, y, Q = X[::2], y[::2], X[1::2]
    some = without_ties(X, Q, k)
    assert len(some) > len(Q) * 0.6
    if data in CLASSES.values():
        ours = KNeighborsClassifier(k, weights=weights).fit(X, y)
        theirs = reference.KNeighborsClassifier(k, weights=weights).fit(X, y)
        assert_array_equal(ours.predict(some), theirs.predict(some))
        assert_allclose(ours.predict_proba(some), theirs.predict_proba(some), rtol=1e-6)
    else:
        regressor = KNeighborsRegressor(k, weights=weights).fit(X, y)
        reference_ = reference.KNeighborsRegressor(k, weights=weights).fit(X, y)
        assert_allclose(regressor.predict(some), reference_.predict(some), rtol=1e-6)


@pytest.mark.parametrize("data", CLASSES)
def test_the_classifier_is_as_right_as_scikit_learns_with_its_own_neighbours(data: str) -> None:
    X, y = CLASSES[data](return_X_y=True)
    ours = cross_val_score(KNeighborsClassifier(5), X, y)
    theirs = cross_val_score(reference.KNeighborsClassifier(5), X, y)
    assert_allclose(ours, theirs, atol=0.006)


def test_classes_of_several_targets_and_of_text_come_back_in_their_own_type() -> None:
    X, y, Q = split(load_iris)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    both = np.stack([names, np.array(["odd", "even"])[y % 2]], axis=1)
    ours = KNeighborsClassifier(3).fit(X, both)
    theirs = reference.KNeighborsClassifier(3, algorithm="brute").fit(X, both)
    theirs.kneighbors = ours.kneighbors
    assert ours.outputs_2d_
    assert_array_equal(ours.predict(Q), theirs.predict(Q))
    for mine, other in zip(ours.predict_proba(Q), theirs.predict_proba(Q), strict=True):
        assert_allclose(mine, other)
    one = KNeighborsClassifier(3).fit(X, names)
    assert one.predict(Q).dtype == names.dtype


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("load", [load_diabetes, load_linnerud])
def test_the_regressor_answers_as_scikit_learns(load: Any, weights: Any) -> None:
    X, y = load(return_X_y=True)
    X, y, Q = X[::2], y[::2], np.concatenate([X[1::2], X[:6]])
    ours = KNeighborsRegressor(4, weights=weights).fit(X, y)
    theirs = reference.KNeighborsRegressor(4, weights=weights, algorithm="brute").fit(X, y)
    theirs.kneighbors = ours.kneighbors
    assert_allclose(ours.predict(Q), theirs.predict(Q), rtol=1e-10)
    assert ours.predict(Q).shape == theirs.predict(Q).shape


def test_without_rows_each_fitted_row_is_asked_and_does_not_answer_for_itself() -> None:
    X, y, _ = split(load_iris)
    ours = KNeighborsClassifier(1).fit(X, y)
    expected = y[ours.kneighbors(return_distance=False)[:, 0]]
    assert_array_equal(ours.predict(None), expected)
    assert ours.score(None, y) == pytest.approx(np.mean(expected == y))
    means = KNeighborsRegressor(1).fit(X, y.astype(float)).predict(None)
    assert_array_equal(means, expected)


def test_weights_that_are_all_zero_or_of_another_shape_are_errors() -> None:
    X, y, Q = split(load_iris)
    nothing = KNeighborsClassifier(weights=np.zeros_like).fit(X, y)
    with pytest.raises(ValueError, match="zero weights"):
        nothing.predict(Q)
    wrong = KNeighborsRegressor(weights=lambda distances: distances[:, :2]).fit(X, y)
    with pytest.raises(ValueError, match=r"weights of shape \(\d+, 5\)"):
        wrong.predict(Q)
    with pytest.raises(ValueError, match="continuous"):
        KNeighborsClassifier().fit(X, y + 0.5)


@pytest.mark.parametrize("estimator", [KNeighborsClassifier, KNeighborsRegressor])
@pytest.mark.parametrize("metric", ["inner_product", "ip", "dot"])
def test_negative_distances_are_no_weights(estimator: Any, metric: str) -> None:
    X, y, Q = split(load_iris)
    with pytest.raises(ValueError, match="needs distances of at least 0"):
        estimator(weights="distance", metric=metric).fit(X, y)
    later = estimator(metric=metric).fit(X, y).set_params(weights="distance")
    with pytest.raises(ValueError, match="needs distances of at least 0"):
        later.predict(Q)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_very_small_distances_are_weights_too(dtype: str) -> None:
    X, y, Q = np.array([[0.0], [1e-39], [5.0]], dtype), [1.0, 2.0, 3.0], np.array([[3e-39]], dtype)
    ours = KNeighborsRegressor(3, weights="distance").fit(X, y)
    # Its brute force loses such distances.
    theirs = reference.KNeighborsRegressor(3, weights="distance", algorithm="kd_tree").fit(X, y)
    assert_allclose(ours.predict(Q), theirs.predict(Q), rtol=1e-5)
    classifier = KNeighborsClassifier(3, weights="distance").fit(X, [0, 1, 0])
    assert_allclose(classifier.predict_proba(Q), [[0.4, 0.6]], rtol=1e-5)


def test_a_callable_gets_distances_in_double_precision() -> None:
    X, y, Q = np.array([[0], [12], [13]], np.float32), [1, 2, 3], np.array([[25]], np.float32)
    for kind in ("Regressor", "Classifier"):
        ours, theirs = (
            getattr(module, f"KNeighbors{kind}")(2, weights=lambda d: np.exp(-(d**2))).fit(X, y)
            for module in (neighbors, reference)
        )
        assert_allclose(ours.predict(Q), theirs.predict(Q))


@pytest.mark.parametrize("estimator", [KNeighborsClassifier, KNeighborsRegressor])
def test_targets_and_rows_are_of_one_fit(estimator: Any) -> None:
    ours = estimator(1).fit([[0.0], [1], [2], [3]], [0, 1, 2, 3])
    with pytest.raises(ValueError, match="row 1"):
        ours.fit([[0.0, 0], [1e200, 0], [2, 0], [3, 0]], [[3, 0], [2, 0], [1, 0], [0, 0]])
    assert_array_equal(ours.predict([[0.0], [3]]), [0, 3])


def test_targets_that_are_no_dense_numbers_are_refused_by_fit() -> None:
    X, y, _ = split(load_iris)
    for estimator in (KNeighborsClassifier(), KNeighborsRegressor()):
        with pytest.raises(TypeError, match=r"got a sparse csr_matrix: .*toarray\(\)"):
            estimator.fit(X, csr_matrix(y[:, np.newaxis]))
    for missing in (np.full(len(y), None), np.array([None, *y[1:]], object)):
        with pytest.raises(ValueError, match="Input y contains NaN"):
            KNeighborsRegressor().fit(X, missing)


def test_one_column_of_classes_draws_scikit_learns_warning() -> None:
    X, y, Q = split(load_iris)
    with pytest.warns(DataConversionWarning, match=r"got a column of shape \(75, 1\)"):
        ours = KNeighborsClassifier().fit(X, y[:, np.newaxis])
    assert_array_equal(ours.predict(Q), KNeighborsClassifier().fit(X, y).predict(Q))


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_transformers_give_scikit_learns_graphs(mode: Any) -> None:
    X, _, Q = split(load_digits)
    ours = KNeighborsTransformer(mode=mode, n_neighbors=7).fit(X)
    theirs = reference.KNeighborsTransformer(mode=mode, n_neighbors=7, algorithm="brute").fit(X)
    graph, expected = ours.transform(Q), theirs.transform(Q)
    assert_array_equal(np.diff(graph.indptr), np.diff(expected.indptr))
    assert_allclose(np.sort(graph.data), np.sort(expected.data))
    assert list(ours.get_feature_names_out()[:2]) == [
        "kneighborstransformer0",
        "kneighborstransformer1",
    ]
    within = RadiusNeighborsTransformer(mode=mode, radius=20.0).fit(X)
    others = reference.RadiusNeighborsTransformer(mode=mode, radius=20.0).fit(X)
    assert_allclose(within.transform(Q).toarray(), others.transform(Q).toarray())
    assert_allclose(within.fit_transform(X).toarray(), others.fit_transform(X).toarray())


def test_pipelines_take_the_transformer_before_what_wants_a_graph() -> None:
    X, y = load_digits(return_X_y=True)
    # No two distances are the same, so that there is one graph only.
    X, y = X[:300] + np.random.default_rng(0).normal(0, 0.01, (300, 64)), y[:300]
    picture = make_pipeline(
        KNeighborsTransformer(n_neighbors=60),
        TSNE(metric="precomputed", init="random", perplexity=15, max_iter=300, random_state=0),
    ).fit_transform(X)
    assert picture.shape == (300, 2)
    near = KNeighborsClassifier(3).fit(picture, y)
    assert near.score(None, y) > 0.85

    isomap = make_pipeline(
        KNeighborsTransformer(n_neighbors=20),
        Isomap(n_neighbors=20, metric="precomputed", eigen_solver="dense"),
    )
    direct = Isomap(n_neighbors=20, eigen_solver="dense")
    assert_allclose(np.abs(isomap.fit_transform(X)), np.abs(direct.fit_transform(X)), atol=1e-5)

    groups = make_pipeline(
        KNeighborsTransformer(n_neighbors=25, mode="connectivity"),
        SpectralClustering(
            10, affinity="precomputed_nearest_neighbors", n_neighbors=25, random_state=0
        ),
    )
    assert adjusted_rand_score(y, groups.fit_predict(X)) > 0.6
