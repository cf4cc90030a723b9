"""The graph of all rows' neighbours: omendb beside scikit-learn and pynndescent, in turns.

    python benches/knn_graph.py VECTORS.npy [--rows N] [--k 15] [--rounds 3] [--descent 30]

Everything runs in one process, one library after another in each round, so that whatever else the
machine does slows all of them; the ratio of the medians is reported, of wall time and of processor
time. scikit-learn gets float32, which it needs; its compilation warms pynndescent up first. Recall
is that against the exact graph, equally far rows counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import omendb

Array = NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("vectors")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--k", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--descent", type=int, default=30, help="pynndescent's n_neighbors")
    options = parser.parse_args()
    k = options.k
    X = np.load(options.vectors)[: options.rows]
    floats = X.astype(np.float32)

    from pynndescent import NNDescent
    from sklearn.neighbors import kneighbors_graph

    def descent(rows: Array) -> Array:
        index = NNDescent(rows, metric="cosine", n_neighbors=options.descent + 1, random_state=0)
        found: Array = index.neighbor_graph[1][:, 1 : k + 1]
        return found

    descent(floats[:3000])  # compiles
    calls: dict[str, Callable[[], Array]] = {
        "omendb exact": lambda: omendb.knn_graph(X, k, "cosine", method="exact").distances,
        "omendb approximate": lambda: (
            omendb.knn_graph(X, k, "cosine", method="approximate").distances
        ),
        "pynndescent": lambda: descent(floats),
        "scikit-learn": lambda: kneighbors_graph(
            floats, k, metric="cosine", mode="distance", n_jobs=-1
        ).data.reshape(len(X), k),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    last = np.zeros((0, 1))
    for _ in range(options.rounds):
        for name, call in calls.items():
            start, processor = time.perf_counter(), time.process_time()
            distances = call()
            spent = time.perf_counter() - start, time.process_time() - processor
            times[name].append(spent)
            if name == "omendb exact":
                last = distances[:, -1:] + 1e-6  # float32 of different libraries
            recall = (distances <= last).mean()
            print(
                f"{name:18} {spent[0]:8.2f} s {spent[1]:8.2f} CPU s  recall {recall:.4f}",
                flush=True,
            )
    print(f"\n{len(X)} x {X.shape[1]} {X.dtype}, k = {k}: medians, and ratios to omendb exact")
    medians = {
        name: [statistics.median(column) for column in zip(*spent, strict=True)]
        for name, spent in times.items()
    }
    for name, (wall, processor) in medians.items():
        base = medians["omendb exact"]
        print(
            f"{name:18} {wall:8.2f} s {processor:8.2f} CPU s   "
            f"{wall / base[0]:6.1f} x {processor / base[1]:6.1f} x"
        )


if __name__ == "__main__":
    main()
