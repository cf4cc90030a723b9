"""omendb's graph beside hnswlib, FAISS, SVS, VSAG and USearch: approximate search.

    python benches/graph.py [--quick] [--data NAME ...] [--only PART ...] [--json FILE]

Each library lives in a process of its own, as in exact.py. A peer's build is timed once per data
set, in a process that does nothing else, and its index is kept in `.cache/bench` with the figures;
omendb's is built anew every time. Ratios of builds are ratios of CPU seconds, which other work on
the machine disturbs less than the clock. Searches are compared at equal recall: a sweep finds the
efforts on either side of the wanted recall, the libraries take turns at those, and the rate is
read between them (log of the rate over recall). Answers count as right when they are as near as
the k-th nearest row, by float64 distances.

A run without its cache first builds every peer's index: minutes for the small set, two hours for
all. `--without-omendb --only search` does that and no more than the peers' searches.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exact import Remote, Row, environment, memory, print_table, ratios

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
PACKAGES = ROOT.parent / "shared" / "data" / "debian-packages" / "vectors.npy"
K = 10
QUERIES = 2_000
FILTER_QUERIES = 100
SPARE = 20_000  # further rows of a generated set, to be added to a full index
SEED = 0
ROUNDS = 5
MIN_SECONDS = 0.2  # of one measurement
BLOCK_ROWS = 20_000  # of one product with all queries
RECALLS = (0.95, 0.99)
EFFORT = 64  # where none is searched for
EFFORT_LIMIT = 800
FILTER_LIMIT = 4_096
SHARES = (0.5, 0.1, 0.01, 0.001)
TURNOVERS = 10
ADD_ROWS = 1_000  # of one call
ADD_BATCHES = 2  # of one measurement
SMALL_ROWS = 25_000
MILLION = 1_000_000

# (required, aim): floors, or ceilings where a line says so.
Goal = tuple[float | None, float | None]
NO_GOAL: Goal = (None, None)
BUILD_GOAL = (7.0, 12.0)  # over hnswlib
BUILD_MILLION_GOAL = (15.0, 35.0)
BYTES_GOAL = (0.35, 0.30)  # of hnswlib's total, 384 dimensions
SEARCH_GOALS = {  # over the best peer, by recall; one query at a time, or in a batch
    (True, 0.95): (2.5, 4.0),
    (True, 0.99): (2.2, 3.5),
    (False, 0.95): (2.5, 4.0),
    (False, 0.99): (2.5, 4.0),
}
THREADS_GOAL = (1.7, 1.95)
SCALE_GOAL = (13.0, 11.0)
ADD_GOAL = (0.4, 0.7)  # over the rate at SMALL_ROWS
ADD_PEER_GOAL = (5.0, 10.0)  # over hnswlib's average
CHURN_GOAL = (0.01, 0.0)
FILTER_GOAL = (4.0, 10.0)  # over FAISS
FILE_GOAL = (50.0, 10.0)


@dataclass(frozen=True)
class Data:
    """Rows and queries, from a file or from the seed, kept in the cache with the true answers."""

    name: str
    metric: str
    peers: tuple[str, ...]
    file: str = ""
    rows: int = 0
    dim: int = 0
    clusters: int = 0
    plane: int = 0  # dimensions that the clusters' centres span
    rank: int = 0  # dimensions of one cluster
    noise: float = 0.0  # in every dimension
    norms: float = 1.0  # largest over smallest norm, for the inner product

    @property
    def folder(self) -> Path:
        """Where it is kept; another recipe is another folder."""
        recipe = repr(replace(self, peers=(), file=Path(self.file).name))
        return CACHE / f"{self.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"

    def load(self, part: str) -> Any:
        """Map one array of the cache: rows, queries, spare or worst."""
        return np.load(self.folder / f"{part}.npy", mmap_mode="r")

    def make(self) -> tuple[Floats, Floats, Floats]:
        """Return rows, queries and spare rows, float32, C-contiguous; unit length for cosine."""
        rng = np.random.default_rng(SEED)
        if self.file:
            vectors = np.load(self.file)
            held, kept = np.split(rng.permutation(len(vectors)), [QUERIES])
            rows, queries = vectors[kept].astype(np.float32), vectors[held].astype(np.float32)
            spare = rows[:0]
        else:
            drawn = self.mixture(rng, QUERIES + SPARE + self.rows)
            queries, spare, rows = np.split(drawn, [QUERIES, QUERIES + SPARE])
        if self.metric != "euclidean":
            for block in (rows, queries, spare):
                block /= np.linalg.norm(block, axis=1, keepdims=True)
        if self.metric == "inner_product":
            for block in (rows, spare):
                logs = rng.uniform(0, math.log(self.norms), (len(block), 1))
                block *= np.exp(logs).astype(np.float32)
        return rows, queries, spare

    def mixture(self, rng: np.random.Generator, rows: int) -> Floats:
        """Draw from overlapping Gaussians of low rank, whose centres lie in a common plane.

        Isotropic data of as many dimensions are beyond every graph, and clusters that do not
        touch leave a graph in pieces; real embeddings are neither.
        """
        axes = np.linalg.qr(rng.standard_normal((self.dim, self.plane)))[0].T.astype(np.float32)
        scale = (np.arange(1, self.plane + 1) ** -0.5).astype(np.float32)
        shape = (self.clusters, self.plane)
        centres = rng.standard_normal(shape, dtype=np.float32) * scale
        which = rng.integers(0, self.clusters, rows)
        order = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[order], np.arange(1, self.clusters))
        drawn = self.noise * rng.standard_normal((rows, self.dim), dtype=np.float32)
        for centre, members in zip(centres, np.split(order, bounds), strict=True):
            spread = rng.standard_normal((self.rank, self.plane), dtype=np.float32)
            spread *= scale / math.sqrt(self.rank)
            inner = rng.standard_normal((len(members), self.rank), dtype=np.float32)
            drawn[members] += (centre + inner @ spread) @ axes
        return drawn


class Library:
    """One library inside its worker process."""

    package = ""  # as it is installed
    module = ""  # as it is imported
    index: Any = None
    queries: Floats

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.library: Any = importlib.import_module(self.module)

    def build(self, rows: Floats, metric: str) -> None:
        """Index the rows."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Keep the index in a folder."""
        raise NotImplementedError

    def load(self, folder: Path, data: Data) -> None:
        """Take it from there."""
        raise NotImplementedError

    def tune(self, effort: int, threads: int) -> None:
        """Set the effort and the threads of the searches to come."""
        raise NotImplementedError

    def find(self, queries: Floats) -> Ints:
        """Return the ids of the K nearest rows of each query, -1 where there is none."""
        raise NotImplementedError

    def allow(self, mask: Bools | None) -> None:
        """Let only some rows answer the searches to come; None: all."""
        raise NotImplementedError

    def folder(self, data: Data) -> Path:
        """Where the index is kept; another version of the library is another folder."""
        return data.folder / f"{self.package}-{importlib.metadata.version(self.package)}"

    def prepare(self, data: Data) -> dict[str, float]:
        """Build, measure and keep the index, unless that was done before; return the figures."""
        folder = self.folder(data)
        figures = folder / "built.json"
        if not figures.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            built = self.measure(np.array(data.load("rows")), data.metric)
            self.tune(EFFORT, 1)
            self.find(np.array(data.load("queries")[:1]))  # what cannot search was not built
            self.save(folder)
            files = [path for path in folder.rglob("*") if path.is_file()]
            built["file"] = sum(path.stat().st_size for path in files)
            figures.write_text(json.dumps(built) + "\n")
        known: dict[str, float] = json.loads(figures.read_text())
        return known

    def measure(self, rows: Floats, metric: str) -> dict[str, float]:
        """Build once; return seconds by the clock and of the CPU, and the memory's growth."""
        before = memory(reset_peak=True)
        wall, cpu = time.perf_counter(), time.process_time()
        self.build(rows, metric)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = memory()
        built = {"wall_s": wall, "cpu_s": cpu}
        if before and after:
            built |= {"memory": after[0] - before[0], "peak": after[1] - before[0]}
        return built

    def open(self, data: Data, queries: int = QUERIES) -> None:
        """Load the kept index and the queries."""
        self.queries = np.array(data.load("queries")[:queries])
        self.load(self.folder(data), data)

    def answers(self, effort: int) -> Ints:
        """Answer all queries in one call."""
        self.tune(effort, 1)
        return self.find(self.queries)

    def rate(self, effort: int, one_by_one: bool) -> float:
        """Return queries per second, asked in one call or in as many as there are queries.

        With one call per query, as many Python threads ask as there are threads to use.
        """
        total = len(self.queries)
        blocks = [self.queries[i : i + 1] for i in range(total)] if one_by_one else [self.queries]
        self.tune(effort, 1 if one_by_one else self.threads)
        self.find(self.queries[:32])  # wakes threads and caches
        shares = [blocks[i :: self.threads] for i in range(self.threads)]

        def ask(blocks: Sequence[Floats]) -> None:
            for block in blocks:
                self.find(block)

        with ThreadPoolExecutor(self.threads) as pool:
            start = time.perf_counter()
            for passes in itertools.count(1):
                if one_by_one and self.threads > 1:
                    list(pool.map(ask, shares))
                else:
                    ask(blocks)
                elapsed = time.perf_counter() - start
                if elapsed >= MIN_SECONDS:
                    return passes * total / elapsed
        raise AssertionError("count() ended")

    def first_answer(self, data: Data) -> float:
        """Return the milliseconds from nothing loaded to the answer of one query."""
        query = np.array(data.load("queries")[:1])
        start = time.perf_counter()
        self.load(self.folder(data), data)
        self.tune(EFFORT, 1)
        self.find(query)
        return 1e3 * (time.perf_counter() - start)


