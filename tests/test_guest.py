"""A good guest in the user's process: threads, signals, forks, imports.

Every test runs a script in an interpreter of its own, which is killed when it hangs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from reference import run_python

# Common to the scripts: a search that is known to take about `seconds`, on one thread or all.
LONG = """
import ctypes, json, os, signal, sys, threading, time
import numpy as np, omendb

rng = np.random.default_rng(int(os.environ.get("OMENDB_TEST_SEED") or time.time_ns() % 2**32))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored


def long_search(seconds, metric, threads=None, n=100_000, dim=64):
    X = rng.standard_normal((n, dim), dtype=np.float32)
    index = omendb.Index(X, metric=metric)
    index.search(X[:4], threads=threads)  # pools and kernels are ready
    count, took = 4, 0.0
    while took < 0.1:
        Q = np.resize(X[:50_000], (count, dim))
        start = time.perf_counter()
        index.search(Q, threads=threads)
        took = time.perf_counter() - start
        count *= 4
    count = int(count / 4 * seconds / took)
    return index, np.resize(X[:50_000], (count, dim))


def ticked(call, every):
    # Seconds of a call, moments in it when another thread ran, and the longest between two.
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(every)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    call()
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = [start] + [t for t in ticks if start < t < end] + [end]
    return end - start, len(inside), max(b - a for a, b in zip(inside, inside[1:]))


def state(index):
    hits = index.search(np.ones((2, index.dim), np.float32), 20)
    ends = index.vectors[:100].tobytes(), index.vectors[-100:].tobytes()
    return len(index), ends, index.ids.tobytes(), hits.ids.tobytes(), hits.distances.tobytes()
"""


# The GIL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "manhattan"])
def test_a_python_thread_runs_during_a_long_search(metric: str) -> None:
    script = f"""{LONG}
index, Q = long_search(1.5, sys.argv[1], threads=1)
print(json.dumps(ticked(lambda: index.search(Q, threads=1), 0.005)))
"""
    seconds, ticks, longest = json.loads(run_python(script, metric))
    assert seconds > 0.3, "the search was too short to tell"
    assert ticks > seconds * 30
    assert longest < 0.25


def test_a_python_thread_runs_during_a_long_build_and_add() -> None:
    script = f"""{LONG}
X = np.resize(rng.standard_normal((1000, 384)).astype(np.float16), (600_000, 384))
small = omendb.Index(X[:10])
calls = [lambda: omendb.Index(X, threads=1), lambda: small.add(X[:200_000], threads=1)]
print(json.dumps([ticked(call, 0.002) for call in calls]))
"""
    for seconds, _, longest in json.loads(run_python(script)):
        assert longest < max(0.25, 0.3 * seconds)


# Ctrl-C -----------------------------------------------------------------------------------

# `attempt(call, seconds)` sends SIGINT at a random moment of a call that takes about `seconds`
# and gives the time from the signal to the KeyboardInterrupt, or None if it came too late.
INTERRUPT = f"""{LONG}
def attempt(call, seconds):
    sent, armed = [], threading.Event()

    def send():
        armed.wait()
        time.sleep(rng.uniform(0.02, 0.6) * seconds)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        armed.set()
        call()
        # Too late: take the signal here, not in the middle of something else.
        sender.join()
        time.sleep(0.05)
    except KeyboardInterrupt:
        caught = time.perf_counter()
        sender.join()
        return caught - sent[0] if not finished else None
    raise SystemExit("no KeyboardInterrupt at all")


finished = []


def trial(call, seconds):
    finished.clear()

    def run():
        call()
        finished.append(True)

    return attempt(run, seconds)
"""


@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize(
    "call",
    [
        "search cosine",
        "search manhattan",
        "search_radius",
        "wide filter",
        "health",
        "knn_graph exact",
        "knn_graph approximate",
        "duplicates",
    ],
)
def test_ctrl_c_ends_a_long_search_within_200_ms(call: str, threads: int | None) -> None:
    script = f"""{INTERRUPT}
