"""What omendb must answer, written a second time in NumPy, and data made to trip it.

The distance between two vectors is defined to the last bit (see `lane_sum` and
`distances`), so tests compare bits, not tolerances. The twin is deliberately plain: every
distance, a stable sort, and nothing clever in between.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]
Maker = Callable[[np.random.Generator, int, int], Array]

METRICS = ("euclidean", "sqeuclidean", "cosine", "inner_product", "manhattan", "chebyshev")
DTYPES = ("float32", "float64", "float16", "int8", "uint8") + (
    ("bfloat16",) if importlib.util.find_spec("ml_dtypes") else ()
)
DIMS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 384, 1000, 4096)

ROOT = Path(__file__).resolve().parents[1]


# The twin ---------------------------------------------------------------------------------


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name; bfloat16 skips the test where ml_dtypes is not installed."""
    bfloat16 = name == "bfloat16"
    dtype: np.dtype[Any] = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if bfloat16 else name)
    return dtype


def lane_sum(terms: Array) -> Array:
    """Sum float64 `terms` of shape (n, dim) over dim, in the one order that is defined.

    Lane j of 32 adds the elements j, j + 32, j + 64, … in turn, the tail padded with zeros; then
    the upper half of the lanes is added to the lower half until one is left. Every step is one
    rounded float64 addition.
    """
    n, dim = terms.shape
    blocks = -(-dim // 32)
    padded = np.zeros((blocks * 32, n))
    padded[:dim] = terms.T
    lanes = np.zeros((32, n))
    for block in range(blocks):
        lanes += padded[32 * block : 32 * block + 32]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    total: Array = lanes[0]
    return total


def _distances(metric: str, query: Array, rows: Array) -> Array:
    if metric in ("euclidean", "sqeuclidean"):
        difference = query - rows
        squared = lane_sum(difference * difference)
        return np.sqrt(squared) if metric == "euclidean" else squared
    if metric == "manhattan":
        return lane_sum(np.abs(query - rows))
    if metric == "chebyshev":
        return np.asarray(np.abs(query - rows).max(axis=1))
    dot = lane_sum(query * rows)
    if metric == "inner_product":
        return -dot + 0.0  # + 0.0 turns -0.0 into 0.0
    if metric != "cosine":
        raise AssertionError(f"the twin knows no metric {metric!r}")
    qq = lane_sum((query * query)[None, :])[0]
    xx = lane_sum(rows * rows)
    p = qq * xx
    plain = (p >= 1e-290) & (p <= 1e290)
    den = np.where(plain, np.sqrt(p), np.sqrt(qq) * np.sqrt(xx))
    away = np.minimum(np.maximum(1.0 - dot / den, 0.0), 2.0)
    return np.where(den == 0.0, 1.0, away)


def distances(metric: str, query: Array, rows: Array) -> Array:
    """The float64 distances of one query to every row, shape (n,)."""
    query = np.asarray(query).astype(np.float64)
    n, dim = rows.shape
    out = np.empty(n)
    step = max(1, 2**18 // max(dim, 1))  # a block of rows that stays in cache
    with np.errstate(all="ignore"):
        for start in range(0, n, step):
            block = np.asarray(rows[start : start + step]).astype(np.float64)
            out[start : start + step] = _distances(metric, query, block)
    return out


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Float64 distances as an index of `dtype` gives them: float64, or float32 once rounded."""
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float64 if dtype == np.float64 else np.float32)


def allowed_rows(ids: Array, chosen: Array | None) -> Array:
    """The rows that a mask or an array of ids lets answer, ascending."""
    if chosen is None:
        return np.arange(len(ids))
    if chosen.dtype == np.bool_:
        return np.flatnonzero(chosen)
    return np.flatnonzero(np.isin(ids, chosen))


def nearest(
    metric: str,
    queries: Array,
    rows: Array,
    k: int,
    ids: Array | None = None,
    chosen: Array | None = None,
) -> tuple[Array, Array]:
    """The ids and distances of the k nearest rows of each query, by (distance, row)."""
    ids = np.arange(len(rows)) if ids is None else ids
    allowed = allowed_rows(ids, chosen)
    k = min(k, len(allowed))
    found = np.empty((len(queries), k), np.int64)
    far = np.empty((len(queries), k))
    candidates = rows[allowed]
    for i, query in enumerate(queries):
        d = distances(metric, query, candidates)
        order = np.argsort(d, kind="stable")[:k]
        found[i], far[i] = ids[allowed[order]], d[order]
    return found, rounded(far, rows.dtype)


def within(
    metric: str,
    queries: Array,
    rows: Array,
    radius: float,
    ids: Array | None = None,
    chosen: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Offsets, ids and distances of all rows at most `radius` away, by (distance, row)."""
    ids = np.arange(len(rows)) if ids is None else ids
    allowed = allowed_rows(ids, chosen)
    candidates = rows[allowed]
    offsets, found, far = [0], [np.empty(0, np.int64)], [np.empty(0)]
    for query in queries:
        d = distances(metric, query, candidates)
        order = np.argsort(d, kind="stable")
        order = order[d[order] <= radius]
        offsets.append(offsets[-1] + len(order))
        found.append(ids[allowed[order]])
        far.append(d[order])
    distant = rounded(np.concatenate(far), rows.dtype)
    return np.array(offsets, np.int64), np.concatenate(found).astype(np.int64), distant


# Adversarial data -------------------------------------------------------------------------
# Each maker gives float64 values of shape (n, dim); `cast` brings them to a dtype.


MAKERS: dict[str, Maker] = {}


def maker(function: Maker) -> Maker:
    """Enter a maker under its own name."""
    MAKERS[function.__name__] = function
    return function


@maker
def gaussian(rng: np.random.Generator, n: int, dim: int) -> Array:
    return rng.standard_normal((n, dim))


@maker
def huge_offset(rng: np.random.Generator, n: int, dim: int) -> Array:
    # One float32 step is 8 here: at noise 30 many rows collapse, at float64 none do.
    return 1e8 + float(rng.choice([1e-3, 1.0, 30.0])) * rng.standard_normal((n, dim))


@maker
def column_offsets(rng: np.random.Generator, n: int, dim: int) -> Array:
    return 10.0 ** rng.uniform(-3, 8, dim) + rng.standard_normal((n, dim))


@maker
def tiny_norms(rng: np.random.Generator, n: int, dim: int) -> Array:
    return float(rng.choice([1e-30, 1e-18, 1e-6])) * rng.standard_normal((n, dim))


@maker
def underflowing_squares(rng: np.random.Generator, n: int, dim: int) -> Array:
    scale = 10.0 ** rng.uniform(-170, -120, (n, 1))
    return scale * rng.standard_normal((n, dim))


@maker
def denormals(rng: np.random.Generator, n: int, dim: int) -> Array:
    step = rng.choice([5e-324, 2.0**-149, 2.0**-24])  # of float64, float32, float16
    return np.asarray(step * rng.integers(-3, 4, (n, dim)))


@maker
def giant_coordinate(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = rng.standard_normal((n, dim))
    x[:, rng.integers(dim)] *= 1e12
    return x


@maker
def giant_row(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = rng.standard_normal((n, dim))
    if n:
        x[rng.integers(n)] *= 1e15
    return x


@maker
def largest_values(rng: np.random.Generator, n: int, dim: int) -> Array:
    return np.asarray(rng.choice([-1e150, 1e150, 1e149, 0.0], (n, dim)))


@maker
def heavy_tails(rng: np.random.Generator, n: int, dim: int) -> Array:
    return rng.standard_t(1.0, (n, dim))


@maker
def duplicates(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = rng.standard_normal((n, dim))
    again = rng.random(n) < 0.3
    x[again] = x[rng.integers(0, max(n, 1), again.sum())]
    return x


@maker
def thousand_identical(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = rng.standard_normal((n, dim))
    x[rng.permutation(n)[:1000]] = rng.standard_normal(dim)
    return x


@maker
def all_identical(rng: np.random.Generator, n: int, dim: int) -> Array:
    return np.tile(rng.standard_normal(dim), (n, 1))


@maker
def last_bit(rng: np.random.Generator, n: int, dim: int) -> Array:
    # One float32 base; one coordinate in four moves by one step of float32 or of float64.
    base = rng.standard_normal(dim).astype(np.float32).astype(np.float64)
    step = rng.choice([2.0**-23, 2.0**-52]) * np.abs(base)
    return np.asarray(base + step * rng.choice([0, 0, 0, 0, 0, 0, 1, -1], (n, dim)))


@maker
def shuffled_coordinates(rng: np.random.Generator, n: int, dim: int) -> Array:
    # Equal distances to any constant query in theory; in float64 they differ by the last bits.
    base = rng.standard_normal(dim)
    return rng.permuted(np.tile(base, (n, 1)), axis=1)


@maker
def small_integers(rng: np.random.Generator, n: int, dim: int) -> Array:
    return rng.integers(-3, 4, (n, dim)).astype(np.float64)


@maker
def extreme_integers(rng: np.random.Generator, n: int, dim: int) -> Array:
    return np.asarray(rng.choice([-128.0, 127.0, 255.0, 0.0], (n, dim), p=[0.4, 0.3, 0.25, 0.05]))


@maker
def half_zero(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = rng.standard_normal((n, dim))
    x[rng.random(n) < 0.5] = 0.0
    x[rng.random(n) < 0.1] *= -0.0
    return x


@maker
def one_hot(rng: np.random.Generator, n: int, dim: int) -> Array:
    x = np.zeros((n, dim))
    x[np.arange(n), rng.integers(0, dim, n)] = rng.choice([1.0, 2.0, -1.0], n)
    return x


@maker
def sorted_clusters(rng: np.random.Generator, n: int, dim: int) -> Array:
    centres = 10 * rng.standard_normal((9, dim))
    return centres[np.sort(rng.integers(0, 9, n))] + 1e-4 * rng.standard_normal((n, dim))


@maker
def low_rank(rng: np.random.Generator, n: int, dim: int) -> Array:
    rank = min(dim, 3)
    x = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, dim))
    return x + float(rng.choice([0.0, 1e-3])) * rng.standard_normal((n, dim))


@maker
def decaying_spectrum(rng: np.random.Generator, n: int, dim: int) -> Array:
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0] if dim <= 512 else np.eye(dim)
    return (rng.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -1.0) @ rotation


@maker
def shared_heads(rng: np.random.Generator, n: int, dim: int) -> Array:
    # Groups of rows agree in the few directions that carry the variance: the order inside a
    # group is decided by what a truncated code drops. One row in 300 lives in the tail alone.
    head = low_rank(rng, n // 40 + 1, dim)
    x = 20 * head[rng.integers(0, len(head), n)] + 1e-2 * rng.standard_normal((n, dim))
    alone = rng.random(n) < 1 / 300
    x[alone] = rng.standard_normal((int(alone.sum()), dim))
    return x


@maker
def unseen_tails(rng: np.random.Generator, n: int, dim: int) -> Array:
    # Evenly spaced samples see a falling spectrum; what they miss is a third all tail, and a
    # third copies of seen rows that differ from them in the tail alone.
    x = decaying_spectrum(rng, n, dim)
    if n >= 100_000:
        seen = np.zeros(n, np.bool_)
        seen[np.arange(4096) * n // 4096] = True
        for k in range(1, 8):  # whatever is left for queries moves the grid by a few rows
            seen[np.arange(4096) * (n - k) // 4096] = True
        kind = np.where(seen, 0, rng.integers(0, 3, n))
        x[kind == 2] = x[rng.choice(np.flatnonzero(seen), 50)][
            rng.integers(0, 50, (kind == 2).sum())
        ]
        x[kind > 0] *= (kind[kind > 0] - 1)[:, None]
        x[kind > 0] += 0.1 * rng.standard_normal((int((kind > 0).sum()), dim))
    return x


@maker
def mixed_scales(rng: np.random.Generator, n: int, dim: int) -> Array:
    return np.asarray(10.0 ** rng.uniform(-15, 15, (n, 1)) * rng.standard_normal((n, dim)))


@maker
def half_steps(rng: np.random.Generator, n: int, dim: int) -> Array:
    # Values in the middle between two 8-bit codes, all errors pointing the same way in a row.
    x = rng.integers(-126, 126, (n, dim)) + rng.choice([-0.499, 0.499, 0.5], (n, 1))
    x[:, 0] = 127.0
    return np.asarray(x)


def cast(values: Array, dtype: str) -> Array:
    """`values` in `dtype`, clipped to what omendb accepts (finite, at most 1e150)."""
    if dtype in ("int8", "uint8"):
        peak = np.abs(values).max(initial=0.0)
        # Small and fractional values are spread over the range, so that something is left.
        if peak > 0 and (peak > 255 or not np.array_equal(values, np.round(values))):
            values = values / peak * 127.0
        info = np.iinfo(dtype)
        return np.round(np.clip(values, info.min, info.max)).astype(dtype)
    limit = {"float64": 1e150, "float16": 65504.0, "float32": 3.4e38, "bfloat16": 3.3e38}[dtype]
    with np.errstate(all="ignore"):
        return np.clip(values, -limit, limit).astype(dtype_of(dtype))


def make(
    rng: np.random.Generator, name: str, n: int, dim: int, n_queries: int, dtype: str
) -> tuple[Array, Array]:
    """Rows of an adversarial kind, and queries that are near, on, beside and far from them."""
    together = cast(MAKERS[name](rng, n + n_queries, dim), dtype)
    rows = np.ascontiguousarray(together[:n])
    queries = together[n:].copy()
    for i in range(n_queries):
        kind = i % 6
        if kind == 1 and n:  # a row itself
            queries[i] = rows[rng.integers(n)]
        elif kind == 2:  # nothing at all
            queries[i] = 0
        elif kind == 3:  # one number everywhere
            queries[i] = cast(np.full(dim, rng.standard_normal()), dtype)
        elif kind == 4:  # from elsewhere
            queries[i] = cast(100.0 * rng.standard_normal(dim), dtype)
    return rows, queries


# Digests and other instruction sets -------------------------------------------------------


def digest(*arrays: Array) -> str:
    """A short hash of shapes, dtypes and bits."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.shape}{array.dtype}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


def battery_cases(seed: int) -> Iterator[tuple[str, str, Array, Array, int]]:
    """A compact set of (name, metric, rows, queries, k) that visits every kind of kernel."""
    rng = np.random.default_rng(seed)
    sizes = (1, 17, 100, 257, 1024, 1500)
    for i, name in enumerate(MAKERS):
        for j, dtype in enumerate(DTYPES):
            n, dim = sizes[(i + j) % len(sizes)], DIMS[(5 * i + 7 * j) % len(DIMS)]
            n = max(1, min(n, 400_000 // dim))
            rows, queries = make(rng, name, n, dim, (1, 6, 13)[(i + j) % 3], dtype)
            for metric in (METRICS[(i + j) % 6], METRICS[(i + j + 3) % 6]):
                yield f"{name} {dtype} {n}x{dim} {metric}", metric, rows, queries, 10
    for name, metric in (("decaying_spectrum", "euclidean"), ("shared_heads", "cosine")):
        rows, queries = make(rng, name, 9000, 64, 12, "float32")
        yield f"{name} 9000x64 {metric}", metric, rows, queries, 10
    rows, queries = make(rng, "unseen_tails", 101_000, 128, 6, "float32")  # enough for axes
    yield "unseen_tails 101000x128 euclidean", "euclidean", rows, queries, 10


def battery_of_the_twin(seed: int) -> dict[str, str]:
    """The digests that every instruction set must give."""
    return {
        name: digest(*nearest(metric, queries, rows, k))
        for name, metric, rows, queries, k in battery_cases(seed)
    }


def battery_of_the_engine(seed: int) -> dict[str, str]:
    """The digests that omendb gives, under the instruction set of this process."""
    import omendb

    found = {}
    for name, metric, rows, queries, k in battery_cases(seed):
        hits = omendb.Index(rows, metric=metric).search(queries, k)
        found[name] = digest(hits.ids, hits.distances)
    return found


def run_python(
    code: str, *arguments: object, isa: str | None = None, timeout: float = 120.0
) -> str:
    """Run `code` in a fresh interpreter, under another instruction set if named; its stdout.

    The code may import this module; the interpreter is killed after `timeout` seconds, and
    looks for omendb where it is installed (-P), not in the current directory.
    """
    environment = dict(os.environ)
    environment.pop("OMENDB_ISA", None)
    if isa is not None:
        environment["OMENDB_ISA"] = isa
    path = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def battery_under(isa: str, seed: int) -> dict[str, str]:
    """`battery_of_the_engine` in a process of its own with OMENDB_ISA set to `isa`."""
    code = (
        "import json, sys, reference, omendb._core\n"
        "print(json.dumps(reference.battery_of_the_engine(int(sys.argv[1]))))\n"
        "assert omendb._core.kernels()['isa'] == sys.argv[2], omendb._core.kernels()\n"
    )
    answer: dict[str, str] = json.loads(run_python(code, seed, isa, isa=isa))
    return answer


def run_for(seconds: float, *calls: Callable[[int], object]) -> None:
    """Make each call over and over, in a thread of its own, with the number of the turn.

    Whatever one of them raises fails the test.
    """
    errors: list[BaseException] = []
    stop = threading.Event()

    def work(call: Callable[[int], object]) -> None:
        try:
            for turn in itertools.count():
                if stop.is_set():
                    break
                call(turn)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
