"""omendb beside FAISS and scikit-learn: exact search, one run, everything in turn.

    python benches/exact.py [--quick] [--data DIR] [--json FILE]

Each library lives in a process of its own, whose thread pools are sized before it is imported.
The processes are asked in turn (A B C A B C ...), so that whatever else the machine does slows all
of them, and a ratio is taken within each turn; its median over the turns is reported with the
smallest and the largest. Rates are queries per second of calls that hold a whole batch; small
batches are repeated for at least a fifth of a second. Recall compares with a float64 search.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ROOT = Path(__file__).resolve().parents[1]
K = 10
QUERIES = 2_000
BATCHES = (QUERIES, 128, 32, 8, 1)
SEED = 0
ROUNDS = 5
MIN_SECONDS = 0.2  # of one measurement
RECALL_QUERIES = 100
AVX2 = "omendb avx2"

# Ratios of rates against an opponent, by batch: (required, aim).
GOALS = {
    ("omendb", "FAISS", QUERIES): (5.0, 8.0),
    ("omendb", "scikit-learn", QUERIES): (12.0, 20.0),
    ("omendb", "FAISS", 128): (20.0, 40.0),
    ("omendb", "FAISS", 32): (15.0, 30.0),
    ("omendb", "FAISS", 8): (6.0, 12.0),
    ("omendb", "FAISS", 1): (3.5, 5.0),
    (AVX2, "FAISS", QUERIES): (1.5, 2.5),
}
UNPRUNABLE_GOAL = (0.9, 1.3)
# No goal needs more, and scikit-learn is slow.
LIMITED = {AVX2: (QUERIES,), "scikit-learn": (QUERIES, 1)}


@dataclass(frozen=True)
class Data:
    """Rows and queries that every process makes for itself, from a file or from the seed."""

    name: str
    metric: str
    rows: int = 0
    dim: int = 0
    file: str = ""
    batches: tuple[int, ...] = BATCHES
    left_out: tuple[str, ...] = ()

    def make(self) -> tuple[Floats, Floats]:
        """Return rows and queries, float32, C-contiguous; unit length for cosine."""
        rng = np.random.default_rng(SEED)
        if self.file:
            vectors = np.load(self.file)
            held, kept = np.split(rng.permutation(len(vectors)), [QUERIES])
            rows, queries = vectors[kept].astype(np.float32), vectors[held].astype(np.float32)
        elif self.name == "unprunable":
            rows, queries = unprunable(rng, self.rows, self.dim)
        else:
            rows = rng.standard_normal((self.rows, self.dim), dtype=np.float32)
            queries = rng.standard_normal((QUERIES, self.dim), dtype=np.float32)
        if self.metric == "cosine":
            for block in (rows, queries):
                block /= np.linalg.norm(block, axis=1, keepdims=True)
        return rows, queries


def unprunable(rng: np.random.Generator, rows: int, dim: int) -> tuple[Floats, Floats]:
    """Return data whose 8-bit codes say nothing: what decides an answer is lost in rounding.

    One of the first 8 coordinates of each row is +1000 or -1000, so one step of its codes is 8,
    and the other coordinates, drawn from N(0, 1), round to 0. The queries are 0 where the rows
    are large, so the large coordinates do not tell rows apart either. (Student's t with 1 degree
    of freedom is no such set: there the largest coordinates decide, and codes keep those.)
    """
    block = rng.standard_normal((rows, dim), dtype=np.float32)
    block[np.arange(rows), rng.integers(0, 8, rows)] = rng.choice([-1000, 1000], rows)
    queries = rng.standard_normal((QUERIES, dim), dtype=np.float32)
    queries[:, :8] = 0
    return block, queries


class Library:
    """One library inside its worker process; the subclasses import it."""

    index: Any = None
    queries: Floats

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def build(self, rows: Floats, metric: str) -> None:
        """Index the rows."""
        raise NotImplementedError

    def find(self, queries: Floats) -> Ints:
        """Return the ids of the K nearest rows of each query."""
        raise NotImplementedError

    def load(self, data: Data) -> tuple[int, int]:
        """Make the data, index it, and return its shape."""
        self.index = None
        rows, self.queries = data.make()
        self.build(rows, data.metric)
        return rows.shape[0], rows.shape[1]

    def sample(self) -> Ints:
        """Answer the queries whose recall is checked."""
        return self.find(self.queries[:RECALL_QUERIES])

    def rate(self, batch: int) -> float:
        """Return queries per second in calls of one batch each."""
        blocks = [self.queries[i : i + batch] for i in range(0, QUERIES - batch + 1, batch)]
        self.find(blocks[0][:32])  # wakes threads and caches
        start = time.perf_counter()
        for calls, block in enumerate(itertools.cycle(blocks), start=1):
            self.find(block)
            elapsed = time.perf_counter() - start
            if elapsed >= MIN_SECONDS:
                return calls * batch / elapsed
        raise AssertionError("cycle() ended")

    def overhead(self) -> float:
        """Return the seconds of one bare call: 1 row, 8 dimensions, 1 query, k = 1."""
        query = np.ones((1, 8), dtype=np.float32)
        self.build(query.copy(), "euclidean")
        timer = timeit.Timer(
            "search(query, 1)", globals={"search": self.index.search, "query": query}
        )
        calls = 20_000
        return statistics.median(timer.repeat(5, calls)) / calls


class Omendb(Library):
    """The library under test."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import omendb

        self.omendb = omendb

    def build(self, rows: Floats, metric: str) -> None:
        self.index = self.omendb.Index(rows, metric=metric, threads=self.threads)

    def find(self, queries: Floats) -> Ints:
        ids: Ints = self.index.search(queries, K, threads=self.threads).ids
        return ids

    def kernels(self) -> dict[str, Any]:
        """Return the instruction set in use and those that the machine has."""
        from omendb import _core

        return _core.kernels()

    def cost(self, data: Data) -> tuple[list[float], float | None, float | None]:
        """Return the seconds of five builds; memory's growth and its peak over the rows' bytes."""
        rows, _ = data.make()
        before = memory(reset_peak=True)
        self.build(rows, data.metric)
        after = memory()
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            self.omendb.Index(rows, metric=data.metric, threads=self.threads)
            seconds.append(time.perf_counter() - start)
        if before is None or after is None:
            return seconds, None, None
        grown, peak = ((now - before[0]) / rows.nbytes for now in after)
        return seconds, grown, peak