what, threads = sys.argv[1], None if sys.argv[2] == "None" else int(sys.argv[2])
metric = "manhattan" if "manhattan" in what else "cosine"
index, Q = long_search(2.5, metric, threads)
mask = rng.random(len(index)) < 0.7
calls = {{
    "search_radius": lambda: index.search_radius(Q, 0.4, threads=threads),
    "wide filter": lambda: index.search(Q, 10, filter=mask, threads=threads),
    "health": lambda: index.health(sample=len(index), threads=threads),
    "knn_graph exact": lambda: omendb.knn_graph(index, 10, method="exact", threads=threads),
    "knn_graph approximate": lambda: omendb.knn_graph(
        index, 10, method="approximate", recall=0.9, threads=threads
    ),
    "duplicates": lambda: omendb.duplicates(index, 0.1, threads=threads),
}}
run = calls.get(what, lambda: index.search(Q, 10, threads=threads))
before = state(index)
times = []
# On a fast machine a call may end before its signal: then it is called again.
while len(times) < 3 or (len(times) < 20 and not any(times)):
    times.append(trial(run, 2.0))
assert state(index) == before
print(json.dumps(times))
"""
    times = [time for time in json.loads(run_python(script, call, threads)) if time is not None]
    assert times, "every search ended before its signal"
    assert min(times) <= 0.2, times


def test_no_call_but_the_import_makes_the_checker_of_borrows() -> None:
    # Making it takes any exception for its absence (numpy's crate), and Python 3.13 may raise the
    # KeyboardInterrupt there: a first update went on as if nobody had pressed a key.
    run_python(
        """
import sys, omendb
modules = [module for name, module in sys.modules.items() if name.endswith("core.multiarray")]
assert any(hasattr(module, "_RUST_NUMPY_BORROW_CHECKING_API") for module in modules), modules
"""
    )


@pytest.mark.parametrize("call", ["build", "add", "update"])
def test_ctrl_c_ends_a_long_build_within_200_ms_and_changes_nothing(call: str) -> None:
    # Built from nothing in memory: the size is what takes a second or two, at most 1 GiB.
    script = f"""{INTERRUPT}
