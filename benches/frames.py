"""Frames: what conditions, answers as frames and the import cost.

    python benches/frames.py VECTORS.npy TABLE.parquet [--rounds 21]

Row i of the table describes vector i, and has texts `name`, `section` and `summary` and a number
`installed_size_kib`, as those of Debian's packages. Medians of the rounds: what a search with a
condition takes beyond one with the mask of the same rows; the conversion alone; and processes that
import, in turns.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import omendb

CONDITIONS = [
    "section == 'games' and installed_size_kib < 500",
    "section in ('games', 'libs')",
    "installed_size_kib between 100 and 500",
    "name.str.startswith('lib')",
    "summary like '%game%'",
    "summary ilike '%GAME%'",
    "summary ilike '%GAME%engine%'",
    *(
        "name in (" + ", ".join(f"'lib{i}'" for i in range(texts)) + ")"
        for texts in (10, 1_000, 10_000)
    ),
]


def median(rounds: int, call: Callable[[], float]) -> float:
    return statistics.median(call() for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("vectors")
    parser.add_argument("table")
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    X = np.load(options.vectors)
    table = pq.read_table(options.table)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    table = table.append_column("vector", lists)

    start = time.perf_counter()
    index = omendb.Index.from_frame(table, vector="vector", metric="cosine")
    print(f"from_frame of {table.num_rows} rows: {time.perf_counter() - start:.3f} s")

    query = X[0]
    for condition in CONDITIONS:
        mask = np.isin(index.ids, index.search(query, len(index), where=condition).ids)

        def milliseconds(condition: str = condition, mask: NDArray[np.bool_] = mask) -> float:
            start = time.perf_counter()
            index.search(query, 10, where=condition)
            middle = time.perf_counter()
            index.search(query, 10, filter=mask)
            return (2 * middle - start - time.perf_counter()) * 1e3

        spent = median(options.rounds, milliseconds)
        print(f"where {condition[:50]:50} ({len(condition):7,} characters) {spent:8.3f} ms")

    hits = index.search(X[:2000], 10)

    def conversion() -> float:
        start = time.perf_counter()
        hits.to_pandas()
        return (time.perf_counter() - start) * 1e3

    spent = median(options.rounds, conversion)
    print(f"to_pandas of {len(hits)} x 10 answers with metadata: {spent:.2f} ms")

    def beyond_numpy() -> float:
        times = []
        for module in ("numpy", "numpy, omendb"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - start)
        return (times[1] - times[0]) * 1e3

    print(f"import beyond NumPy {median(options.rounds, beyond_numpy):.1f} ms")


if __name__ == "__main__":
    main()