class OmendbAvx2(Omendb):
    """The same without AVX-512."""

    def __init__(self, threads: int) -> None:
        os.environ["OMENDB_ISA"] = "avx2"  # of this process alone; read when omendb is first used
        super().__init__(threads)


class Faiss(Library):
    """FAISS's flat indexes; cosine is the inner product of unit vectors."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        # Its wheel's OpenBLAS, of 2021, takes Intel's processors of today for ones of 2004.
        cpu = processor()
        if "GenuineIntel" in cpu and "avx512bw" in cpu:
            os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
        import faiss

        faiss.omp_set_num_threads(threads)
        self.faiss = faiss

    def build(self, rows: Floats, metric: str) -> None:
        flat = self.faiss.IndexFlatL2 if metric == "euclidean" else self.faiss.IndexFlatIP
        self.index = flat(rows.shape[1])
        self.index.add(rows)

    def find(self, queries: Floats) -> Ints:
        ids: Ints = self.index.search(queries, K)[1]
        return ids


class ScikitLearn(Library):
    """scikit-learn's brute force, whose threads are those of OpenMP and BLAS."""

    def build(self, rows: Floats, metric: str) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.index = NearestNeighbors(n_neighbors=K, algorithm="brute", metric=metric).fit(rows)

    def find(self, queries: Floats) -> Ints:
        ids: Ints = self.index.kneighbors(queries, return_distance=False)
        return ids


LIBRARIES: dict[str, type[Library]] = {
    "omendb": Omendb,
    AVX2: OmendbAvx2,
    "FAISS": Faiss,
    "scikit-learn": ScikitLearn,
}