dim = 384
base = rng.standard_normal((1000, dim)).astype(np.float16)
X = np.resize(base, (100_000, dim))
start = time.perf_counter()
omendb.Index(X, threads=1)
took = time.perf_counter() - start
n = int(min(1_200_000, max(100_000, 100_000 * 1.5 / took)))
X = np.resize(base, (n, dim))
seconds = took * n / 100_000
index = omendb.Index(base if sys.argv[1] != "update" else X[: n // 2].copy(), threads=1)
ids = index.ids
other = X[len(X) - len(ids):][:, ::-1].copy()
calls = {{
    "build": lambda: omendb.Index(X, threads=1),
    "add": lambda: index.add(X, threads=1),
    "update": lambda: index.update(ids, other, threads=1),
}}
before = state(index)
times = []
for _ in range(8):
    times.append(trial(calls[sys.argv[1]], seconds * (0.5 if sys.argv[1] == "update" else 1)))
    ended = times[-1] is None or state(index) != before
    if ended and sys.argv[1] != "build":
        # The signal came after the work, be it before Python's next line: nothing is half done.
        grown = len(X) if sys.argv[1] == "add" else 0
        assert len(index) == len(ids) + grown
        assert grown or np.array_equal(index.vectors, other)
        times[-1] = None
        break
    assert state(index) == before
    if sum(t is not None for t in times) == 3:
        break
print(json.dumps(times))
"""
    times = [time for time in json.loads(run_python(script, call)) if time is not None]
    if not times:
        pytest.skip("every call ended before its signal: too fast to interrupt")
    assert min(times) <= 0.2, times


def test_signal_handlers_stay_as_they_were() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the handlers of a process are read from /proc")
    script = """
import numpy as np

def handled():
    lines = open("/proc/self/status").read().splitlines()
    return [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]

before = handled()
import omendb
assert handled() == before, "after import"
X = np.random.default_rng(0).standard_normal((20_000, 64)).astype("f4")
omendb.Index(X).search(X[:500])
assert handled() == before, "after a search"
"""
    run_python(script)


# Fork -------------------------------------------------------------------------------------

_FORK = """
import multiprocessing, os, signal, sys, threading, time, warnings
import numpy as np, omendb

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: fork of a threaded process
X = np.random.default_rng(0).standard_normal((30_000, 48)).astype("f4")
index = omendb.Index(X, metric="cosine")
Q = X[:300]
expected = index.search(Q, 10, threads=3)


def same(hits):
    return np.array_equal(hits.ids, expected.ids) and np.array_equal(
        hits.distances, expected.distances
    )


def works():
    return (
        same(index.search(Q, 10, threads=3))
        and same(index.search(Q, 10, threads=1))
        and same(index.search(Q, 10))
        and same(omendb.Index(X, metric="cosine").search(Q, 10))
        and len(index.add(X[:10])) == 10
    )


def fork_and_check():
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a hang ends in SIGALRM, which the parent sees
        os._exit(0 if works() else 1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the child ended with status {status}"
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_a_forked_child_searches_with_a_pool_of_its_own() -> None:
    script = f"""{_FORK}
for _ in range(3):
    fork_and_check()
assert same(index.search(Q, 10, threads=3)), "the parent goes on"
child = os.fork()
if child == 0:
    signal.alarm(60)
    assert same(index.search(Q, 10))
    fork_and_check()  # and a grandchild
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(script)


@needs_fork
def test_a_child_forked_before_any_search_works() -> None:
    script = f"""{_FORK.replace("expected = index.search(Q, 10, threads=3)", "")}
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if index.search(Q, 10).ids.shape == (300, 10) else 1)
assert os.waitpid(child, 0)[1] == 0
assert index.search(Q, 10).ids.shape == (300, 10)
"""
    run_python(script)


@needs_fork
def test_a_fork_while_another_thread_searches_leaves_both_working() -> None:
    script = f"""{_FORK}
stop, failures = threading.Event(), []


def search_on():
    while not stop.is_set():
        if not same(index.search(Q, 10, threads=2)):
            failures.append("the parent's answers changed")


searcher = threading.Thread(target=search_on)
searcher.start()
for i in range(12):
    time.sleep(0.003 * i)
    fork_and_check()
stop.set()
searcher.join()
assert not failures, failures
"""
    run_python(script)


@needs_fork
@pytest.mark.parametrize("what", ["rows", "frame"])
def test_a_child_forked_while_another_thread_edits_is_told_and_searches(what: str) -> None:
    script = f"""{_FORK}
import pandas
if sys.argv[1] == "frame":
    frame = pandas.DataFrame({{"v": list(X[:3000]), "id": [str(i) for i in range(3000)]}})
    index = omendb.Index.from_frame(frame, vector="v", id="id")
expected = index.search(Q, 10, threads=3)
within, on = threading.Event(), threading.Event()
progress = lambda done, total: (within.set(), on.wait(60))
editor = threading.Thread(target=index.update, args=(index.ids, index.vectors + 1),
                          kwargs={{"progress": progress}})
editor.start()
within.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    for edit, rest in ((index.remove, ()), (index.update, (X[: len(index)],))):
        try:
            edit(index.ids, *rest)
        except RuntimeError as error:
            assert "forked while another thread edited" in str(error)
        else:
            os._exit(2)
    os._exit(0 if same(index.search(Q, 10)) else 1)
status = os.waitpid(child, 0)[1]
on.set()
editor.join()
assert status == 0, f"the child ended with status {{status}}"
index.remove(index.ids[:1])
"""
    run_python(script, what)


@needs_fork
def test_a_fork_while_another_thread_meets_a_loaded_index_leaves_both_working(
    tmp_path: Path,
) -> None:
    """Chunks are checked and coded at the first touch, which a fork may fall into the middle of."""
    path = tmp_path / "x.omen"
    script = f"""{_FORK}
path = {str(path)!r}
index.save(path)
for i in range(12):
    index = omendb.Index.load(path)
    searcher = threading.Thread(target=index.search, args=(Q, 10), kwargs={{"threads": 1}})
    searcher.start()
    time.sleep(0.0008 * i)
    fork_and_check()
    searcher.join()
"""
    run_python(script)


@needs_fork
def test_multiprocessing_by_fork_searches_a_shared_index() -> None:
    script = f"""{_FORK}
def one(i):
    return same(index.search(Q, 10)) and int(index.search(Q[i], 1).ids[0]) == i

with multiprocessing.get_context("fork").Pool(3) as pool:
    assert all(pool.map_async(one, range(30)).get(60))
"""
    run_python(script)


# Threads ----------------------------------------------------------------------------------


def test_sixteen_threads_get_equal_answers_from_one_index() -> None:
    script = """
import threading
import numpy as np, omendb

X = np.random.default_rng(0).standard_normal((20_000, 48)).astype("f4")
index = omendb.Index(X)
Q = X[:64]
expected = index.search(Q, 10)
expected_radius = index.search_radius(Q, 6.0)
mask = X[:, 0] > 0
expected_filtered = index.search(Q, 10, filter=mask)
failures, start = [], threading.Barrier(16)


def run(seed):
    rng = np.random.default_rng(seed)
    start.wait()
    try:
        for _ in range(15):
            some = rng.permutation(64)[: rng.integers(1, 65)]
            threads = int(rng.integers(1, 4))
            hits = index.search(Q[some], 10, threads=threads)
            np.testing.assert_array_equal(hits.ids, expected.ids[some])
            np.testing.assert_array_equal(hits.distances, expected.distances[some])
            hits = index.search(Q[some], 10, filter=mask, threads=threads)
            np.testing.assert_array_equal(hits.ids, expected_filtered.ids[some])
            one = int(some[0])
            hits = index.search_radius(Q[one], 6.0, threads=threads)
            low, high = expected_radius.offsets[one : one + 2]
            np.testing.assert_array_equal(hits.ids, expected_radius.ids[low:high])
    except BaseException as error:
        failures.append(repr(error))


threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures[:1]
"""
    run_python(script)


def test_a_search_during_edits_sees_the_old_or_the_new_rows_never_half() -> None:
    # Each edit puts, moves or removes 600 rows that are nearer than all others, and numbers
    # its distances, so one answer tells which state it saw; a mixture matches no state.
    script = """
import threading, time
import numpy as np, omendb

rng = np.random.default_rng(0)
dim = 16
base = rng.standard_normal((3000, dim)).astype("f4") + 10_000
index = omendb.Index(base)
Q = np.zeros((3, dim), "f4")


def rows(value):
    x = np.zeros((600, dim), "f4")
    x[:, 0] = value
    return x


far = omendb.Index(base).search(Q, 600).distances[0].tolist()
stop, failures, seen = threading.Event(), [], set()
ids = np.arange(10_000, 10_600)


def look(threads):
    latest = 0
    try:
        while not stop.is_set():
            hits = index.search(Q, 600, threads=threads)
            for answer, names in zip(hits.distances.tolist(), hits.ids):
                if answer == far:
                    assert names.max() < 3000
                    continue
                assert set(answer) == {answer[0]}, "a mixture of two states"
                np.testing.assert_array_equal(np.sort(names), ids)
                assert answer[0] >= latest, "an older state after a newer one"
                latest = answer[0]
                seen.add(latest)
            assert (hits.distances == hits.distances[0]).all(), "two states in one call"
            names = index.ids
            assert len(names) in (3000, 3600)
            assert index.vectors.shape[1] == dim and len(index.vectors) in (3000, 3600)
    except BaseException as error:
        failures.append(repr(error))


lookers = [threading.Thread(target=look, args=(threads,)) for threads in (1, 1, 2)]
for looker in lookers:
    looker.start()
value, end = 1.0, time.perf_counter() + 3
while time.perf_counter() < end and not failures and value < 1600:
    index.add(rows(value), ids=ids)
    time.sleep(0.002)
    index.update(ids[::-1], rows(value + 1))
    time.sleep(0.002)
    index.remove(rng.permutation(ids))
    value += 2
stop.set()
for looker in lookers:
    looker.join()
assert not failures, failures[:1]
assert seen, "no search ever met an added row"
"""
    run_python(script)


def test_two_threads_that_edit_lose_no_row() -> None:
    script = """
import threading
import numpy as np, omendb

index = omendb.Index(dim=4)
given, failures = [], []


def grow(value):
    try:
        for i in range(100):
            ids = index.add(np.full((3, 4), value, "f4"))
            given.extend(ids.tolist())
            if i % 10 == 9:
                index.remove(ids[:1])
                given.remove(int(ids[0]))
    except BaseException as error:
        failures.append(repr(error))


threads = [threading.Thread(target=grow, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures[:1]
assert len(set(given)) == len(given) == len(index) == 4 * 100 * 3 - 40
assert sorted(index.ids.tolist()) == sorted(given)
"""
    run_python(script)


def test_a_callable_may_use_the_index_that_calls_it() -> None:
    # Held locks would hang here: progress searches the index that is searched or edited.
    script = """
import numpy as np, omendb

X = np.random.default_rng(0).standard_normal((5000, 16)).astype("f4")
index = omendb.Index(X)
lengths = []


def look(done, total):
    lengths.append(len(index))
    assert index.search(X[:2], 3).ids[:, 0].tolist() == [0, 1]
    repr(index), index.ids, index.vectors, index.nbytes


index.search(X, 5, progress=look)
index.add(X, progress=look)
index.update(index.ids[:100], X[:100], progress=look)
index.search_radius(X[:100], 1.0, progress=look)
assert set(lengths) <= {5000, 10_000}, set(lengths)
"""
    run_python(script)


def test_changing_the_users_array_during_searches_never_crashes() -> None:
    script = """
import threading, time
import numpy as np, omendb

rng = np.random.default_rng(0)
stop, failures = threading.Event(), []


def scramble(X):
    wild = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 3e38, -3e38])
    draws = [rng.standard_normal(X.shape) * scale for scale in (1, 1e-40, 1e30)]
    while not stop.is_set():
        for draw in draws:
            with np.errstate(all="ignore"):
                X[:] = draw
                X[::7, ::3] = rng.choice(wild)
                X[rng.integers(len(X))] = rng.choice(wild)


for dtype, metric in [("f4", "cosine"), ("f8", "euclidean"), ("f2", "manhattan"),
                      ("f4", "inner_product"), ("f4", "chebyshev"), ("f4", "sqeuclidean")]:
    X = rng.standard_normal((9000, 64)).astype(dtype)
    index = omendb.Index(X, metric=metric)
    kept = omendb.Index(X, metric=metric, copy=True)
    Q = X[:40].copy()
    expected = kept.search(Q, 10)
    stop.clear()
    writer = threading.Thread(target=scramble, args=(X,))
    writer.start()
    end = time.perf_counter() + 0.7
    while time.perf_counter() < end:
        hits = index.search(Q, 10)
        assert hits.ids.shape == (40, 10)
        assert ((hits.ids >= 0) & (hits.ids < 9000)).all()
        assert all(len(set(row)) == 10 for row in hits.ids.tolist())
        for k, chosen in ((10, np.arange(50)), (9000, None)):
            one = index.search(Q[0], k, filter=chosen)
            assert one.ids.shape == (k,)
            assert len(set(one.ids.tolist())) == k
        around = index.search_radius(Q[:5], 1.0)
        assert around.offsets[-1] == len(around.ids) == len(around.distances)
    stop.set()
    writer.join()
    hits = kept.search(Q, 10)
    np.testing.assert_array_equal(hits.ids, expected.ids)
    np.testing.assert_array_equal(hits.distances, expected.distances)
"""
    run_python(script)


def test_an_index_keeps_the_users_array_alive() -> None:
    script = """
import gc
import numpy as np, omendb

for _ in range(20):
    X = np.random.default_rng(0).standard_normal((20_000, 64)).astype("f4")
    index = omendb.Index(X)
    expected = index.search(X[:5], 10).ids
    Q = X[:5].copy()
    del X
    gc.collect()
    churn = [np.full((20_000, 64), i, "f4") for i in range(3)]  # takes freed memory over
    np.testing.assert_array_equal(index.search(Q, 10).ids, expected)
    vectors = index.vectors
    del index, churn
    gc.collect()
    np.testing.assert_array_equal(vectors[:5], Q)
"""
    run_python(script)


# Imports ----------------------------------------------------------------------------------


def test_importing_starts_no_thread() -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("the threads of a process are read from /proc")
    script = """
import os, threading
import numpy as np

before = len(os.listdir("/proc/self/task"))
import omendb
assert len(os.listdir("/proc/self/task")) == before
omendb.Index(np.eye(3))
omendb.Index(np.eye(3)).search(np.eye(3), threads=1)
assert len(os.listdir("/proc/self/task")) == before, "nor does one thread need others"
assert threading.active_count() == 1
"""
    run_python(script)


def test_importing_takes_at_most_50_ms_beyond_numpy() -> None:
    script = """
import time
import numpy
start = time.perf_counter()
import omendb
print(time.perf_counter() - start)
"""
    times = [float(run_python(script)) for _ in range(5)]
    assert min(times) <= 0.05, times


def test_importing_loads_none_of_the_optional_packages() -> None:
    script = """
import sys
import omendb
optional = {"pandas", "polars", "pyarrow", "sklearn", "scipy", "matplotlib", "tqdm", "torch"}
optional |= {"ml_dtypes", "IPython", "multiprocessing", "socket", "ssl", "asyncio"}
optional |= {"haystack", "langchain_core", "pydantic"}
loaded = {name.split(".")[0] for name in sys.modules} & optional
print(sorted(loaded))
"""
    bare = "import sys, numpy; print(sorted({name.split('.')[0] for name in sys.modules}))"
    already = set(json.loads(run_python(bare).replace("'", '"')))
    loaded = set(json.loads(run_python(script).replace("'", '"')))
    assert not loaded - already


def test_an_unknown_instruction_set_is_refused_at_use_not_at_import() -> None:
    script = """
import numpy as np, omendb
try:
    omendb.Index(np.eye(3)).search(np.eye(3))
except ValueError as error:
    assert "OMENDB_ISA" in str(error) and "sse9" in str(error) and "portable" in str(error), error
else:
    raise SystemExit("an unknown instruction set was accepted")
try:
    omendb._core.kernels()
except ValueError:
    pass
else:
    raise SystemExit("an unknown instruction set was reported as known")
"""
    run_python(script.replace("import numpy", "import omendb._core, numpy"), isa="sse9")


def test_the_interpreter_may_end_during_a_search() -> None:
    script = """
import threading
import numpy as np, omendb

X = np.random.default_rng(0).standard_normal((50_000, 64)).astype("f4")
index = omendb.Index(X)
index.search(X[:10])
threading.Thread(target=lambda: index.search(X[:20_000]), daemon=True).start()
"""
    run_python(script)
