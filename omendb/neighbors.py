"""scikit-learn estimators that search with omendb.

They keep scikit-learn's names, arguments, return values and error messages, so that a program
changes engines by changing one import. scikit-learn is needed here and nowhere else in omendb.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Literal, Self, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omendb._core import Index

try:
    from joblib import cpu_count
    from scipy.sparse import csr_array, csr_matrix, issparse
    from sklearn import get_config
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.exceptions import DataConversionWarning
    from sklearn.utils import assert_all_finite, check_random_state
    from sklearn.utils._param_validation import Interval, StrOptions
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "omendb.neighbors needs scikit-learn 1.6 or newer: pip install -U scikit-learn"
    ) from error

__all__ = [
    "KNeighborsClassifier",
    "KNeighborsRegressor",
    "KNeighborsTransformer",
    "NearestNeighbors",
    "RadiusNeighborsTransformer",
]

_Distances: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_Mode: TypeAlias = Literal["connectivity", "distance"]
_Algorithm: TypeAlias = Literal["auto", "exact", "brute", "graph"]
_Weights: TypeAlias = Literal["uniform", "distance"] | Callable[[NDArray[Any]], NDArray[Any]] | None

_PRODUCTS = {"inner_product", "ip", "dot"}
_METRICS = {
    *("euclidean", "l2", "sqeuclidean", "cosine", *_PRODUCTS),
    *("manhattan", "l1", "cityblock", "chebyshev", "linf", "minkowski"),
}
_MINKOWSKI = {1: "manhattan", 2: "euclidean", np.inf: "chebyshev"}
# Parameters that all estimators have.
_SEARCH = ("algorithm", "metric", "p", "target_recall", "random_state", "n_jobs")


class NearestNeighbors(BaseEstimator):
    """Nearest neighbours, in place of `sklearn.neighbors.NearestNeighbors`.

    They are exact unless `algorithm` is "graph". Distances are judged in double precision on the
    numbers as they are, and equal distances are ordered by row. The answers do not depend on
    `n_jobs`.

    Parameters
    ----------
    n_neighbors : int or None, default=5
        Neighbours per query where a method is not told otherwise, at least 1.
    radius : float or None, default=1.0
        Largest distance where a radius method is not told otherwise, in the unit of `metric`,
        at least 0. The mostly negative radii of "inner_product" go to the methods.
    algorithm : {"auto", "exact", "brute", "graph"}, default="auto"
        "auto", "exact" and "brute", scikit-learn's name for it, compare with every row. "graph"
        builds a graph of near rows in `fit`, tunes it to `target_recall`, and walks through it in
        `kneighbors`: faster on large data, at the price of some missed neighbours. Radius methods
        are always exact, and so are "manhattan" and "chebyshev", with which `fit` refuses "graph".
    metric : str, default="minkowski"
        "euclidean" ("l2"), "sqeuclidean", "cosine", "inner_product" ("ip", "dot"; the distance
        is the negative product), "manhattan" ("l1", "cityblock"), "chebyshev" ("linf"), or
        "minkowski", which `p` makes one of these.
    p : float or None, default=2
        The power of "minkowski": 1 for "manhattan", 2 for "euclidean", infinity for
        "chebyshev". Other metrics ignore it.
    target_recall : float, default=0.95
        For "graph": the mean share of the true neighbours to find, above 0 and up to 1.
    random_state : int, RandomState instance or None, default=0
        For "graph": chooses the random rows that its building starts from. ``None`` draws anew.
    n_jobs : int or None, default=None
        Threads. ``None`` uses all cores, or ``OMP_NUM_THREADS`` where it is set, as
        scikit-learn's own exact search does; joblib sets it in its worker processes, so that
        a parallel grid search does not crowd the machine. -1 uses all cores, -2 all but one.

    Attributes
    ----------
    effective_metric_ : str
        `metric`, with "minkowski" resolved by `p`.
    recall_ : float
        For "graph": the recall measured in `fit`, on points between near rows (see
        `omendb.Index.tune`). Below `target_recall` where that could not be reached.
    n_features_in_ : int
        Columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,), object
        Column names seen in `fit`, where `X` had them and all were strings.
    n_samples_fit_ : int
        Rows seen in `fit`.

    Examples
    --------
    >>> from omendb.neighbors import NearestNeighbors
    >>> nn = NearestNeighbors(n_neighbors=2).fit([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> distances, rows = nn.kneighbors([[0.0, 0.0]])
    >>> distances.tolist(), rows.tolist()
    ([[0.0, 5.0]], [[0, 1]])
    >>> nn.kneighbors(n_neighbors=1, return_distance=False).tolist()  # without the row itself
    [[1], [0], [1]]
    """

    _parameter_constraints = {  # noqa: RUF012 (scikit-learn reads it as a plain attribute)
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "radius": [Interval(Real, 0, None, closed="both"), None],
        "algorithm": [StrOptions({"auto", "exact", "brute", "graph"})],
        "metric": [StrOptions(_METRICS)],
        "p": [Interval(Real, 0, None, closed="right"), None],
        "target_recall": [Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state"],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
    }

    def __init__(
        self,
        *,
        n_neighbors: int | None = 5,
        radius: float | None = 1.0,
        algorithm: _Algorithm = "auto",
        metric: str = "minkowski",
        p: float | None = 2,
        target_recall: float = 0.95,
        random_state: Any = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.algorithm = algorithm
        self.metric = metric
        self.p = p
        self.target_recall = target_recall
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Index the rows of `X`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A C-contiguous array of float32, float64, float16, bfloat16, int8 or uint8 is used
            where it lies and must not be changed afterwards; anything else is converted once.
        y : ignored
            Present by scikit-learn's convention.

        Returns
        -------
        self : NearestNeighbors
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, the shape of `X` or one of its values (NaN, infinity) does not fit, or
            `X` holds complex numbers or texts. A fitted estimator stays as it was.
        TypeError
            If `X` is sparse, or holds dates or objects that are no numbers.
        """
        with self._all_or_nothing():
            self._validate_params()
            return self._fit_rows(self._validated(X, reset=True))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the estimator as it was where fitting it fails or is interrupted."""
        # scikit-learn writes down the columns of `X` before it looks at the numbers.
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _fit_rows(self, vectors: NDArray[Any]) -> Self:
        """Index rows that scikit-learn has looked at."""
        metric = self.metric
        if metric == "minkowski":
            if self.p not in _MINKOWSKI:
                raise ValueError(f"metric='minkowski' needs p of 1, 2 or infinity, got {self.p!r}")
            metric = _MINKOWSKI[self.p]
        threads = self._threads()
        self.__dict__.pop("recall_", None)  # of an earlier graph
        if self.algorithm == "graph":
            seed = int(check_random_state(self.random_state).randint(2**31))
            self._index = Index(vectors, metric=metric, method="graph", seed=seed, threads=threads)
            self.recall_ = 1.0
            if len(self._index) > 1:
                k = min(self.n_neighbors or 1, len(self._index))
                self.recall_ = self._index.tune(self.target_recall, k, threads=threads).recall
        else:
            self._index = Index(vectors, metric=metric, threads=threads)
        self.effective_metric_ = metric
        self.n_samples_fit_ = len(self._index)
        return self

    @overload
    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: Literal[True] = True,
    ) -> tuple[_Distances, NDArray[np.int64]]: ...
    @overload
    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        *,
        return_distance: Literal[False],
    ) -> NDArray[np.int64]: ...
    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> NDArray[np.int64] | tuple[_Distances, NDArray[np.int64]]:
        """Find the `n_neighbors` fitted rows nearest to each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            The queries. ``None`` asks with each fitted row and leaves that row out of its own
            answer (only it: equal rows stay).
        n_neighbors : int, default=None
            Neighbours per query; ``None`` takes the estimator's.
        return_distance : bool, default=True
            Whether the distances come too.

        Returns
        -------
        neigh_dist : ndarray of shape (n_queries, n_neighbors), float64 or float32
            Ascending; float64 if `fit` had float64 (or converted to it), otherwise float32.
            Only if `return_distance`.
        neigh_ind : ndarray of shape (n_queries, n_neighbors), int64
            Rows of the fitted data; equal distances by row.

        Raises
        ------
        ValueError
            If there are fewer than `n_neighbors` rows to answer with, or a query does not fit.
        TypeError
            If `n_neighbors` is not an integer.
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        """
        distances, rows = self._k_nearest(X, n_neighbors)
        return (distances, rows) if return_distance else rows

    def kneighbors_graph(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        mode: _Mode = "connectivity",
    ) -> Any:
        """Give the answers of `kneighbors` as a sparse matrix.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            The queries; ``None`` asks with each fitted row, left out of its own answer.
        n_neighbors : int, default=None
            Neighbours per query; ``None`` takes the estimator's.
        mode : {"connectivity", "distance"}, default="connectivity"
            Whether an edge holds 1.0 or the distance.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n_queries, n_samples_fit_)
            A csr_array where scikit-learn is configured for sparse arrays. The edges of a row
            come by distance.

        Raises
        ------
        ValueError
            As in `kneighbors`, or if there is no such mode.
        """
        _check_mode(mode)
        distances, rows = self._k_nearest(X, n_neighbors)
        offsets = np.arange(0, rows.size + 1, rows.shape[1])
        return self._graph(offsets, rows.ravel(), distances.ravel(), mode)

    @overload
    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        return_distance: Literal[True] = True,
        sort_results: bool = False,
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]]: ...
    @overload
    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        *,
        return_distance: Literal[False],
        sort_results: bool = False,
    ) -> NDArray[np.object_]: ...
    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> NDArray[np.object_] | tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Find all fitted rows at most `radius` away from each query.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            The queries; ``None`` asks with each fitted row, left out of its own answer.
        radius : float, default=None
            Largest distance, inclusive; ``None`` takes the estimator's.
        return_distance : bool, default=True
            Whether the distances come too.
        sort_results : bool, default=False
            The answers come by distance in any case; scikit-learn's order without it is free.

        Returns
        -------
        neigh_dist : ndarray of shape (n_queries,), object
            An array of distances per query, float64 or float32 as in `kneighbors`. Only if
            `return_distance`.
        neigh_ind : ndarray of shape (n_queries,), object
            An int64 array of rows of the fitted data per query.

        Raises
        ------
        ValueError
            If `sort_results` comes without `return_distance`, as in scikit-learn, or a query
            does not fit.
        sklearn.exceptions.NotFittedError
            If `fit` has not been called.
        """
        if sort_results and not return_distance:
            raise ValueError("return_distance must be True if sort_results is True.")
        offsets, rows, distances = self._within_radius(X, radius)
        neigh_ind = _ragged(offsets, rows)
        return (_ragged(offsets, distances), neigh_ind) if return_distance else neigh_ind

    def radius_neighbors_graph(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        mode: _Mode = "connectivity",
        sort_results: bool = False,
    ) -> Any:
        """Give the answers of `radius_neighbors` as a sparse matrix.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), default=None
            The queries; ``None`` asks with each fitted row, left out of its own answer.
        radius : float, default=None
            Largest distance, inclusive; ``None`` takes the estimator's.
        mode : {"connectivity", "distance"}, default="connectivity"
            Whether an edge holds 1.0 or the distance.
        sort_results : bool, default=False
            The edges of a row come by distance in any case.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n_queries, n_samples_fit_)
            A csr_array where scikit-learn is configured for sparse arrays.

        Raises
        ------
        ValueError
            As in `radius_neighbors`, or if there is no such mode.
        """
        _check_mode(mode)
        offsets, rows, distances = self._within_radius(X, radius)
        return self._graph(offsets, rows, distances, mode)

    def _k_nearest(
        self, X: ArrayLike | None, n_neighbors: int | None
    ) -> tuple[_Distances, NDArray[np.int64]]:
        """Distances and rows for `kneighbors`, both of shape (n_queries, n_neighbors)."""
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        if not isinstance(k, Integral):
            raise TypeError(f"n_neighbors does not take {type(k)} value, enter integer value")
        if k <= 0:
            raise ValueError(f"Expected n_neighbors > 0. Got {k}")
        leave_out = X is None
        queries = self._index.vectors if X is None else self._validated(X, reset=False)
        if k + leave_out > self.n_samples_fit_:
            raise ValueError(
                f"Expected n_neighbors {'<' if leave_out else '<='} n_samples_fit, but "
                f"n_neighbors = {k}, n_samples_fit = {self.n_samples_fit_}, "
                f"n_samples = {queries.shape[0]}"
            )
        method: Literal["graph", "exact"] = "graph" if self.algorithm == "graph" else "exact"
        if method == "graph" and not self._index.has_graph:
            raise ValueError(
                "algorithm='graph' needs a graph, which fit did not build as the algorithm was "
                "another then: call fit again"
            )
        hits = self._index.search(
            queries, int(k) + leave_out, method=method, threads=self._threads()
        )
        if not leave_out:
            return hits.distances, hits.ids
        keep = hits.ids != np.arange(len(queries))[:, np.newaxis]
        # Where k + 1 rows come before the row itself (its duplicates, or any rows by inner
        # product), the last of them is the one too many.
        keep[keep.all(axis=1), -1] = False
        shape = (len(queries), int(k))
        return hits.distances[keep].reshape(shape), hits.ids[keep].reshape(shape)

    def _within_radius(
        self, X: ArrayLike | None, radius: float | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], _Distances]:
        """Offsets of shape (n_queries + 1,), then rows and distances, both flat."""
        check_is_fitted(self)
        reach = self.radius if radius is None else radius
        if reach is None:
            raise ValueError("radius must be given here, for the estimator's is None")
        queries = self._index.vectors if X is None else self._validated(X, reset=False)
        hits = self._index.search_radius(queries, reach, threads=self._threads())
        if X is not None:
            return hits.offsets, hits.ids, hits.distances
        keep = hits.ids != np.repeat(np.arange(len(queries)), np.diff(hits.offsets))
        kept_before = np.concatenate(([0], np.cumsum(keep)))
        return kept_before[hits.offsets], hits.ids[keep], hits.distances[keep]

    def _graph(
        self,
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64],
        distances: _Distances,
        mode: _Mode,
    ) -> Any:
        """Make the CSR matrix that scikit-learn would, of the kind that it is configured for."""
        edges = distances if mode == "distance" else np.ones(len(rows))
        shape = (len(offsets) - 1, self.n_samples_fit_)
        arrays = get_config().get("sparse_interface") == "sparray"
        return (csr_array if arrays else csr_matrix)((edges, rows, offsets), shape=shape)

    def _validated(self, X: ArrayLike, *, reset: bool, **more: Any) -> Any:
        """Check `X` as scikit-learn does; a C-contiguous array comes back as it is."""
        options: dict[str, Any] = {"order": "C", "reset": reset, **more}
        if getattr(getattr(X, "dtype", None), "name", None) == "bfloat16":
            # scikit-learn does not know the type; the index checks its values.
            options |= {"dtype": None, "ensure_all_finite": False}
        return validate_data(self, X, **options)

    def _threads(self) -> int | None:
        """Threads by `n_jobs`; ``None`` for all cores."""
        if self.n_jobs is None:
            share = os.environ.get("OMP_NUM_THREADS", "")
            return int(share) or None if share.isdecimal() else None
        return int(self.n_jobs if self.n_jobs > 0 else max(1, cpu_count() + 1 + self.n_jobs))