class Omendb(Library):
    """The library under test."""

    package = module = "omendb"
    effort = 0
    search_threads = 1
    mask: Bools | None = None
    data: Data

    def build(self, rows: Floats, metric: str) -> None:
        self.index = self.library.Index(
            rows, metric=metric, method="graph", seed=SEED, threads=self.threads
        )

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index.omen"))

    def load(self, folder: Path, data: Data) -> None:
        self.index = self.library.Index.load(str(folder / "index.omen"))

    def open(self, data: Data, queries: int = QUERIES, rows: int | None = None) -> None:
        """Build the index: nothing of the library under test is kept."""
        self.data = data
        self.queries = np.array(data.load("queries")[:queries])
        self.build(np.array(data.load("rows")[:rows]), data.metric)

    def tune(self, effort: int, threads: int) -> None:
        self.effort, self.search_threads = effort, threads

    def allow(self, mask: Bools | None) -> None:
        self.mask = mask

    def find(self, queries: Floats) -> Ints:
        hits = self.index.search(
            queries,
            K,
            method="graph",
            effort=self.effort,
            filter=self.mask,
            threads=self.search_threads,
        )
        ids: Ints = hits.ids
        return ids

    def built(self, data: Data, rows: int | None = None) -> dict[str, float]:
        """Build from some of the rows; return the figures, with the bytes beside the vectors."""
        self.index = None
        figures = self.measure(np.array(data.load("rows")[:rows]), data.metric)
        return figures | {"nbytes": self.index.nbytes}

    def keep(self, data: Data) -> None:
        """Build the index and save it, for one measurement of loading."""
        shutil.rmtree(self.folder(data), ignore_errors=True)
        self.folder(data).mkdir()
        self.open(data)
        self.save(self.folder(data))

    def forget(self, data: Data) -> None:
        """Remove what `keep` saved."""
        shutil.rmtree(self.folder(data))

    def add(self, first: int, batches: int) -> float:
        """Add spare rows; return rows per CPU second."""
        spare = np.array(self.data.load("spare"))
        start = time.process_time()
        for batch in range(batches):
            begin = first + batch * ADD_ROWS
            self.index.add(spare[begin : begin + ADD_ROWS])
        return batches * ADD_ROWS / (time.process_time() - start)

    def churn(self, data: Data, rows: int) -> None:
        """Replace each row by another TURNOVERS times, an even number: the first ones are back."""
        self.open(data, rows=rows)
        halves = [np.array(data.load("rows")[first : first + rows]) for first in (0, rows)]
        present = np.arange(rows)
        for turn in range(1, TURNOVERS + 1):
            for first in range(0, rows, ADD_ROWS):
                some = slice(first, first + ADD_ROWS)
                self.index.remove(present[some])
                present[some] = self.index.add(halves[turn % 2][some])
        self.row_of = {int(id): row for row, id in enumerate(present)}

    def churned(self, effort: int) -> Ints:
        """Answer all queries after `churn`, by the numbers of the rows."""
        ids = self.answers(effort)
        return np.array([[self.row_of[int(id)] for id in answer] for answer in ids])


