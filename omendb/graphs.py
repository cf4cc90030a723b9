"""One graph of nearest neighbours for every tool that starts from one.

All rows of a set are compared once, by `knn_graph`, and what comes out goes to SciPy, UMAP,
HDBSCAN, networkx and scanpy in the form that each wants. `duplicates` and `join` are its relatives:
groups of rows that are nearly equal, and the nearest rows of another set as a stream. NumPy is
enough for all that does not name another package.
"""

from __future__ import annotations

from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from omendb._core import Index

if TYPE_CHECKING:  # numpy.typing alone takes longer to import than all of omendb
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    import pandas
    from numpy.typing import ArrayLike, NDArray

    _Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
    _Progress: TypeAlias = bool | Callable[[int, int], object]

__all__ = ["Duplicates", "KnnGraph", "duplicates", "join", "knn_graph"]

# Rows that are asked for together, so that memory stays bounded.
_BLOCK = 16_384
# Rows from which "auto" is approximate: the pairs grow with the square of the rows.
_AUTO_ROWS = 500_000
# Components up to this size look for what is nearest to them together.
_SMALL = 128


class KnnGraph:
    """The nearest neighbours of every row among the others, made by `knn_graph`.

    Attributes
    ----------
    rows : ndarray of shape (n, k), int64
        For each row the numbers of its neighbours, the nearest first; equal distances by row.
    ids : ndarray of shape (n, k)
        The same as ids of the index; they differ from `rows` only where an index had ids.
    distances : ndarray of shape (n, k), float32 or float64
        Their distances.
    exact : bool
        Whether these are proven to be the nearest.
    recall : float
        The share of the true neighbours that is there: 1.0 where exact, otherwise as measured on
        some rows (equally far ones count).
    metric : str
        What the distances are.
    index : Index
        The rows themselves, which answer for new ones. `to_hdbscan` and `to_umap` read them again:
        once rows were added, removed or updated, make the graph again.

    Examples
    --------
    >>> import numpy as np, omendb
    >>> graph = omendb.knn_graph(np.array([[0.0], [1.0], [3.0], [7.0]]), k=2)
    >>> graph.rows.tolist()
    [[1, 2], [0, 2], [1, 0], [2, 1]]
    >>> graph
    KnnGraph(4 rows, k=2, metric='euclidean', exact)
    """

    def __init__(
        self, index: Index, rows: NDArray[np.int64], distances: _Floats, recall: float, exact: bool
    ) -> None:
        self.index = index
        self.rows = rows
        self.distances = distances
        self.recall = recall
        self.exact = exact
        self.metric = index.metric
        self._node_ids = index.ids

    @property
    def ids(self) -> NDArray[Any]:
        """The neighbours as ids of the index, of shape (n, k)."""
        found: NDArray[Any] = self._node_ids[self.rows]
        return found

    @property
    def k(self) -> int:
        """The neighbours of a row: as many as were asked for, or all others."""
        return int(self.rows.shape[1])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Say how large it is and how good."""
        found = "exact" if self.exact else f"recall {self.recall:.3f}"
        return f"KnnGraph({len(self)} rows, k={self.k}, metric='{self.metric}', {found})"

    def to_scipy(self, mode: Literal["distance", "connectivity"] = "distance") -> Any:
        """Give the graph as a sparse matrix, as scikit-learn's `kneighbors_graph` does.

        Parameters
        ----------
        mode : {"distance", "connectivity"}, default="distance"
            Whether an edge holds its distance or 1.0.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, n)
            Row ``i`` holds its ``k`` neighbours, the nearest first, itself not among them.
            Distances of 0, as between equal rows, are stored.

        Raises
        ------
        ValueError
            If there is no such mode.
        ImportError
            If SciPy is not installed.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> omendb.knn_graph(np.array([[0.0], [1.0], [3.0]]), k=1).to_scipy().toarray()
        array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 2., 0.]])
        """
        if mode not in ("distance", "connectivity"):
            raise ValueError(f"expected mode to be 'distance' or 'connectivity', got {mode!r}")
        sparse = _import("scipy.sparse", "scipy")
        distances = self.distances.ravel()
        data = distances.copy() if mode == "distance" else np.ones(distances.size)
        n, k = self.rows.shape
        edges = (data, self.rows.ravel().copy(), np.arange(0, n * k + 1, max(k, 1)))
        return sparse.csr_matrix(edges if k else (n, n), shape=(n, n))

    def to_umap(
        self, n_neighbors: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], Any]:
        """Give what `umap.UMAP` takes as ``precomputed_knn``.

        UMAP counts a row as its own first neighbour, so a graph with ``k`` neighbours serves
        ``n_neighbors`` up to ``k + 1``. Give UMAP the metric of the graph and the rows as well.

        Parameters
        ----------
        n_neighbors : int, optional
            What UMAP is given, itself counted; all there are by default. Needed for fewer than
            4,096 rows where it is smaller: UMAP does not cut the arrays itself there.

        Returns
        -------
        indices : ndarray of shape (n, n_neighbors), int32
            Each row, then its neighbours.
        distances : ndarray of shape (n, n_neighbors), float32
            Their distances, the first 0.
        search_index : pynndescent.NNDescent or None
            Answers for new rows, by omendb, so that `UMAP.transform` and `UMAP.update` work. None
            where pynndescent, without which there is no UMAP, is not installed.

        Raises
        ------
        ValueError
            If ``n_neighbors`` is less than 2 or more than ``k + 1``, or rows of the index were
            added or removed since.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> X = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)
        >>> indices, distances, _ = omendb.knn_graph(X, k=14).to_umap()
        >>> indices.shape, bool((indices[:, 0] == np.arange(300)).all())
        ((300, 15), True)
        """
        width = self.k + 1 if n_neighbors is None else n_neighbors
        if not 2 <= width <= self.k + 1:
            raise ValueError(
                f"expected n_neighbors from 2 to {self.k + 1}, the graph's k and the row itself, "
                f"got {width}: make the graph "
                + ("with a larger k" if self.k < len(self) - 1 else "of more rows")
            )
        indices, distances = _with_self(self.rows, self.distances, width)
        try:
            search_index = _umap_index(self._numbered(), indices.copy(), distances.copy())
        except ImportError:
            search_index = None
        return indices, distances, search_index

    def to_hdbscan(self) -> Any:
        """Give a symmetric, connected matrix of distances for ``metric="precomputed"``.

        HDBSCAN needs one connected component. Where the graph has several, the two nearest rows of
        two components are joined, found by an exact search between them, until there is one; how
        many edges that took is logged as a warning. A distance of 0 is stored as the smallest
        normal number, since graph algorithms of SciPy lose edges of weight 0.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, n), float64
            An edge where one of two rows is a neighbour of the other. `sklearn.cluster.HDBSCAN` and
            `hdbscan.HDBSCAN` take it with ``metric="precomputed"`` and ``min_samples=`` up to
            ``k``.

        Raises
        ------
        ValueError
            If distances can be negative, as by "inner_product", or components must be joined and
            rows of the index were added or removed since.
        ImportError
            If SciPy is not installed.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
        >>> matrix = omendb.knn_graph(X, k=1).to_hdbscan()  # joins 1.0 and 10.0
        >>> matrix[1, 2]
        np.float64(9.0)
        """
        if self.metric == "inner_product":
            raise ValueError(
                "HDBSCAN needs distances that are not negative: make the graph with the metric "
                "'cosine' or 'euclidean'"
            )
        sparse = _import("scipy.sparse", "scipy")
        n = len(self)
        tails = np.repeat(np.arange(n), self.k)
        heads, weights = self.rows.ravel(), self.distances.ravel().astype(np.float64)
        bridges = self._bridges(sparse, tails, heads)
        if bridges:
            import logging  # takes as long to import as all of omendb

            logging.getLogger(__name__).warning(
                "the graph had %d components: joined by the %d shortest edges between them",
                len(bridges) + 1,
                len(bridges),
            )
            a, b, d = (np.array(column) for column in zip(*bridges, strict=True))
            tails, heads = np.concatenate([tails, a]), np.concatenate([heads, b])
            weights = np.concatenate([weights, d])
        weights = np.maximum(weights, np.finfo(np.float64).tiny)
        # Each edge once from each end: the same two rows have the same distance both ways.
        tails, heads = np.concatenate([tails, heads]), np.concatenate([heads, tails])
        order = np.lexsort((heads, tails))
        tails, heads, weights = tails[order], heads[order], np.tile(weights, 2)[order]
        new = np.ones(len(tails), dtype=bool)
        new[1:] = (tails[1:] != tails[:-1]) | (heads[1:] != heads[:-1])
        offsets = np.searchsorted(tails[new], np.arange(n + 1))
        return sparse.csr_matrix((weights[new], heads[new], offsets), shape=(n, n))

    def _bridges(
        self, sparse: Any, tails: NDArray[Any], heads: NDArray[Any]
    ) -> list[tuple[int, int, float]]:
        """Find the edges of the shortest tree between components (Borůvka, 1926)."""
        csgraph = _import("scipy.sparse.csgraph", "scipy")
        n = len(self)
        edges = sparse.coo_matrix((np.ones(len(tails), np.int8), (tails, heads)), shape=(n, n))
        count, labels = csgraph.connected_components(edges, directed=False)
        bridges: list[tuple[int, int, float]] = []
        while count > 1:
            ways = [(d, min(a, b), max(a, b)) for a, b, d in self._ways_out(labels, count)]
            # The shortest first, and of equally short ones the lowest rows.
            for distance, a, b in sorted(set(ways)):
                if labels[a] != labels[b]:
                    bridges.append((a, b, distance))
                    labels[labels == labels[a]] = labels[b]
            _, labels = np.unique(labels, return_inverse=True)
            count = int(labels.max()) + 1
        return bridges

    def _ways_out(self, labels: NDArray[Any], count: int) -> Iterator[tuple[int, int, float]]:
        """Yield for each component but the largest its shortest edge to another."""
        sizes = np.bincount(labels, minlength=count)
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
        largest = int(sizes.argmax())
        index = self._numbered()
        ids, vectors = index.ids, index.vectors
        few = [c for c in range(count) if c != largest and sizes[c] <= _SMALL]
        if few:
            # As many others as its component has may come before the first of another.
            asked = np.concatenate([members[c] for c in few])
            k = int(max(sizes[c] for c in few)) + 1
            best: dict[int, tuple[float, int, int]] = {}
            for start in range(0, len(asked), _BLOCK):
                part = asked[start : start + _BLOCK]
                hits = index.search(vectors[part], k, method="exact")
                found = _rows_of(ids, hits.ids)
                other = labels[found] != labels[part][:, np.newaxis]
                first = other.argmax(axis=1)
                for i, row in enumerate(part.tolist()):
                    if other[i, first[i]]:
                        way = (float(hits.distances[i, first[i]]), row, int(found[i, first[i]]))
                        label = int(labels[row])
                        best[label] = min(best.get(label, way), way, key=_edge_order)
            for distance, a, b in best.values():
                yield a, b, distance
        for c in range(count):
            if c != largest and sizes[c] > _SMALL:
                allowed = labels != c
                ways = []
                for start in range(0, len(members[c]), _BLOCK):
                    part = members[c][start : start + _BLOCK]
                    hits = index.search(vectors[part], 1, method="exact", filter=allowed)
                    found = _rows_of(ids, hits.ids)[:, 0]
                    nearest = hits.distances[:, 0]
                    shortest = np.flatnonzero(nearest == nearest.min()).tolist()
                    ways += [(float(nearest[i]), int(part[i]), int(found[i])) for i in shortest]
                length, a, b = min(ways, key=_edge_order)
                yield a, b, length

    def _numbered(self) -> Index:
        """Return the index, with numbers for ids, as long as it has the rows of the graph."""
        if not np.array_equal(self.index.ids, self._node_ids):
            raise ValueError(
                f"expected the index to have the {len(self)} rows of the graph still, but rows "
                "were added or removed since: make the graph again"
            )
        return _numbered(self.index)

    def to_networkx(self) -> Any:
        """Give the graph to networkx.

        Returns
        -------
        networkx.DiGraph
            A node for each id, an edge from each row to each of its neighbours with the distance as
            ``weight``. `to_undirected` makes it symmetric.

        Raises
        ------
        ImportError
            If networkx is not installed.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> graph = omendb.knn_graph(np.array([[0.0], [1.0], [3.0]]), k=1)
        >>> try:
        ...     edges = sorted(graph.to_networkx().edges(data="weight"))
        ... except ImportError:  # networkx is not installed
        ...     edges = [(0, 1, 1.0), (1, 0, 1.0), (2, 1, 2.0)]
        >>> edges
        [(0, 1, 1.0), (1, 0, 1.0), (2, 1, 2.0)]
        """
        networkx = _import("networkx", "networkx")
        nodes = self._node_ids.tolist()
        graph = networkx.DiGraph(metric=self.metric)
        graph.add_nodes_from(nodes)
        for node, heads, weights in zip(
            nodes, self.ids.tolist(), self.distances.tolist(), strict=True
        ):
            graph.add_weighted_edges_from((node, h, w) for h, w in zip(heads, weights, strict=True))
        return graph

    def to_anndata(self, adata: Any) -> None:
        """Write the graph into an `anndata.AnnData`, where scanpy looks for it.

        It fills what `scanpy.pp.neighbors` would: ``.obsp["distances"]``,
        ``.obsp["connectivities"]``
        (UMAP's kernel: each row's distances fall off from its nearest neighbour's so that the
        weights sum to ``log2(k + 1)``, and ``a + b - a * b`` of both directions) and
        ``.uns["neighbors"]``. Then `scanpy.tl.leiden`, `scanpy.tl.umap` and the like run as they
        are.

        Parameters
        ----------
        adata : anndata.AnnData
            Of as many observations as the graph has rows, in the same order.

        Raises
        ------
        ValueError
            If the number of observations differs, there are no neighbours, or distances can be
            negative, as by "inner_product".
        ImportError
            If SciPy is not installed.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> graph = omendb.knn_graph(np.random.default_rng(0).standard_normal((50, 4)), k=5)
        >>> try:
        ...     import anndata
        ... except ImportError:
        ...     keys = ["connectivities", "distances"]
        ... else:
        ...     adata = anndata.AnnData(np.zeros((50, 1), dtype=np.float32))
        ...     graph.to_anndata(adata)
        ...     keys = sorted(adata.obsp)
        >>> keys
        ['connectivities', 'distances']
        """
        if adata.n_obs != len(self):
            raise ValueError(
                f"expected an AnnData of {len(self)} observations, as the graph has rows, got "
                f"{adata.n_obs}"
            )
        if self.metric == "inner_product" or not self.k:
            raise ValueError(
                "scanpy needs neighbours at distances that are not negative: make the graph of two "
                "rows or more with the metric 'cosine' or 'euclidean'"
            )
        distances = self.to_scipy("distance").astype(np.float64)
        connectivities = self._connectivities()
        for matrix in (distances, connectivities):
            matrix.sort_indices()
        adata.obsp["distances"] = distances
        adata.obsp["connectivities"] = connectivities
        adata.uns["neighbors"] = {
            "connectivities_key": "connectivities",
            "distances_key": "distances",
            "params": {
                "n_neighbors": self.k + 1,
                "method": "umap",
                "random_state": 0,
                "metric": self.metric,
            },
        }

    def _connectivities(self) -> Any:
        """UMAP's fuzzy union of the neighbourhoods (McInnes, Healy, Melville, 2018, section 3)."""
        sparse = _import("scipy.sparse", "scipy")
        distances = self.distances.astype(np.float64)
        n, k = distances.shape
        # The nearest at a distance: equal rows do not count.
        away = np.where(distances > 0, distances, np.inf).min(axis=1)
        away[np.isinf(away)] = 0.0
        beyond = np.maximum(distances - away[:, np.newaxis], 0.0)
        # Weights fall with growing width: halve the interval until the sum is that of the
        # logarithm.
        # The row itself has a weight that is not counted, but is one of log2's neighbours.
        target = np.log2(k + 1)
        low, high, width = np.zeros(n), np.full(n, np.inf), np.ones(n)
        for _ in range(64):
            total = np.exp(-beyond / width[:, np.newaxis]).sum(axis=1)
            small = total < target
            low, high = np.where(small, width, low), np.where(small, high, width)
            width = np.where(np.isinf(high), 2 * width, (low + high) / 2)
        # Not narrower than a thousandth of the mean distance, itself counted, nor 0.
        own = distances.sum(axis=1) / (k + 1)
        every = distances.sum() / (n * (k + 1))
        width = np.maximum(width, 1e-3 * np.where(away > 0, own, every))
        width[width == 0] = 1.0
        weights = np.exp(-beyond / width[:, np.newaxis]).astype(np.float32)
        offsets = np.arange(0, n * k + 1, k)
        one_way = sparse.csr_matrix((weights.ravel(), self.rows.ravel(), offsets), shape=(n, n))
        other_way = one_way.T.tocsr()
        union = one_way + other_way - one_way.multiply(other_way)
        union = union.tocsr()
        union.eliminate_zeros()
        return union