class _Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NearestNeighbors):
    """What both transformers are: estimators whose columns are the fitted rows."""

    _parameter_constraints = {  # noqa: RUF012
        **{key: NearestNeighbors._parameter_constraints[key] for key in _SEARCH},
        "mode": [StrOptions({"distance", "connectivity"})],
    }

    @property
    def _n_features_out(self) -> int:
        return self.n_samples_fit_


class KNeighborsTransformer(_Transformer):
    """Data into the sparse graph of its nearest neighbours, for pipelines.

    In place of `sklearn.neighbors.KNeighborsTransformer`: what follows in a pipeline takes
    ``metric="precomputed"`` (or ``affinity="precomputed_nearest_neighbors"``).

    Parameters
    ----------
    mode : {"distance", "connectivity"}, default="distance"
        Whether an edge holds the distance or 1.0. With distances one neighbour more is given, since
        each fitted row is its own first neighbour, which those who read the graph leave out.
    n_neighbors : int, default=5
        Neighbours per row.
    algorithm, metric, p, target_recall, random_state, n_jobs
        As in `NearestNeighbors`.

    Examples
    --------
    >>> from omendb.neighbors import KNeighborsTransformer
    >>> graph = KNeighborsTransformer(n_neighbors=1).fit_transform([[0.0], [1.0], [3.0]])
    >>> graph.toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    _parameter_constraints = {  # noqa: RUF012
        **_Transformer._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        mode: _Mode = "distance",
        n_neighbors: int = 5,
        algorithm: _Algorithm = "auto",
        metric: str = "minkowski",
        p: float | None = 2,
        target_recall: float = 0.95,
        random_state: Any = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            n_neighbors=n_neighbors,
            radius=None,
            algorithm=algorithm,
            metric=metric,
            p=p,
            target_recall=target_recall,
            random_state=random_state,
            n_jobs=n_jobs,
        )
        self.mode = mode

    def transform(self, X: ArrayLike) -> Any:
        """Give the graph from the rows of `X` to the fitted rows.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows like those that were fitted, or these themselves.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n_queries, n_samples_fit_)
            Each row has ``n_neighbors`` edges, and one more where `mode` is "distance".
        """
        k = (self.n_neighbors or 1) + (self.mode == "distance")
        return self.kneighbors_graph(X, k, self.mode)


class RadiusNeighborsTransformer(_Transformer):
    """Data into the sparse graph of all neighbours within a radius, for pipelines.

    In place of `sklearn.neighbors.RadiusNeighborsTransformer`. The answers are always exact.

    Parameters
    ----------
    mode : {"distance", "connectivity"}, default="distance"
        Whether an edge holds the distance or 1.0.
    radius : float, default=1.0
        Largest distance, inclusive.
    algorithm, metric, p, target_recall, random_state, n_jobs
        As in `NearestNeighbors`.

    Examples
    --------
    >>> from omendb.neighbors import RadiusNeighborsTransformer
    >>> graph = RadiusNeighborsTransformer(radius=1.5).fit_transform([[0.0], [1.0], [3.0]])
    >>> graph.toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    _parameter_constraints = {  # noqa: RUF012
        **_Transformer._parameter_constraints,
        "radius": [Interval(Real, 0, None, closed="both")],
    }

    def __init__(
        self,
        *,
        mode: _Mode = "distance",
        radius: float = 1.0,
        algorithm: _Algorithm = "auto",
        metric: str = "minkowski",
        p: float | None = 2,
        target_recall: float = 0.95,
        random_state: Any = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            n_neighbors=None,
            radius=radius,
            algorithm=algorithm,
            metric=metric,
            p=p,
            target_recall=target_recall,
            random_state=random_state,
            n_jobs=n_jobs,
        )
        self.mode = mode

    def transform(self, X: ArrayLike) -> Any:
        """Give the graph from the rows of `X` to the fitted rows.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Rows like those that were fitted, or these themselves.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n_queries, n_samples_fit_)
            An edge for each neighbour, a fitted row's own included.
        """
        return self.radius_neighbors_graph(X, mode=self.mode, sort_results=True)


