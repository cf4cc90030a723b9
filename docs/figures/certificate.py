"""What 8-bit codes prove about the scores of rows: the bound of explanation/certificate.md."""

import matplotlib.pyplot as plt
import numpy as np

ROWS, DIM, SHOWN, K = 5_000, 64, 40, 10

rng = np.random.default_rng(3)
x = rng.standard_normal((ROWS, 10)) @ rng.standard_normal((10, DIM))
x += rng.standard_normal((ROWS, DIM))
x /= np.linalg.norm(x, axis=1, keepdims=True)
q = x[0] + 0.5 * rng.standard_normal(DIM) / DIM**0.5
q /= np.linalg.norm(q)


def code(rows):
    """Round rows to 255 steps of each row's own size."""
    step = np.abs(rows).max(axis=-1, keepdims=True) / 127
    return np.round(rows / step) * step


z = x - x.mean(axis=0)
z_hat, q_hat = code(z), code(q)
score, coded = z @ q, z_hat @ q_hat
margin = np.linalg.norm(q) * np.linalg.norm(z - z_hat, axis=1)
margin += np.linalg.norm(q - q_hat) * np.linalg.norm(z_hat, axis=1)
lower, upper = coded - margin, coded + margin
cut = np.sort(lower)[-K]

near = np.argsort(-score)[:SHOWN]
survives = upper[near] >= cut
assert (upper >= score).all()
assert (lower <= score).all()
_, ax = plt.subplots(figsize=(7, 3.4))
rank = np.arange(1, SHOWN + 1)
for part, color, label in ((survives, "C1", "judged in float64"), (~survives, "C0", "ruled out")):
    rows = near[part]
    ax.vlines(rank[part], lower[rows], upper[rows], color=color, linewidth=2.5, alpha=0.7)
    ax.plot(rank[part], score[rows], ".", color=color, markersize=6, label=f"{label}: {part.sum()}")
ax.axhline(cut, color="C8", linestyle="--", linewidth=1)
ax.annotate(f"cut: lower end number {K}", (SHOWN, cut), va="bottom", ha="right", color="C8")
ax.set(xlabel="rank of the row", ylabel="score (larger is closer)")
ax.legend()
