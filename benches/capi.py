"""The C interface beside the Python one: the same batch search, in turns, one thread.

    python benches/capi.py

`omen_search` is called through ctypes on the same arrays. The medians of the ratios should be 1
within 3 in 100.
"""

import ctypes
import statistics
import time

import numpy as np

import omendb

ROUNDS = 15
K = 10


def main() -> None:
    rng = np.random.default_rng(0)
    library = ctypes.CDLL(omendb.get_library())
    size = ctypes.c_uint64
    for rows, dim, count in [(50_000, 128, 2_000), (20_000, 768, 500)]:
        vectors = rng.standard_normal((rows, dim), dtype=np.float32)
        queries = rng.standard_normal((count, dim), dtype=np.float32)
        ids = np.empty((count, K), np.int64)
        distances = np.empty((count, K), np.float64)
        counts = np.empty(count, np.uint64)
        index = omendb.Index(vectors)
        handle = ctypes.c_void_p()
        status = library.omen_create(size(dim), None, ctypes.byref(handle))
        status |= library.omen_borrow(
            handle, ctypes.c_void_p(vectors.ctypes.data), size(rows), None
        )
        status |= library.omen_set_threads(handle, size(1))
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (ids, distances, counts)]
        ratios = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            hits = index.search(queries, k=K, threads=1)
            python = time.perf_counter() - start
            start = time.perf_counter()
            status |= library.omen_search(
                handle, ctypes.c_void_p(queries.ctypes.data), size(count), size(K), None, *arrays
            )
            ratios.append(python / (time.perf_counter() - start))
        if status or not (ids == hits.ids).all():
            raise RuntimeError("the C interface failed or answered something else")
        library.omen_free(handle)
        ratio = statistics.median(ratios)
        print(f"{rows} x {dim}, {count} queries: the C interface at {ratio:.3f} of Python's rate")


if __name__ == "__main__":
    main()