class _Supervised(NearestNeighbors):
    """What the classifier and the regressor share: targets, and weights of neighbours."""

    _parameter_constraints = {  # noqa: RUF012
        **{key: NearestNeighbors._parameter_constraints[key] for key in _SEARCH},
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "weights": [StrOptions({"uniform", "distance"}), callable, None],
    }

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: _Weights = "uniform",
        algorithm: _Algorithm = "auto",
        metric: str = "minkowski",
        p: float | None = 2,
        target_recall: float = 0.95,
        random_state: Any = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            n_neighbors=n_neighbors,
            radius=None,
            algorithm=algorithm,
            metric=metric,
            p=p,
            target_recall=target_recall,
            random_state=random_state,
            n_jobs=n_jobs,
        )
        self.weights = weights

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets are needed, of one column or several."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def _checked(self, X: ArrayLike, y: ArrayLike, **more: Any) -> tuple[Any, NDArray[Any]]:
        """Rows and targets that scikit-learn has looked at."""
        self._validate_params()
        self._check_weights(self.metric)
        if issparse(y):
            raise TypeError(
                f"expected dense targets, got a sparse {type(y).__name__}: use y.toarray()"
            )
        vectors, y = self._validated(X, reset=True, y=y, multi_output=True, **more)
        return vectors, np.asarray(y)

    def _check_weights(self, metric: str) -> None:
        if self.weights == "distance" and metric in _PRODUCTS:
            raise ValueError(
                f"weights='distance' needs distances of at least 0, and those of metric={metric!r} "
                "are negative products: choose another metric, or a callable for weights"
            )

    def _weighted(self, X: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
        """Neighbours of each query and their weights, of shape (n_queries, n_neighbors)."""
        found, rows = self._k_nearest(X, None)
        # As scikit-learn's: float32 overflows long before.
        distances = found.astype(np.float64, copy=False)
        self._check_weights(self.effective_metric_)  # weights may be others than in fit
        if callable(self.weights):
            weights = np.asarray(self.weights(distances), dtype=float)
            if weights.shape != rows.shape:
                raise ValueError(
                    f"expected the callable to give weights of shape {rows.shape}, as the "
                    f"distances have, got {weights.shape}"
                )
            return rows, weights
        if self.weights != "distance":
            return rows, None
        with np.errstate(divide="ignore", over="ignore"):
            inverse = 1.0 / distances
        # Where some neighbour is in the same place, only such neighbours count.
        same = np.isinf(inverse)
        some = same.any(axis=1)
        inverse[some] = same[some]
        return rows, inverse


class KNeighborsClassifier(ClassifierMixin, _Supervised):
    """The class that most of the nearest neighbours have.

    In place of `sklearn.neighbors.KNeighborsClassifier`, and with its answers.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that vote.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a vote counts: the same, the inverse of the distance (where neighbours are in the same
        place as the query, theirs alone; not with "inner_product", whose distances are negative),
        or what a callable makes of an array of distances.
    algorithm, metric, p, target_recall, random_state, n_jobs
        As in `NearestNeighbors`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or a list of such
        Classes seen in `fit`; a list where there are several targets.
    outputs_2d_ : bool
        Whether the targets came in two dimensions.

    Examples
    --------
    >>> from omendb.neighbors import KNeighborsClassifier
    >>> classifier = KNeighborsClassifier(n_neighbors=3).fit([[0], [1], [2], [3]], [0, 0, 1, 1])
    >>> classifier.predict([[1.1]]).tolist(), classifier.predict_proba([[0.9]]).round(2).tolist()
    ([0], [[0.67, 0.33]])
    """

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that several labels may be given."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # Unlike its base it needs targets, as scikit-learn's does.
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # type: ignore[override]
        """Index the rows of `X`, each of which has its class in `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As in `NearestNeighbors.fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes: integers, strings or booleans.

        Returns
        -------
        self : KNeighborsClassifier
            The fitted estimator.
        """
        with self._all_or_nothing():
            vectors, targets = self._checked(X, y)
            check_classification_targets(targets)
            self.outputs_2d_ = targets.ndim == 2 and targets.shape[1] > 1
            if targets.ndim == 2 and not self.outputs_2d_:
                warnings.warn(
                    f"expected targets of 1 dimension, got a column of shape {targets.shape}, "
                    "which is taken for them: use y.ravel()",
                    DataConversionWarning,
                    stacklevel=2,
                )
            columns = targets.reshape(len(targets), -1)
            found = [np.unique(column, return_inverse=True) for column in columns.T]
            classes = [classes for classes, _ in found]
            self._codes = [codes for _, codes in found]
            self.classes_ = classes if self.outputs_2d_ else classes[0]
            return self._fit_rows(vectors)

    def predict(self, X: ArrayLike | None) -> NDArray[Any]:
        """Give the class of each query; the first of those that have as many votes.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), or None
            ``None`` asks with each fitted row, which does not vote for itself.

        Returns
        -------
        ndarray of shape (n_queries,) or (n_queries, n_outputs)
            Classes.
        """
        chosen = [classes[votes.argmax(axis=1)] for classes, votes in self._votes(X)]
        return np.stack(chosen, axis=1) if self.outputs_2d_ else chosen[0]

    def predict_proba(self, X: ArrayLike | None) -> Any:
        """Give the share of the votes that each class has.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), or None
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_queries, n_classes), or a list of such
            Classes in the order of ``classes_``; a list where there are several targets.
        """
        shares = [votes / votes.sum(axis=1, keepdims=True) for _, votes in self._votes(X)]
        return shares if self.outputs_2d_ else shares[0]

    def _votes(self, X: ArrayLike | None) -> list[tuple[NDArray[Any], NDArray[np.float64]]]:
        """For each target its classes, and their votes of shape (n_queries, n_classes)."""
        rows, weights = self._weighted(X)
        if weights is None:
            weights = np.ones(rows.shape)
        elif (weights == 0).all(axis=1).any():
            raise ValueError(
                "All neighbors of some sample is getting zero weights. Please modify 'weights' to "
                "avoid this case if you are using a user-defined function."
            )
        answers = []
        all_classes = self.classes_ if self.outputs_2d_ else [self.classes_]
        queries = np.arange(len(rows))
        for classes, codes in zip(all_classes, self._codes, strict=True):
            votes = np.zeros((len(rows), len(classes)))
            # Neighbour by neighbour, as scikit-learn adds them: the same sums, to the last bit.
            for neighbours, counts in zip(codes[rows].T, weights.T, strict=True):
                votes[queries, neighbours] += counts
            answers.append((classes, votes))
        return answers


class KNeighborsRegressor(RegressorMixin, _Supervised):
    """The mean of the nearest neighbours' targets.

    In place of `sklearn.neighbors.KNeighborsRegressor`, and with its answers.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours whose targets are averaged.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts: the same, the inverse of the distance (where neighbours are in the
        same place as the query, they alone; not with "inner_product", whose distances are
        negative), or what a callable makes of an array of distances.
    algorithm, metric, p, target_recall, random_state, n_jobs
        As in `NearestNeighbors`.

    Examples
    --------
    >>> from omendb.neighbors import KNeighborsRegressor
    >>> KNeighborsRegressor(2).fit([[0], [1], [2], [3]], [0, 0, 1, 1]).predict([[1.5]]).tolist()
    [0.5]
    """

    # Unlike its base it needs targets, as scikit-learn's does.
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # type: ignore[override]
        """Index the rows of `X`, each of which has its target in `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As in `NearestNeighbors.fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.

        Returns
        -------
        self : KNeighborsRegressor
            The fitted estimator.
        """
        with self._all_or_nothing():
            vectors, targets = self._checked(X, y, y_numeric=True)
            assert_all_finite(targets, input_name="y")  # None among objects has become NaN
            self._y = targets
            return self._fit_rows(vectors)

    def predict(self, X: ArrayLike | None) -> NDArray[Any]:
        """Give the mean target of each query's neighbours.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features), or None
            ``None`` asks with each fitted row, which does not count for itself.

        Returns
        -------
        ndarray of shape (n_queries,) or (n_queries, n_outputs)
            As the targets came.
        """
        rows, weights = self._weighted(X)
        targets = self._y.reshape(len(self._y), -1)
        if weights is None:
            means = np.mean(targets[rows], axis=1)
        else:
            sums = np.einsum("qn,qno->qo", weights, targets[rows].astype(float))
            means = sums / weights.sum(axis=1, keepdims=True)
        answers: NDArray[Any] = means if self._y.ndim == 2 else means[:, 0]
        return answers


def _check_mode(mode: str) -> None:
    if mode not in ("connectivity", "distance"):
        raise ValueError(
            'Unsupported mode, must be one of "connectivity", '
            f'or "distance" but got "{mode}" instead'
        )


def _ragged(offsets: NDArray[np.int64], flat: NDArray[Any]) -> NDArray[np.object_]:
    """Cut `flat` at `offsets` into an object array of its parts."""
    parts = np.empty(len(offsets) - 1, dtype=object)
    # Item by item: NumPy would make one 2-D array of parts of equal length.
    for i, (start, stop) in enumerate(pairwise(offsets)):
        parts[i] = flat[start:stop]
    return parts