def memory(*, reset_peak: bool = False) -> tuple[int, int] | None:
    """Return this process's resident bytes and their peak, where Linux tells them."""
    try:
        if reset_peak:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines())
    now, peak = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def serve(connection: Connection, name: str, make: Callable[[int], Any], threads: int) -> None:
    """Answer calls until None comes: the life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    worker: Any = None
    with contextlib.suppress(EOFError):  # the parent is gone
        while (message := connection.recv()) is not None:
            method, *arguments = message
            try:
                worker = worker or make(threads)
                connection.send((getattr(worker, method)(*arguments), None))
            except Exception as error:
                connection.send((None, f"{name}.{method}: {type(error).__name__}: {error}"))


class Remote:
    """A library in its own process: `make(threads)` gives the object that answers calls."""

    def __init__(self, name: str, make: Callable[[int], Any], threads: int = 1) -> None:
        self.name = name
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ |= dict.fromkeys(names, str(threads))  # the child inherits them
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, name, make, threads), daemon=True, name=name
        )
        self.process.start()
        theirs.close()  # so that the death of the child ends the wait for it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.process.terminate()
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join()

    def call(self, method: str, *arguments: object) -> Any:
        """Run a method of the library and wait for what it returns."""
        try:
            self.connection.send((method, *arguments))
            answer, error = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            error = f"{self.name}.{method}: the process ended with exit code {code}"
        if error is not None:
            raise RuntimeError(error)
        return answer


def exact_distances(data: Data) -> NDArray[np.float64]:
    """Return float64 distances of the checked queries to all rows, up to a constant per query."""
    rows, queries = data.make()
    asked = queries[:RECALL_QUERIES].astype(np.float64)
    distances = np.empty((len(asked), len(rows)))
    for first in range(0, len(rows), 10_000):
        block = rows[first : first + 10_000].astype(np.float64)
        product = asked @ block.T
        if data.metric == "euclidean":
            product = 2 * product - (block**2).sum(axis=1)
        elif data.metric == "cosine":
            product /= np.linalg.norm(block, axis=1)
        distances[:, first : first + len(block)] = -product
    return distances


def recall(distances: NDArray[np.float64], ids: Ints) -> float:
    """Return the share of answers that are as near as the K-th nearest row, ties included."""
    found = np.take_along_axis(distances, ids, axis=1)
    last = np.partition(distances, K - 1, axis=1)[:, K - 1 : K]
    return float(np.mean(found <= last + 1e-12 * np.abs(last)))


@dataclass(frozen=True)
class Row:
    """A line of the final table; a goal is a floor, or a ceiling where ``less`` is true."""

    what: str
    ratios: tuple[float, ...]
    required: float | None = None
    aim: float | None = None
    less: bool = False
    unit: str = "x"

    def reaches(self, goal: float | None) -> bool:
        """Whether the median reaches a goal."""
        median = statistics.median(self.ratios)
        return goal is not None and (median <= goal if self.less else median >= goal)

    def cells(self) -> list[str]:
        """Return the line's texts."""
        digits = 3 if self.less else 2
        values = (statistics.median(self.ratios), min(self.ratios), max(self.ratios))
        median, low, high = (f"{value:.{digits}f}" for value in values)
        spread = f" ({low}-{high})" if len(self.ratios) > 1 else ""
        sign = "<" if self.less else ""
        goals = [
            "-" if goal is None else f"{sign}{goal:g}{self.unit}"
            for goal in (self.required, self.aim)
        ]
        if self.required is None:
            met = "-"
        elif self.reaches(self.aim):
            met = "yes, the aim too"
        else:
            met = "yes" if self.reaches(self.required) else "NO"
        return [self.what, f"{median}{self.unit}{spread}", *goals, met]


def in_turn(remotes: dict[str, Remote], method: str, *arguments: object) -> dict[str, list[float]]:
    """Ask every library in turn, ``ROUNDS`` times."""
    results: dict[str, list[float]] = {library: [] for library in remotes}
    for _ in range(ROUNDS):
        for library, remote in remotes.items():
            time.sleep(0.05)  # until the threads of the last one have stopped spinning
            results[library].append(remote.call(method, *arguments))
    return results


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, ...]:
    """Divide turn by turn."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def measure_data(
    data: Data, libraries: dict[str, Remote], threads: int
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measure all libraries on one data set, print rates and recall, return them and ratios."""
    remotes = {n: r for n, r in libraries.items() if n not in data.left_out}
    shapes = [remote.call("load", data) for remote in remotes.values()]
    rows, dim = shapes[0]
    exact = exact_distances(data)
    recalls = {name: recall(exact, remote.call("sample")) for name, remote in remotes.items()}
    del exact
    where = f"{data.name}, {data.metric}, {threads} thread{'s'[: threads - 1]}"
    print(f"\n{where}: {rows:,} x {dim}, k = {K}")
    table, raw = [], []
    for batch in data.batches:
        asked = {n: r for n, r in remotes.items() if batch in LIMITED.get(n, BATCHES)}
        rates = in_turn(asked, "rate", batch)
        for library, values in rates.items():
            rate = statistics.median(values)
            print(
                f"  batch {batch:5,}  {library:12} {rate:10,.0f} queries/s"
                f"  {2e-9 * rows * dim * rate:7,.0f} Gop/s  recall {recalls[library]:.4f}",
                flush=True,
            )
            measured = {"queries_per_second": values, "recall": recalls[library]}
            raw.append({"where": where, "batch": batch, "library": library, **measured})
        size = "one query at a time" if batch == 1 else f"batch of {batch:,}"
        for ours, theirs in itertools.product(("omendb", AVX2), ("FAISS", "scikit-learn")):
            goal = GOALS.get((ours, theirs, batch), (None, None))
            if data.name == "unprunable":
                goal = UNPRUNABLE_GOAL
            if ours in rates and theirs in rates and (ours == "omendb" or theirs == "FAISS"):
                what = f"{ours} / {theirs}, {size}, {where}"
                table.append(Row(what, ratios(rates[ours], rates[theirs]), *goal))
    return table, raw


