"""A walk through a small graph of points in the plane: the picture of explanation/graph.md."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection

ROWS, DEGREE, ALPHA, BEAM, HEADS = 400, 6, 1.2, 8, 4

rng = np.random.default_rng(4)
x = rng.uniform(0, 1, (ROWS, 2)) * (1.9, 1)
query = np.array([1.62, 0.72])
squared = ((x[:, None] - x[None]) ** 2).sum(-1)


def prune(row, candidates):
    """Keep candidates, the nearest first, that no kept link leads towards."""
    kept = []
    for c in sorted(set(candidates) - {row}, key=lambda c: squared[row, c]):
        if len(kept) < DEGREE and all(ALPHA * squared[k, c] > squared[row, c] for k in kept):
            kept.append(c)
    return kept


links = [prune(row, np.argsort(squared[row])[:60]) for row in range(ROWS)]
back = [[other for other in range(ROWS) if row in links[other]] for row in range(ROWS)]
links = [prune(row, links[row] + back[row]) for row in range(ROWS)]

far = ((x - query) ** 2).sum(1)
places = ((0.2, 0.2), (0.5, 0.8), (0.8, 0.3), (0.25, 0.6))
heads = [int(((x - place) ** 2).sum(1).argmin()) for place in places]
parent = dict.fromkeys(heads)
beam, expanded = sorted(heads, key=far.__getitem__), set()
while waiting := [row for row in beam if row not in expanded]:
    row = waiting[0]
    expanded.add(row)
    for link in links[row]:
        if link not in parent:
            parent[link] = row
            beam.append(link)
    beam = sorted(beam, key=far.__getitem__)[:BEAM]
path = [beam[0]]
while parent[path[-1]] is not None:
    path.append(parent[path[-1]])
assert beam[0] == far.argmin()

_, ax = plt.subplots(figsize=(7, 3.8))
lines = [(x[row], x[other]) for row in range(ROWS) for other in links[row]]
ax.add_collection(LineCollection(lines, colors="C8", linewidths=0.5, alpha=0.45))
scored = np.array(list(parent))
ax.plot(*x.T, ".", color="C8", markersize=4)
ax.plot(*x[scored].T, "o", color="C1", markersize=4.5)
ax.plot(*x[path].T, color="C0", linewidth=3)
ax.plot(*x[heads].T, "s", color="C0", markersize=8)
ax.plot(*query, "*", color="C5", markersize=15)
ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-0.02, 1.92), ylim=(-0.02, 1.02))
title = f"{len(scored)} of {ROWS} rows scored, {len(expanded)} expanded, beam of {BEAM}"
ax.set_title(title, fontsize=10)
ax.spines[:].set_visible(False)