def _edge_order(edge: tuple[float, int, int]) -> tuple[float, int, int]:
    """Length, then the rows, whichever end comes first."""
    distance, a, b = edge
    return distance, min(a, b), max(a, b)


def _with_self(
    rows: NDArray[np.int64], distances: _Floats, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Put each row before its neighbours, in the types that UMAP uses."""
    indices = np.empty((len(rows), width), dtype=np.int32)
    away = np.zeros((len(rows), width), dtype=np.float32)
    indices[:, 0] = np.arange(len(rows))
    indices[:, 1:] = rows[:, : width - 1]
    away[:, 1:] = distances[:, : width - 1]
    return indices, away


@cache
def _umap_index_class() -> Any:
    """Make the class that UMAP takes for pynndescent's index, whose importing takes seconds."""
    from pynndescent import NNDescent

    class UmapIndex(NNDescent):  # type: ignore[misc, unused-ignore]
        """An omendb index in the place of pynndescent's: `UMAP` asks it for new rows."""

        def __init__(
            self, index: Index, indices: NDArray[np.int32], distances: NDArray[np.float32]
        ) -> None:
            # Nothing of pynndescent's own is set up: what UMAP touches is here.
            self._index = index
            self._knn = indices, distances
            self._raw_data = index.vectors
            self._angular_trees = index.metric == "cosine"
            self.metric = index.metric
            self.n_neighbors = indices.shape[1]

        @property
        def neighbor_graph(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            """Neighbours and distances of all rows, each first among its own."""
            return self._knn

        def prepare(self) -> None:
            """There is nothing to prepare."""

        def query(
            self, query_data: ArrayLike, k: int = 10, epsilon: float = 0.1
        ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
            """Find the `k` nearest rows of each query; `epsilon` changes nothing."""
            hits = self._index.search(query_data, k)
            rows = _rows_of(self._index.ids, hits.ids)
            return rows.astype(np.int32), hits.distances.astype(np.float32)

        def update(self, xs_fresh: ArrayLike) -> None:
            """Take new rows, after those there are."""
            old = self._index.vectors
            fresh = np.asarray(xs_fresh, dtype=np.float32)
            rows = np.concatenate([np.asarray(old, dtype=np.float32), fresh])
            graph = knn_graph(rows, self.n_neighbors - 1, metric=self._index.metric)
            self._index = graph.index
            self._knn = _with_self(graph.rows, graph.distances, self.n_neighbors)
            self._raw_data = rows

        def __reduce__(self) -> tuple[Any, ...]:
            return _umap_index, (self._index, *self._knn)

    return UmapIndex


def _umap_index(index: Index, *knn: NDArray[Any]) -> Any:
    """Make one, also out of a pickle."""
    return _umap_index_class()(index, *knn)


def knn_graph(
    X: ArrayLike | Index,
    k: int = 15,
    metric: str = "euclidean",
    *,
    method: Literal["auto", "exact", "approximate"] = "auto",
    recall: float = 0.99,
    seed: int = 0,
    threads: int | None = None,
    progress: _Progress = False,
) -> KnnGraph:
    """Find the nearest neighbours of every row among the others.

    Parameters
    ----------
    X : array-like of shape (n, dim), or Index
        The rows; an array of a supported number type is used where it lies. An index keeps its own
        metric, and its graph if it has one.
    k : int, default=15
        Neighbours of a row, itself not counted; all others if there are fewer.
    metric : str, default="euclidean"
        As in `Index`; ignored where `X` is an index.
    method : {"auto", "exact", "approximate"}, default="auto"
        "exact" compares each two rows once, by 8-bit products that serve both, and proves its
        answers. "approximate" compares a row with those in the cells near it, as many as a sample
        of the rows tells to be needed, and may miss some; where that is no less work, as for
        metrics other than "euclidean", "sqeuclidean" and "cosine", or finds far fewer than asked
        for, as in clusters too tight for 8-bit codes, it is "exact". "auto" is "exact" below
        500,000 rows.
    recall : float, default=0.99
        For "approximate": the mean share of the true neighbours to find, above 0 and up to 1. What
        was reached, measured on five hundred rows, is the result's `recall`.
    seed : int, default=0
        For "approximate": chooses the random rows that cells are made from.
    threads : int, optional
        Threads to use; as many as there are processors by default. The result does not depend on
        it.
    progress : bool or callable, default=False
        True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, n)``.

    Returns
    -------
    KnnGraph
        ``rows`` and ``distances`` of shape (n, min(k, n - 1)), and what to make of them. A row is
        never its own neighbour, also where others are equal to it.

    Raises
    ------
    ValueError
        If the shape, the metric, ``k``, ``method``, ``recall`` or a number is wrong.
    TypeError
        If `X` is sparse or does not hold real numbers, ``k`` is no integer, or ``recall`` no
        number.

    Examples
    --------
    >>> import numpy as np, omendb
    >>> X = np.random.default_rng(0).standard_normal((1000, 16), dtype=np.float32)
    >>> graph = omendb.knn_graph(X, k=10, metric="cosine")
    >>> graph.rows.shape, graph.exact
    ((1000, 10), True)
    """
    if method not in ("auto", "exact", "approximate"):
        raise ValueError(f"expected method to be 'auto', 'exact' or 'approximate', got {method!r}")
    if not isinstance(recall, Real):
        raise TypeError(f"expected recall to be a number, got {type(recall).__name__}")
    if not 0 < recall <= 1:
        raise ValueError(f"expected recall above 0 and up to 1, got {recall}")
    index = _index_of(X, metric, threads)
    exact = method == "exact" or (method == "auto" and len(index) < _AUTO_ROWS)
    wanted = None if exact else recall
    hits, found = index._neighbors(k, recall=wanted, seed=seed, threads=threads, progress=progress)
    return KnnGraph(
        index, hits.ids, hits.distances, 1.0 if found is None else found, exact=found is None
    )


def _index_of(X: ArrayLike | Index, metric: str, threads: int | None) -> Index:
    """Return the index of some rows, or the index that was given."""
    if isinstance(X, Index):
        return X
    if hasattr(X, "tocsr"):
        raise TypeError(
            f"expected dense rows, got a sparse {type(X).__name__}: pass X.toarray(), or reduce "
            "its dimensions first, as by sklearn.decomposition.TruncatedSVD"
        )
    return Index(X, metric=metric, threads=threads)


def _numbered(index: Index) -> Index:
    """Return an index of the same rows whose ids are numbers: itself, where they are."""
    if index.ids.dtype == np.int64:
        return index
    return Index(index.vectors, metric=index.metric)


def _rows_of(ids: NDArray[Any], found: NDArray[Any]) -> NDArray[np.int64]:
    """Row numbers of ids, all of which are there."""
    if ids.dtype == np.int64 and (not len(ids) or (ids == np.arange(len(ids))).all()):
        return found
    order = np.argsort(ids, kind="stable")
    return order[np.searchsorted(ids, found, sorter=order)].astype(np.int64, copy=False)


def _from_first(vectors: NDArray[Any], rows: NDArray[np.int64], metric: str) -> _Floats:
    """Distances of some rows from the first of them."""
    found: list[NDArray[Any]] = []
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        # An index of these rows alone: a filter would look at all rows for each group.
        hits = Index(vectors[part], metric=metric).search(vectors[rows[0]], len(part))
        found.append(hits.distances[np.argsort(hits.ids)])
    return np.concatenate(found)


class Duplicates:
    """Groups of rows that are nearly equal, made by `duplicates`.

    Attributes
    ----------
    labels : ndarray of shape (n,), int64
        For each row the first row of its group; itself where it has no duplicate.
    groups : list of ndarray
        The ids of each group of two rows or more, in the rows' order.
    distances : list of ndarray
        Their distances from the first row of the group, float32 or float64. A group grows from row
        to row, so they may be larger than the radius.
    radius : float
        How near two rows had to be.
    metric : str
        What the distances are.

    Examples
    --------
    >>> import numpy as np, omendb
    >>> found = omendb.duplicates(np.array([[0.0], [5.0], [0.1], [5.0]]), 0.2, "euclidean")
    >>> found
    Duplicates(2 groups, 4 of 4 rows, radius=0.2, metric='euclidean')
    >>> [group.tolist() for group in found.groups]
    [[0, 2], [1, 3]]
    >>> found.labels.tolist()
    [0, 1, 0, 1]
    """

    def __init__(self, index: Index, labels: NDArray[np.int64], radius: float) -> None:
        self.labels = labels
        self.radius = radius
        self.metric = index.metric
        ids = index.ids
        counts = np.bincount(labels, minlength=len(labels))
        inside = np.flatnonzero(counts[labels] > 1)
        inside = inside[np.argsort(labels[inside], kind="stable")]
        starts = np.flatnonzero(np.diff(labels[inside], prepend=-1))
        members = np.split(inside, starts[1:]) if len(inside) else []
        self.groups: list[NDArray[Any]] = [ids[rows] for rows in members]
        self.distances: list[_Floats] = []
        if members:
            vectors = index.vectors
            self.distances = [_from_first(vectors, rows, self.metric) for rows in members]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)

    def __repr__(self) -> str:
        """Say how many groups of how many rows there are."""
        rows = sum(len(group) for group in self.groups)
        return (
            f"Duplicates({len(self)} groups, {rows} of {len(self.labels)} rows, "
            f"radius={self.radius}, metric='{self.metric}')"
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Give the groups as a data frame.

        Returns
        -------
        pandas.DataFrame
            A line for each row that has a duplicate: ``group`` counts the groups, ``id``, and
            ``distance``, from the first row of the group. ``drop_duplicates("group")`` leaves
            one row of each.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> import numpy as np, omendb
        >>> omendb.duplicates(np.array([[0.0], [5.0], [0.0]]), 0, "euclidean").to_pandas()
           group  id  distance
        0      0   0       0.0
        1      0   2       0.0
        """
        frames = _import("pandas", "pandas")
        sizes = [len(group) for group in self.groups]
        return frames.DataFrame(
            {
                "group": np.repeat(np.arange(len(self)), sizes),
                "id": np.concatenate(self.groups) if sizes else np.empty(0, np.int64),
                "distance": np.concatenate(self.distances) if sizes else np.empty(0, np.float32),
            }
        )


def duplicates(
    X: ArrayLike | Index,
    radius: float = 0.05,
    metric: str = "cosine",
    *,
    threads: int | None = None,
    progress: _Progress = False,
) -> Duplicates:
    """Group rows that are nearly equal.

    Two rows are in one group if they are at most `radius` apart, or a chain of such rows leads from
    one to the other. Each two rows are compared, exactly; memory does not grow with the number of
    pairs, however many rows are equal.

    Parameters
    ----------
    X : array-like of shape (n, dim), or Index
        The rows. An index keeps its own metric.
    radius : float, default=0.05
        The largest distance of two duplicates, itself included.
    metric : str, default="cosine"
        As in `Index`; ignored where `X` is an index.
    threads : int, optional
        Threads to use; as many as there are processors by default.
    progress : bool or callable, default=False
        True shows a bar where ``tqdm`` is installed; a callable gets ``(rows_done, n)``.

    Returns
    -------
    Duplicates
        ``groups``, ``labels`` and `to_pandas`.

    Raises
    ------
    ValueError
        If the shape, the metric, the radius or a number is wrong.
    TypeError
        If `X` is sparse or does not hold real numbers.

    Examples
    --------
    >>> import numpy as np, omendb
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]])
    >>> omendb.duplicates(X).groups
    [array([0, 2])]
    """
    index = _index_of(X, metric, threads)
    labels = index._groups(radius, threads=threads, progress=progress)
    return Duplicates(index, labels, radius)


def join(
    A: ArrayLike,
    B: ArrayLike | Index,
    k: int = 5,
    metric: str = "euclidean",
    *,
    batch_size: int = 8_192,
    method: Literal["auto", "exact", "graph"] = "auto",
    threads: int | None = None,
) -> Any:
    """Find for each row of `A` its nearest rows of `B`, as a stream of Arrow batches.

    A batch is computed when it is read, so that memory does not grow with the rows of `A`.

    Parameters
    ----------
    A : array-like of shape (n, dim)
        What is asked for. A memory-mapped array is read a batch at a time.
    B : array-like of shape (m, dim), or Index
        What answers. An index keeps its own metric.
    k : int, default=5
        Neighbours of each row of `A`; all rows of `B` if there are fewer.
    metric : str, default="euclidean"
        As in `Index`; ignored where `B` is an index.
    batch_size : int, default=8192
        Rows of `A` whose answers are one batch.
    method : {"auto", "exact", "graph"}, default="auto"
        As in `Index.search`.
    threads : int, optional
        Threads to use; as many as there are processors by default.

    Returns
    -------
    pyarrow.RecordBatchReader
        The columns of `Hits.to_arrow`: ``query`` (the row of `A`), ``rank`` (0 for the nearest),
        ``id`` (of the row of `B`), ``distance``, and the metadata of an index. It exports
        ``__arrow_c_stream__``, so that pandas, Polars and DuckDB read it; it can be read once.

    Raises
    ------
    ValueError
        If a shape, the metric, ``k``, ``batch_size`` or a number is wrong; numbers of `A` that are
        not finite are found when their batch is read.
    TypeError
        If `A` or `B` is sparse or does not hold real numbers.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import numpy as np, omendb
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((100, 8)), rng.standard_normal((1000, 8))
    >>> table = omendb.join(A, B, k=3, batch_size=40).read_all()
    >>> table.column_names, table.num_rows
    (['query', 'rank', 'id', 'distance'], 300)
    """
    arrow = _import("pyarrow", "pyarrow")
    _import("pyarrow.compute", "pyarrow")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise TypeError(f"expected batch_size to be an integer, got {type(batch_size).__name__}")
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    if hasattr(A, "tocsr"):
        raise TypeError(f"expected dense rows, got a sparse {type(A).__name__}: pass A.toarray()")
    index = _index_of(B, metric, threads)
    queries = A if hasattr(A, "shape") and hasattr(A, "__getitem__") else np.asarray(A)
    queries = queries if isinstance(queries, np.ndarray) else np.asarray(queries)
    if queries.ndim != 2 or queries.shape[1] != index.dim:
        raise ValueError(
            f"expected A of shape (n, {index.dim}), as wide as B, got shape {queries.shape}"
        )

    def answers(start: int) -> Any:
        part = queries[start : start + batch_size]
        table = index.search(part, k, method=method, threads=threads).to_arrow()
        own = arrow.compute.add(table["query"], arrow.scalar(start, table["query"].type))
        return table.set_column(0, "query", own)

    # Asked once for nothing: a wrong k or number type is an error now, not in the stream.
    schema = answers(len(queries)).schema
    starts = range(0, len(queries), batch_size)
    batches = (batch for start in starts for batch in answers(start).combine_chunks().to_batches())
    return arrow.RecordBatchReader.from_batches(schema, batches)


def _import(name: str, package: str) -> Any:
    """Import a module that only some of the exports need."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {package}: pip install {package}") from error