class Hnswlib(Library):
    """hnswlib, M=16, ef_construction=200."""

    package = module = "hnswlib"

    def build(self, rows: Floats, metric: str) -> None:
        self.make(rows.shape[1], metric).init_index(len(rows), M=16, ef_construction=200)
        self.index.add_items(rows, num_threads=self.threads)

    def make(self, dim: int, metric: str) -> Any:
        """Make an empty index."""
        space = "l2" if metric == "euclidean" else "ip"
        self.index = self.library.Index(space=space, dim=dim)
        return self.index

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))

    def load(self, folder: Path, data: Data) -> None:
        self.make(data.load("queries").shape[1], data.metric).load_index(str(folder / "index"))

    def tune(self, effort: int, threads: int) -> None:
        self.index.set_ef(effort)
        self.index.set_num_threads(threads)

    def find(self, queries: Floats) -> Ints:
        labels: NDArray[np.uint64] = self.index.knn_query(queries, K)[0]
        return np.asarray(labels.view(np.int64))


class Faiss(Library):
    """FAISS's HNSW over float32 vectors, M=16, efConstruction=200."""

    package = "faiss-cpu"
    module = "faiss"
    selector: Any = None
    parameters: Any = None

    def build(self, rows: Floats, metric: str) -> None:
        names = {"euclidean": self.library.METRIC_L2}
        kind = names.get(metric, self.library.METRIC_INNER_PRODUCT)
        self.library.omp_set_num_threads(self.threads)
        self.index = self.library.IndexHNSWFlat(rows.shape[1], 16, kind)
        self.index.hnsw.efConstruction = 200
        self.index.add(rows)

    def save(self, folder: Path) -> None:
        self.library.write_index(self.index, str(folder / "index"))

    def load(self, folder: Path, data: Data) -> None:
        self.index = self.library.read_index(str(folder / "index"))

    def tune(self, effort: int, threads: int) -> None:
        self.library.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = effort
        if self.selector is not None:
            self.parameters = self.library.SearchParametersHNSW(efSearch=effort, sel=self.selector)

    def allow(self, mask: Bools | None) -> None:
        self.selector = self.parameters = None
        if mask is not None:
            self.selector = self.library.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

    def find(self, queries: Floats) -> Ints:
        ids: Ints = self.index.search(queries, K, params=self.parameters)[1]
        return ids