def measure_overhead(remotes: dict[str, Remote]) -> Row:
    """Compare what one call costs when there is nothing to search."""
    times = in_turn({name: remotes[name] for name in ("omendb", "FAISS")}, "overhead")
    print("\nOne call on 1 row of 8 dimensions, k = 1:")
    for library, values in times.items():
        print(f"  {library:12} {1e6 * statistics.median(values):6.2f} microseconds")
    what = "omendb / FAISS, overhead of one call"
    return Row(what, ratios(times["omendb"], times["FAISS"]), 0.25, 0.12, less=True)


def measure_index(data: Data) -> list[Row]:
    """Time Index(X) and weigh what it adds to X, in a process that has no freed memory to reuse."""
    with Remote("omendb", Omendb) as omendb:
        seconds, grown, peak = omendb.call("cost", data)
    what = f"Index(X), {data.name}, 1 thread"
    table = [Row(what, tuple(seconds), 0.15, 0.05, less=True, unit=" s")]
    for kind, share, goal in (("memory", grown, 0.30), ("peak memory", peak, None)):
        if share is not None:
            what = f"{kind} added by Index(X) / bytes of X, {data.name}"
            table.append(Row(what, (share,), goal, less=True))
    return table


def measure_sweep(timeout_s: float) -> list[Row]:
    """Run the Rust benchmark of the sweep beside a bare loop of its instruction."""
    command = ["cargo", "bench", "--quiet", "--bench", "sweep", "--", "--json"]
    if shutil.which("cargo") is None:
        print("\nThe sweep's share of the peak was not measured: there is no cargo.")
        return []
    try:
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        sweep = json.loads(run.stdout.splitlines()[-1])
        print(
            f"\nSweep ({sweep['isa']}, one core): {sweep['sweep_gops']:,.0f} Gop/s of the"
            f" {sweep['peak_gops']:,.0f} that a bare loop of its instruction reaches."
        )
        what = "sweep / bare loop of its instruction, one core"
        return [Row(what, (float(sweep["share"]),), 0.80, 0.92)]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        print(f"\nThe sweep's share of the peak was not measured: {error}")
        return []


def processor() -> str:
    """Return what Linux tells of the processor; nothing elsewhere."""
    return Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""


def environment(packages: Sequence[str]) -> dict[str, str]:
    """Return what the numbers depend on."""
    lines = processor().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(models, platform.processor())
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "seed": str(SEED),
        **versions,
    }


def print_table(table: Sequence[Row]) -> None:
    """Print the final table as Markdown."""
    cells = [["what", "ratio (min-max)", "required", "aim", "met?"]]
    cells += [row.cells() for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    print()
    for line in cells:
        padded = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(padded)} |")


def main() -> int:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = ROOT.parent / "shared" / "data" / "debian-packages"
    parser.add_argument(
        "--data", type=Path, default=beside, help="folder with vectors.npy (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one thread, two data sets, under two minutes"
    )
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    options = parser.parse_args()
    for module in ("omendb", "faiss", "sklearn"):
        if importlib.util.find_spec(module) is None:
            parser.error(f"{module} is not installed; try pip install '.[bench]'")

    real = Data("debian-packages", "cosine", file=str(options.data / "vectors.npy"))
    gaussian = Data("gaussian-128", "euclidean", 100_000, 128)
    # scikit-learn's brute force has no inner product; on the last set FAISS alone is the measure.
    wide = Data("gaussian-768", "inner_product", 100_000, 768, left_out=("scikit-learn",))
    hard = Data("unprunable", "euclidean", 100_000, 128, "", (QUERIES,), ("scikit-learn", AVX2))
    data = [real, gaussian, wide, hard]
    if options.quick:
        data = [real, replace(gaussian, batches=(QUERIES,))]
    if not Path(real.file).exists():
        print(f"There is no {real.file}: the real data are left out.")
        data.remove(real)

    about = environment(("omendb", "faiss-cpu", "scikit-learn", "numpy"))
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    table: list[Row] = []
    raw: list[dict[str, Any]] = []
    for threads in (1,) if options.quick or (os.cpu_count() or 1) < 2 else (1, 2):
        remotes = {name: Remote(name, make, threads) for name, make in LIBRARIES.items()}
        kernels = remotes["omendb"].call("kernels")
        print(f"\nomendb runs {kernels['isa']}; the machine has {', '.join(kernels['available'])}")
        if "avx2" not in kernels["available"]:
            del remotes[AVX2]
        for one in data:
            ratio_rows, measured = measure_data(one, remotes, threads)
            table += ratio_rows
            raw += measured
        if threads == 1:
            table.append(measure_overhead(remotes))
            if real in data:
                table += measure_index(real)
        for remote in remotes.values():
            remote.connection.send(None)
            remote.process.join()
    table += measure_sweep(timeout_s=60 if options.quick else 900)
    print_table(table)
    if options.json:
        rows = [asdict(row) for row in table]
        report = {"environment": about, "table": rows, "measurements": raw}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
