"""Recall over effort, measured with omendb: the curves of explanation/graph.md."""

import matplotlib.pyplot as plt
import numpy as np

import omendb

DIM, K = 96, 10
EFFORTS = (15, 20, 28, 40, 56, 80, 112, 160, 224, 320)

_, ax = plt.subplots(figsize=(7, 3.6))
for inner in (4, 16, 64):
    rng = np.random.default_rng(inner)
    x = rng.standard_normal((20_500, inner)) @ rng.standard_normal((inner, DIM)) / inner**0.5
    x = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    queries, rows = x[:500], x[500:]
    index = omendb.Index(rows, method="graph")
    worst = index.search(queries, K, method="exact").distances[:, -1:]
    recall = [
        np.mean(index.search(queries, K, method="graph", effort=effort).distances <= worst)
        for effort in EFFORTS
    ]
    ax.plot(EFFORTS, recall, marker=".", label=f"{inner} dimensions")
ax.set(xscale="log", xlabel="effort (width of the beam)", ylabel=f"recall@{K}", ylim=(None, 1.005))
ax.set_xticks(EFFORTS[::2], EFFORTS[::2])
ax.minorticks_off()
ax.legend(loc="lower right")