class Svs(Library):
    """SVS's Vamana over float32 vectors, degree 64, window 128."""

    package = "scalable-vs"
    module = "svs"

    def kind(self, metric: str) -> Any:
        """Return SVS's name of a metric."""
        kinds = self.library.DistanceType
        return kinds.L2 if metric == "euclidean" else kinds.MIP

    def build(self, rows: Floats, metric: str) -> None:
        alpha = 1.2 if metric == "euclidean" else 0.95
        parameters = self.library.VamanaBuildParameters(
            alpha=alpha, graph_max_degree=64, window_size=128
        )
        kind = self.kind(metric)
        self.index = self.library.Vamana.build(parameters, rows, kind, num_threads=self.threads)

    def save(self, folder: Path) -> None:
        self.index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def load(self, folder: Path, data: Data) -> None:
        vectors = str(folder / "data")
        self.index = self.library.Vamana(
            str(folder / "config"),
            self.library.GraphLoader(str(folder / "graph")),
            self.library.VectorDataLoader(vectors, self.library.DataType.float32),
            distance=self.kind(data.metric),
        )

    def tune(self, effort: int, threads: int) -> None:
        if self.index.num_threads != threads:
            self.index.num_threads = threads
        self.index.search_window_size = effort

    def find(self, queries: Floats) -> Ints:
        return np.asarray(self.index.search(queries, K)[0]).view(np.int64)


class Vsag(Library):
    """VSAG's hgraph over 8-bit codes, reordered by float32 vectors."""

    package = module = "pyvsag"
    effort = ""
    search_threads = 1

    def make(self, dim: int, metric: str) -> Any:
        """Make an empty index."""
        self.library.set_logger_off()
        graph = {
            "base_quantization_type": "sq8_uniform",
            "use_reorder": True,
            "precise_quantization_type": "fp32",
            "max_degree": 32,
            "ef_construction": 200,
            "build_thread_count": self.threads,
        }
        parameters = {
            "dtype": "float32",
            "metric_type": "l2" if metric == "euclidean" else "ip",
            "dim": dim,
            "index_param": graph,
        }
        self.index = self.library.Index("hgraph", json.dumps(parameters))
        return self.index

    def build(self, rows: Floats, metric: str) -> None:
        count, dim = rows.shape
        self.make(dim, metric).build(rows, np.arange(count), count, dim)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def load(self, folder: Path, data: Data) -> None:
        self.make(data.load("queries").shape[1], data.metric).load(str(folder / "index"))

    def tune(self, effort: int, threads: int) -> None:
        self.effort = json.dumps({"hgraph": {"ef_search": effort}})
        self.search_threads = threads

    def find(self, queries: Floats) -> Ints:
        """Ask one by one, the only way there is; a batch is shared by as many Python threads."""
        if self.search_threads > 1:
            shares = np.array_split(queries, self.search_threads)
            with ThreadPoolExecutor(self.search_threads) as pool:
                return np.concatenate(list(pool.map(self.ask, shares)))
        return self.ask(queries)

    def ask(self, queries: Floats) -> Ints:
        """Answer some queries in this thread."""
        ids = np.full((len(queries), K), -1, dtype=np.int64)
        for query, answer in zip(queries, ids, strict=True):
            found = self.index.knn_search(query, K, self.effort)[0]
            answer[: len(found)] = found
        return ids


class Usearch(Library):
    """USearch over float32 vectors, connectivity 16, expansion_add 200."""

    package = "usearch"
    module = "usearch.index"
    search_threads = 1

    def build(self, rows: Floats, metric: str) -> None:
        self.index = self.library.Index(
            ndim=rows.shape[1],
            metric="l2sq" if metric == "euclidean" else "ip",
            dtype="f32",
            connectivity=16,
            expansion_add=200,
        )
        self.index.add(np.arange(len(rows)), rows, threads=self.threads)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def load(self, folder: Path, data: Data) -> None:
        self.index = self.library.Index.restore(str(folder / "index"))

    def tune(self, effort: int, threads: int) -> None:
        self.index.expansion_search = effort
        self.search_threads = threads

    def find(self, queries: Floats) -> Ints:
        keys = self.index.search(queries, K, threads=self.search_threads).keys
        return np.asarray(keys).view(np.int64).reshape(-1, K)


class Truth(Library):
    """NumPy, which draws the data and knows the true answers."""

    module = "numpy"
    rows: Floats
    worst: Doubles
    metric = ""

    def prepare(self, data: Data) -> dict[str, float]:
        """Draw the data and find the true answers, unless that was done before."""
        if not (data.folder / "worst.npy").exists():
            data.folder.mkdir(parents=True, exist_ok=True)
            names = ("rows", "queries", "spare")
            for name, block in zip(names, data.make(), strict=True):
                np.save(data.folder / f"{name}.npy", block)
            self.open(data)
            np.save(data.folder / "worst.npy", self.nearest(np.arange(len(self.rows))))
        return {}

    def open(self, data: Data, queries: int = QUERIES) -> None:
        """Map the data and, where they are known, the true answers among all rows."""
        self.metric, self.rows = data.metric, data.load("rows")
        self.queries = np.array(data.load("queries")[:queries])
        if (data.folder / "worst.npy").exists():
            self.worst = np.array(data.load("worst")[:queries])

    def limit(self, rows: int) -> None:
        """Judge the answers to come against the first rows only."""
        self.worst = self.nearest(np.arange(rows))

    def restrict(self, kind: str, share: float) -> Bools:
        """Draw a mask that allows a share of the rows, and judge the answers to come by it.

        Random rows, or the nearest ones to a row drawn at random: one cluster, which is far away
        from most queries.
        """
        rng = np.random.default_rng(SEED)
        total = len(self.rows)
        count = max(K, round(share * total))
        if kind == "random":
            chosen = rng.permutation(total)[:count]
        else:
            centre = self.rows[rng.integers(total)]
            away = np.concatenate(
                [
                    ((self.rows[first : first + BLOCK_ROWS] - centre) ** 2).sum(axis=1)
                    for first in range(0, total, BLOCK_ROWS)
                ]
            )
            chosen = np.argpartition(away, count - 1)[:count]
        mask = np.zeros(total, dtype=np.bool_)
        mask[chosen] = True
        self.worst = self.nearest(np.flatnonzero(mask))
        return mask

    def recall(self, ids: Ints) -> float:
        """Return the share of answers as near as the K-th nearest row, each row counted once."""
        ids = np.sort(ids, axis=1)
        right = ids >= 0
        right[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        found = self.distances(np.maximum(ids, 0))
        worst = self.worst[:, None]
        return float(np.mean(right & (found <= worst + 1e-9 * np.abs(worst))))

    def distances(self, ids: Ints) -> Doubles:
        """Return float64 distances (squared, or the negative product) of each query to its rows."""
        result = np.empty(ids.shape)
        for first in range(0, len(ids), 100):
            some = slice(first, first + 100)
            rows = self.rows[ids[some]].astype(np.float64)
            queries = self.queries[some, None].astype(np.float64)
            if self.metric == "euclidean":
                result[some] = ((rows - queries) ** 2).sum(axis=-1)
            else:
                result[some] = -(rows * queries).sum(axis=-1)
        return result

    def nearest(self, allowed: Ints) -> Doubles:
        """Return the distance of the K-th nearest of some rows (ascending), for each query.

        Float32 products choose more rows than needed, float64 distances choose among them.
        """
        kept = min(4 * K, len(allowed))
        ids = np.empty((len(self.queries), 0), dtype=np.int64)
        scores = np.empty((len(self.queries), 0), dtype=np.float32)
        for first in range(0, len(allowed), BLOCK_ROWS):
            some = allowed[first : first + BLOCK_ROWS]
            block = self.rows[some]
            product = self.queries @ block.T
            if self.metric == "euclidean":
                product -= (block**2).sum(axis=1) / 2
            best = np.argpartition(product, -min(kept, len(some)), axis=1)[:, -kept:]
            ids = np.hstack((ids, some[best]))
            scores = np.hstack((scores, np.take_along_axis(product, best, axis=1)))
            best = np.argpartition(scores, -kept, axis=1)[:, -kept:]
            ids = np.take_along_axis(ids, best, axis=1)
            scores = np.take_along_axis(scores, best, axis=1)
        return np.partition(self.distances(ids), K - 1, axis=1)[:, K - 1]


LIBRARIES: dict[str, type[Library]] = {
    "omendb": Omendb,
    "hnswlib": Hnswlib,
    "FAISS": Faiss,
    "SVS": Svs,
    "VSAG": Vsag,
    "USearch": Usearch,
    "truth": Truth,
}
ALL_PEERS = ("hnswlib", "FAISS", "SVS", "VSAG", "USearch")
QUICK_PEERS = ALL_PEERS[:4]  # USearch is the slowest, so never the best peer
DATA = (
    Data("debian-packages", "cosine", ALL_PEERS, file=str(PACKAGES)),
    Data(
        "norms-200k",
        "inner_product",
        ALL_PEERS,
        rows=200_000,
        dim=768,
        clusters=500,
        plane=64,
        rank=24,
        noise=0.02,
        norms=3.0,
    ),
    Data(
        "clustered-1m",
        "euclidean",
        ALL_PEERS[:3],  # the builds of two more would take half an hour
        rows=MILLION,
        dim=128,
        clusters=5_000,  # with 1,000, hnswlib needs an ef of 20 for recall 0.95: too easy
        plane=24,
        rank=16,
        noise=0.03,
    ),
)


def start(name: str, threads: int = 1) -> Remote:
    """Start a library in its own process."""
    return Remote(name, LIBRARIES[name], threads)


def once(library: str, method: str, *arguments: object) -> Any:
    """Call one method in a fresh process, on one thread."""
    with start(library) as remote:
        return remote.call(method, *arguments)


class Curve:
    """Recall over effort, of one library; each effort is measured once."""

    def __init__(self, answers: Callable[[int], Ints], truth: Remote) -> None:
        self.answers, self.truth = answers, truth
        self.recalls: dict[int, float] = {}

    def at(self, effort: int) -> float:
        """Return the recall at an effort."""
        if effort not in self.recalls:
            self.recalls[effort] = self.truth.call("recall", self.answers(effort))
        return self.recalls[effort]

    def around(self, recall: float, limit: int = EFFORT_LIMIT) -> tuple[int, ...]:
        """Return the efforts on either side of a recall, a tenth apart.

        The lowest effort alone where it reaches the recall already, none where none does.
        """
        low, high = 0, K
        while self.at(high) < recall:
            if high == limit:
                return ()
            low, high = high, min(2 * high, limit)
        while low and high - low > max(1, low // 10):
            middle = (low + high) // 2
            if self.at(middle) < recall:
                low = middle
            else:
                high = middle
        return (low, high) if low else (high,)

    def rate(self, recall: float, efforts: Sequence[int], rates: dict[int, float]) -> float:
        """Read the rate at a recall between the rates at the efforts around it."""
        if len(efforts) == 1:
            return rates[efforts[0]]
        below, above = (self.at(effort) for effort in efforts)
        share = (recall - below) / (above - below)
        first, second = (math.log(rates[effort]) for effort in efforts)
        return math.exp((1 - share) * first + share * second)


@dataclass
class Report:
    """What was measured: the lines of the final table, and every figure."""

    peers: dict[str, str]
    omendb: bool
    threads: tuple[int, ...]
    built: dict[str, dict[str, float]] = field(default_factory=dict)  # by peer, of one data set
    table: list[Row] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)

    def note(self, part: str, data: Data, **figures: Any) -> None:
        """Keep figures."""
        self.raw.append({"part": part, "data": data.name, **figures})


def line(library: str, text: str) -> None:
    """Print a library's line."""
    print(f"  {library:8}  {text}", flush=True)


def build_text(built: dict[str, float], beside: float) -> str:
    """Return what a build took, and the index's bytes a row beside the vectors."""
    text = f"build {built['cpu_s']:8.1f} CPU s ({built['wall_s']:.1f} s by the clock)"
    text = f"{text}, {beside:5,.0f} bytes a row beside the vectors"
    if "memory" in built:
        text = f"{text}, memory {built['memory'] / 2**20:+,.0f} MiB"
    return text


def prepare(data: Data, report: Report) -> None:
    """Make, or find, the data and the peers' indexes; print the figures of the builds."""
    once("truth", "prepare", data)
    rows, dim = data.load("rows").shape
    print(f"\n{data.name}: {rows:,} x {dim}, {data.metric}, k = {K}")
    report.built = {}
    for peer in (peer for peer in data.peers if peer in report.peers):
        try:
            built = once(peer, "prepare", data)
        except RuntimeError as error:
            line(peer, f"is left out: {error}")
            continue
        beside = (built["file"] - 4 * rows * dim) / rows
        line(peer, build_text(built, beside))
        report.built[peer] = built
        report.note("build", data, library=peer, **built)


def measure_build(data: Data, report: Report) -> None:
    """Compare the builds on one thread, and the memory beside the vectors."""
    rows, dim = data.load("rows").shape
    with start("omendb") as remote:
        built = [remote.call("built", data) for _ in range(ROUNDS)]
    median = {key: statistics.median(one[key] for one in built) for key in built[0]}
    beside = built[-1]["nbytes"] / rows
    line("omendb", build_text(median, beside))
    report.note("build", data, library="omendb", builds=built)
    for peer, figures in report.built.items():
        goal: Goal = NO_GOAL
        if peer == "hnswlib":
            goal = BUILD_MILLION_GOAL if rows == MILLION else BUILD_GOAL
        seconds = tuple(figures["cpu_s"] / one["cpu_s"] for one in built)
        what = f"CPU seconds of build, {peer} / omendb, {data.name}"
        report.table.append(Row(what, seconds, *goal))
    if "hnswlib" in report.built:
        goal = BYTES_GOAL if dim == 384 else NO_GOAL
        what = f"bytes beside the vectors, omendb / hnswlib's total, {data.name}"
        share = built[-1]["nbytes"] / report.built["hnswlib"]["file"]
        report.table.append(Row(what, (share,), *goal, less=True))


def measure_search(data: Data, report: Report) -> None:
    """Compare the rates at equal recall."""
    names = [*report.built, *(["omendb"] if report.omendb else [])]
    efforts: dict[str, dict[float, tuple[int, ...]]] = {}
    curves: dict[str, Curve] = {}
    for threads in report.threads:
        with contextlib.ExitStack() as stack:
            remotes = {name: stack.enter_context(start(name, threads)) for name in names}
            for remote in remotes.values():
                remote.call("open", data)
            if not curves:
                truth = stack.enter_context(start("truth"))
                truth.call("open", data)
                for name, remote in remotes.items():
                    curves[name] = Curve(answers_of(remote), truth)
                    efforts[name] = {recall: curves[name].around(recall) for recall in RECALLS}
                    points = sorted(curves[name].recalls.items())
                    line(name, "recall " + ", ".join(f"{e}: {r:.4f}" for e, r in points))
                    report.note("recall", data, library=name, recalls=curves[name].recalls)
            for one_by_one in (True, False):
                compare_rates(data, report, threads, one_by_one, remotes, curves, efforts)


def answers_of(remote: Remote) -> Callable[[int], Ints]:
    """Return a library's answers by effort."""

    def answers(effort: int) -> Ints:
        ids: Ints = remote.call("answers", effort)
        return ids

    return answers


def compare_rates(
    data: Data,
    report: Report,
    threads: int,
    one_by_one: bool,
    remotes: dict[str, Remote],
    curves: dict[str, Curve],
    efforts: dict[str, dict[float, tuple[int, ...]]],
) -> None:
    """Let the libraries take turns at the efforts around the wanted recalls."""
    asked = {name: sorted(set(itertools.chain(*efforts[name].values()))) for name in remotes}
    turns = take_turns(remotes, asked, one_by_one)
    how = "one query at a time" if one_by_one else f"batch of {QUERIES:,}"
    where = f"{data.name}, {threads} thread{'s'[: threads - 1]}"
    print(f"\n{where}, {how}: queries/s at recall {' and '.join(f'{r:g}' for r in RECALLS)}")
    rates: dict[float, dict[str, list[float]]] = {recall: {} for recall in RECALLS}
    for name, curve in curves.items():
        texts = []
        for recall in RECALLS:
            around = efforts[name][recall]
            if around:
                read = [curve.rate(recall, around, turn) for turn in turns[name]]
                rates[recall][name] = read
                texts.append(f"{statistics.median(read):9,.0f} (effort {around[-1]})")
            else:
                texts.append(f"not reached with effort {EFFORT_LIMIT}")
        line(name, "  ".join(texts))
        report.note("search", data, where=where, how=how, library=name, rates=turns[name])
    for recall, by_name in rates.items():
        peers = {name: statistics.median(r) for name, r in by_name.items() if name != "omendb"}
        if not peers or not report.omendb:
            continue
        best = max(peers, key=lambda name: peers[name])
        what = f"omendb / {best} (best peer), {how}, recall {recall:g}, {where}"
        ours = by_name.get("omendb", [0.0] * ROUNDS)  # never reached is never faster
        report.table.append(
            Row(what, ratios(ours, by_name[best]), *SEARCH_GOALS[one_by_one, recall])
        )


def take_turns(
    remotes: dict[str, Remote], efforts: dict[str, list[int]], one_by_one: bool
) -> dict[str, list[dict[int, float]]]:
    """Return rates by library, turn and effort."""
    turns: dict[str, list[dict[int, float]]] = {name: [] for name in remotes}
    for _ in range(ROUNDS):
        for name, remote in remotes.items():
            time.sleep(0.05)  # until the threads of the last one have stopped spinning
            turns[name].append({e: remote.call("rate", e, one_by_one) for e in efforts[name]})
    return turns


def measure_threads(data: Data, report: Report) -> None:
    """Compare the clock of builds on two threads and on one."""
    with start("omendb", 1) as one, start("omendb", 2) as two:
        seconds = [[r.call("built", data)["wall_s"] for r in (one, two)] for _ in range(ROUNDS)]
    alone, together = zip(*seconds, strict=True)
    report.note("threads", data, one=alone, two=together)
    what = f"build with 2 threads / with 1, {data.name}"
    report.table.append(Row(what, ratios(alone, together), *THREADS_GOAL))


def measure_scale(data: Data, report: Report) -> None:
    """Compare the builds of all rows and of a tenth."""
    tenth = len(data.load("rows")) // 10
    with start("omendb") as remote:
        seconds = [
            [remote.call("built", data, rows)["cpu_s"] for rows in (tenth, None)]
            for _ in range(ROUNDS)
        ]
    small, large = zip(*seconds, strict=True)
    report.note("scale", data, small=small, large=large)
    what = f"build of {10 * tenth:,} rows / of {tenth:,}, CPU seconds, {data.name}"
    report.table.append(Row(what, ratios(large, small), *SCALE_GOAL, less=True))


def measure_add(data: Data, report: Report) -> None:
    """Compare additions to a large graph with those to a small one, and with hnswlib's."""
    rows = len(data.load("rows"))
    with start("omendb") as small, start("omendb") as large:
        small.call("open", data, QUERIES, SMALL_ROWS)
        large.call("open", data)
        rates: list[list[float]] = []
        for turn in range(ROUNDS):
            first = turn * ADD_BATCHES * ADD_ROWS
            rates.append([r.call("add", first, ADD_BATCHES) for r in (small, large)])
    few, many = zip(*rates, strict=True)
    print(f"\n{data.name}, add in batches of {ADD_ROWS:,}, rows per CPU second:")
    line("omendb", f"{statistics.median(few):,.0f} at {SMALL_ROWS:,} rows")
    line("omendb", f"{statistics.median(many):,.0f} at {rows:,} rows")
    report.note("add", data, small=few, large=many)
    what = f"add at {rows:,} rows / at {SMALL_ROWS:,}, {data.name}"
    report.table.append(Row(what, ratios(many, few), *ADD_GOAL))
    if "hnswlib" in report.built:
        average = rows / report.built["hnswlib"]["cpu_s"]
        line("hnswlib", f"{average:,.0f} on average over its build")
        what = f"add at {rows:,} rows / hnswlib's average insertion, {data.name}"
        report.table.append(Row(what, tuple(rate / average for rate in many), *ADD_PEER_GOAL))


def measure_churn(data: Data, report: Report) -> None:
    """Compare the recall after full turnovers with a fresh build's, at the same effort."""
    rows = min(SMALL_ROWS, len(data.load("rows")) // 2)
    with start("truth") as truth, start("omendb") as fresh, start("omendb") as old:
        truth.call("open", data)
        truth.call("limit", rows)
        fresh.call("open", data, QUERIES, rows)
        old.call("churn", data, rows)
        curve = Curve(answers_of(fresh), truth)
        for recall in RECALLS:
            efforts = curve.around(recall)
            if not efforts:
                line("omendb", f"recall {recall:g} is not reached by a fresh build")
                continue
            effort = efforts[-1]
            after = truth.call("recall", old.call("churned", effort))
            before = curve.at(effort)
            report.note("churn", data, effort=effort, fresh=before, churned=after)
            what = f"recall lost by {TURNOVERS} turnovers, fresh {before:.4f}, {data.name}"
            report.table.append(Row(what, (before - after,), *CHURN_GOAL, less=True, unit=""))


def measure_filter(data: Data, report: Report) -> None:
    """Compare the rates at recall 0.95 where only a share of the rows may answer."""
    if "FAISS" not in report.built:
        return
    names = ["FAISS", *(["omendb"] if report.omendb else [])]
    recall = RECALLS[0]
    how = f"filtered, 1 thread, batch of {FILTER_QUERIES}"
    print(f"\n{data.name}, {how}: queries/s at recall {recall:g}")
    with contextlib.ExitStack() as stack:
        truth = stack.enter_context(start("truth"))
        remotes = {name: stack.enter_context(start(name)) for name in names}
        for remote in (truth, *remotes.values()):
            remote.call("open", data, FILTER_QUERIES)
        for kind, share in itertools.product(("random", "correlated"), SHARES):
            mask = truth.call("restrict", kind, share)
            where = f"{100 * share:g} % of the rows, {kind}"
            curves, efforts = {}, {}
            for name, remote in remotes.items():
                remote.call("allow", mask)
                curves[name] = Curve(answers_of(remote), truth)
                efforts[name] = curves[name].around(recall, FILTER_LIMIT) or (FILTER_LIMIT,)
            asked = {name: list(efforts[name]) for name in names}
            turns = take_turns(remotes, asked, one_by_one=False)
            rates = {
                name: [curves[name].rate(recall, efforts[name], turn) for turn in turns[name]]
                for name in names
            }
            for name in names:
                effort = efforts[name][-1]
                reached = curves[name].at(effort)
                text = f"{where}: {statistics.median(rates[name]):9,.0f}"
                line(name, f"{text} (effort {effort}, recall {reached:.4f})")
                report.note("filter", data, where=where, library=name, rates=rates[name])
                if name == "omendb" and reached < recall:
                    rates[name] = [0.0] * ROUNDS  # never reached is never faster
            if report.omendb:
                what = f"omendb / FAISS, filter: {where}, {data.name}"
                ratio = ratios(rates["omendb"], rates["FAISS"])
                report.table.append(Row(what, ratio, *FILTER_GOAL))


def measure_file(data: Data, report: Report) -> None:
    """Time the first answer of a fresh process that has imported the library."""
    names = [*report.built, "omendb"]
    once("omendb", "keep", data)
    times = {name: [once(name, "first_answer", data) for _ in range(ROUNDS)] for name in names}
    once("omendb", "forget", data)
    print(f"\n{data.name}, from load to the first answer:")
    for name, values in times.items():
        line(name, f"{statistics.median(values):9,.1f} ms")
    report.note("file", data, milliseconds=times)
    what = f"omendb, load to first answer, {data.name}"
    report.table.append(Row(what, tuple(times["omendb"]), *FILE_GOAL, less=True, unit=" ms"))


PARTS: dict[str, Callable[[Data, Report], None]] = {
    "build": measure_build,
    "search": measure_search,
    "threads": measure_threads,
    "scale": measure_scale,
    "add": measure_add,
    "churn": measure_churn,
    "filter": measure_filter,
    "file": measure_file,
}
QUICK_PARTS = ("build", "search")
PEER_PARTS = ("search", "filter")  # the others are about omendb, or need its figures
MILLION_PARTS = ("scale", "add", "file")


def found_peers() -> dict[str, str]:
    """Return the installed peers and their packages; say which are missing."""
    found = {}
    for peer in ALL_PEERS:
        library = LIBRARIES[peer]
        if importlib.util.find_spec(library.module.partition(".")[0]) is None:
            print(f"{peer} is left out: {library.package} is not installed.")
        else:
            found[peer] = library.package
    return found


def main() -> int:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [data.name for data in DATA]
    parser.add_argument("--data", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument(
        "--quick", action="store_true", help="one thread, the small set, under two minutes"
    )
    parser.add_argument(
        "--without-omendb", action="store_true", help="the peers alone, to fill the cache"
    )
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    options = parser.parse_args()
    omendb = not options.without_omendb
    if omendb and importlib.util.find_spec("omendb") is None:
        parser.error("omendb is not installed; try make build")

    peers = found_peers()
    packages = [*peers.values(), *(["omendb"] if omendb else []), "numpy"]
    about = environment(packages)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    two = (1, 2) if (os.cpu_count() or 1) > 1 and not options.quick else (1,)
    report = Report(peers, omendb, two)
    for data in DATA:
        if data.name not in options.data or (options.quick and data is not DATA[0]):
            continue
        if options.quick:
            data = replace(data, peers=QUICK_PEERS)
        if data.file and not Path(data.file).exists():
            print(f"There is no {data.file}: {data.name} is left out.")
            continue
        prepare(data, report)
        for part, measure in PARTS.items():
            wanted = part in options.only and (part in QUICK_PARTS or not options.quick)
            fits = part not in MILLION_PARTS or data.rows == MILLION
            if wanted and fits and (omendb or part in PEER_PARTS):
                measure(data, report)
    if report.table:
        print_table(report.table)
    if options.json:
        rows = [asdict(row) for row in report.table]
        measured = {"environment": about, "table": rows, "measurements": report.raw}
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
