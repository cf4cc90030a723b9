"""The demo of ``python -m omendb demo``, on text that every machine has.

The demo indexes the docstrings of the standard library and of the installed packages. Source
files are parsed, never run, so that reading them can do no harm; modules written in C have no
source and are imported from a list of harmless ones. A text becomes a vector in NumPy alone: its
words are cut into character n-grams, these are hashed into buckets and weighted by TF-IDF, and
each bucket adds or subtracts its weight in every dimension by fixed random signs (a random
projection, which keeps angles to within about 1/sqrt(DIM)). So words that share a stem are near
each other, which is all that the demo promises: it shows the search, not a language model.
"""

import argparse
import ast
import importlib
import json
import os
import re
import shutil
import statistics
import sys
import sysconfig
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import omendb

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

QUESTIONS = (
    "read a zip archive",
    "current time in another time zone",
    "greatest common divisor of two numbers",
)
DIM = 384
BUCKETS = 1 << 16
SEED = 0
# Together these keep the demo well under half a minute on two slow cores, however much is
# installed. The standard library is read first, so the limits cut other packages only.
MAX_FILES = 3_000
MAX_FILE_BYTES = 500_000
MAX_TEXTS = 25_000
# What a thing does stands at the start of its docstring; the rest would blur the vector.
MAX_DOC_CHARS = 400

# Tests are documented for their authors, not for users.
SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "__pycache__"})
# Written in C, and harmless to import: no output, no window, no change to the terminal.
COMPILED_MODULES = (
    *("builtins", "errno", "gc", "itertools", "marshal", "math", "cmath", "posix", "nt", "sys"),
    *("time", "array", "binascii", "fcntl", "grp", "mmap", "pwd", "pyexpat", "resource", "select"),
    *("termios", "unicodedata", "zlib", "_bisect", "_bz2", "_codecs", "_collections", "_csv"),
    *("_datetime", "_decimal", "_functools", "_hashlib", "_heapq", "_io", "_json", "_lzma"),
    *("_operator", "_pickle", "_queue", "_random", "_signal", "_socket", "_sqlite3", "_sre"),
    *("_ssl", "_statistics", "_struct", "_thread", "_weakref", "_zoneinfo"),
)
# "ZipFile" is Zip and File, "HTTPServer" HTTP and Server, "utf8" utf and 8; "_" and "." separate.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True)
class Text:
    """A documented thing: its dotted name and its docstring."""

    name: str
    doc: str

    @property
    def summary(self) -> str:
        """The docstring's first line, fit for a terminal."""
        return printable(self.doc.partition("\n")[0])

    @property
    def content(self) -> str:
        """What is searched: the name and the start of the docstring."""
        return f"{self.name} {self.doc[:MAX_DOC_CHARS]}"


class Progress:
    """One line on standard error: rewritten in a terminal, written once per stage elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.stage = ""

    def __call__(self, stage: str, detail: str = "") -> None:
        """Show the stage and, in a terminal, how far it has come."""
        if self.live:
            print(f"\r\033[K{stage} {detail}", end="", file=sys.stderr, flush=True)
        elif stage != self.stage:
            print(stage, file=sys.stderr, flush=True)
        self.stage = stage

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def read_source(path: Path, module: str) -> list[Text]:
    """Return the docstrings of one source file; none if it cannot be read or parsed."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    texts = []
    nodes: list[tuple[str, Any]] = [(module, tree)]
    for name, node in nodes:  # grows while it is read: breadth first
        if doc := ast.get_docstring(node):
            texts.append(Text(name, doc))
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                nodes.append((f"{name}.{child.name}", child))
    return texts


def read_sources(root: Path) -> Iterator[list[Text]]:
    """Yield the docstrings of each source file below ``root``, sorted by path."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS and f.isidentifier())
        for file in sorted(f for f in files if f.endswith(".py")):
            path = Path(folder, file)
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1] or (root.name,)
            # `_pyio` is the Python twin of `io`, which is the name that users know.
            twin = parts[0].removeprefix("_py")
            first = twin if twin in sys.stdlib_module_names else parts[0]
            yield read_source(path, ".".join((first, *parts[1:])))


def read_object(thing: Any, name: str) -> Iterator[Text]:
    """Yield the docstrings of a module, class or function, and of what it holds."""
    doc = getattr(thing, "__doc__", None)
    if isinstance(doc, str) and WORD.search(doc):
        yield Text(name, doc.strip())
    if isinstance(thing, ModuleType | type):
        for key, value in sorted(vars(thing).items()):
            # Anything that cannot be called only repeats the docstring of its class.
            if callable(value) and not key.startswith("__"):
                yield from read_object(value, f"{name}.{key}")


def read_compiled() -> Iterator[list[Text]]:
    """Yield the docstrings of each module of the standard library that is written in C."""
    for module in COMPILED_MODULES:
        try:
            yield list(read_object(importlib.import_module(module), module.lstrip("_")))
        except ImportError:  # no platform has them all
            continue


def read_texts(progress: Progress) -> list[Text]:
    """Return each documented thing once: the standard library, then the installed packages."""
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    packages = (read_sources(Path(folder)) for folder in folders)
    texts: dict[str, Text] = {}
    seen: set[tuple[str, str]] = set()
    files = 0
    for source in (read_sources(Path(sysconfig.get_path("stdlib"))), read_compiled(), *packages):
        for found in source:
            files += 1
            for text in found:
                # Vendored copies and inherited documentation would fill the answers.
                copy = (text.name.rpartition(".")[2], text.doc)
                if copy not in seen:
                    seen.add(copy)
                    texts.setdefault(text.name, text)
            progress("reading docstrings", f"{files:,} files, {len(texts):,} texts")
            if files >= MAX_FILES or len(texts) >= MAX_TEXTS:
                return list(texts.values())[:MAX_TEXTS]
    return list(texts.values())


def words(text: str) -> list[str]:
    """Split a text into lower-case words, names also at ``_``, ``.`` and capitals.

    Examples
    --------
    >>> words("zipfile.ZipFile.open_HTTPServer")
    ['zipfile', 'zip', 'file', 'open', 'http', 'server']
    """
    return [word.lower() for word in WORD.findall(text)]


def ngrams(word: str) -> list[str]:
    """Return the marked word and its character n-grams of 3 to 5 letters.

    Examples
    --------
    >>> ngrams("zip")
    ['<zip>', '<zi', 'zip', 'ip>', '<zip', 'zip>']
    """
    whole = f"<{word}>"
    sizes = range(3, min(6, len(whole)))
    return [whole, *(whole[i : i + n] for n in sizes for i in range(len(whole) - n + 1))]


def count_words(contents: Sequence[str]) -> tuple[list[tuple[Ints, Floats]], list[Ints]]:
    """Return the words of each text with their weights, and the n-gram buckets of each word.

    A word that occurs t times weighs 1 + log t.
    """
    counts = [Counter(words(content)) for content in contents]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(w for c in counts for w in c))}
    texts = [
        (np.array([numbers[word] for word in c]), 1 + np.log(np.array([*c.values()], np.float32)))
        for c in counts
    ]
    # Not hash(): it differs from one process to the next.
    return texts, [np.array([zlib.crc32(n.encode()) % BUCKETS for n in ngrams(w)]) for w in numbers]


class Embedding:
    """Turns texts into unit vectors; the weights of the n-grams come from ``contents``."""

    def __init__(self, contents: Sequence[str]) -> None:
        texts, buckets = count_words(contents)
        frequency = np.zeros(BUCKETS, dtype=np.int64)
        for numbers, _ in texts:
            # NumPy adds once to an index that repeats: texts are counted, not occurrences.
            frequency[np.concatenate([buckets[number] for number in numbers])] += 1
        rarity = np.log((1 + len(contents)) / (1 + frequency)).astype(np.float32)
        signs = np.random.default_rng(SEED).choice(np.array([-1, 1], np.int8), (BUCKETS, DIM))
        self.projection = signs * rarity[:, None]

    def __call__(self, contents: Sequence[str]) -> Floats:
        """Return one row per text, float32 of shape (n, DIM) and unit length."""
        texts, buckets = count_words(contents)
        # Divided so that long words, of many n-grams, do not outweigh short ones.
        table = np.stack(
            [self.projection[b].sum(axis=0) / np.float32(len(b) ** 0.5) for b in buckets]
        )
        vectors = np.stack([weights @ table[numbers] for numbers, weights in texts])
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Floats = vectors / np.maximum(length, np.finfo(np.float32).tiny)
        return unit


def numpy_search(vectors: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """Return the k rows nearest by cosine: a matrix product, then a partial sort, by blocks."""
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for first in range(0, len(queries), 128):
        block = slice(first, first + 128)
        far = 1 - queries[block] @ vectors.T
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(far, near, axis=1), axis=1, kind="stable")
        ids[block] = np.take_along_axis(near, order, axis=1)
        distances[block] = np.take_along_axis(far, ids[block], axis=1)
    return ids, distances


def seconds(action: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def print_answers(question: str, texts: Sequence[Text], hits: omendb.Hits) -> None:
    """Print the answers to one question as a table that fits the terminal."""
    width = shutil.get_terminal_size(fallback=(100, 24)).columns
    answers = [texts[row] for row in hits.ids]
    column = min(max(len(text.name) for text in answers), width * 2 // 5)
    print(f"\n{question}")
    for rank, (text, distance) in enumerate(zip(answers, hits.distances, strict=True), start=1):
        line = f"{rank:4}  {distance:.3f}  {shorten(text.name, column):{column}}  {text.summary}"
        print(shorten(line, width))


def printable(line: str) -> str:
    """Put a blank for each character that could break a line or steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in line)


def shorten(line: str, width: int) -> str:
    """Cut a line to a width, with a mark where it was cut."""
    return line if len(line) <= width else line[: max(0, width - 3)].rstrip() + "..."


def measure(vectors: Floats, k: int) -> dict[str, Any]:
    """Time 1,000 texts, held out of the index, against the same search in plain NumPy."""
    held = np.random.default_rng(SEED).permutation(len(vectors))[: min(1_000, len(vectors) // 4)]
    queries, rest = vectors[held], np.delete(vectors, held, axis=0)
    k = min(k, len(rest))
    index = omendb.Index(rest, metric="cosine")
    linked = omendb.Index(rest, metric="cosine", method="graph")
    report = linked.tune(0.95, k)
    rivals: dict[str, Callable[[], object]] = {
        "build_seconds": lambda: omendb.Index(rest, metric="cosine"),
        "graph_build_seconds": lambda: omendb.Index(rest, metric="cosine", method="graph"),
        "exact_seconds": lambda: index.search(queries, k),
        "graph_seconds": lambda: linked.search(queries, k, method="graph"),
        "numpy_seconds": lambda: numpy_search(rest, queries, k),
    }
    # In turn, so that other work on the machine slows all of them.
    rounds = [[seconds(action) for action in rivals.values()] for _ in range(5)]
    times = map(statistics.median, zip(*rounds, strict=True))
    exact, walked = index.search(queries, k).distances, linked.search(queries, k, method="graph")
    # Equal distances, not equal ids: in float32 NumPy cannot always tell near-ties apart.
    gap = np.abs(exact - numpy_search(rest, queries, k)[1])
    return {
        "rows": len(rest),
        "dim": DIM,
        "queries": len(held),
        "k": k,
        "cores": os.cpu_count(),
        **dict(zip(rivals, times, strict=True)),
        "effort": report.effort,
        "recall": float(np.mean(walked.distances <= exact[:, -1:])),
        "distances": gap.size,
        "equal_distances": int(np.count_nonzero(gap < 1e-5)),
    }


def print_measurements(found: dict[str, Any]) -> None:
    """Print what was measured."""
    exact, graph, plain = (
        found["queries"] / found[f"{way}_seconds"] for way in ("exact", "graph", "numpy")
    )
    print(
        f"\nMeasured: {found['rows']:,} rows of {DIM} dimensions, a batch of {found['queries']:,}"
        f" other texts as queries, k = {found['k']},\n{found['cores']} cores, median of 5 rounds\n"
        f"  build omendb.Index  {found['build_seconds']:8.3f} seconds,"
        f" {found['graph_build_seconds']:.3f} with a graph\n"
        f"  exact, omendb       {exact:8,.0f} queries per second\n"
        f"  by the graph        {graph:8,.0f} queries per second, recall {found['recall']:.3f}"
        f" (effort {found['effort']}, tuned for 0.95)\n"
        f"  exact, NumPy        {plain:8,.0f} queries per second (a matrix product,"
        f" then argpartition)\n"
        f"Exact, omendb is {exact / plain:.1f} times as fast, and {found['equal_distances']:,}"
        f" of the {found['distances']:,} distances agree to 0.00001."
    )


def demo(options: argparse.Namespace) -> int:
    """Index the docstrings on this machine, answer questions, and say how long it took."""
    questions: Sequence[str] = options.query or QUESTIONS
    progress = Progress()
    try:
        start = time.perf_counter()
        texts = read_texts(progress)
        contents = [text.content for text in texts]
        progress("weighing n-grams")
        embed = Embedding(contents)
        progress("making vectors")
        vectors = embed(contents)
    finally:
        progress.clear()
    elapsed = time.perf_counter() - start
    if not options.json:
        print(f"{len(texts):,} docstrings became vectors of {DIM} dimensions in {elapsed:.1f} s.")
    index = omendb.Index(vectors, metric="cosine")
    answers = []
    for question, query in zip(questions, embed(questions), strict=True):
        hits = index.search(query, options.k)
        if not options.json:
            print_answers(question, texts, hits)
        near = zip(hits.ids.tolist(), hits.distances.tolist(), strict=True)
        found = [
            {"name": texts[i].name, "distance": d, "summary": texts[i].summary} for i, d in near
        ]
        answers.append({"query": question, "answers": found})
    measured = measure(vectors, options.k)
    if options.json:
        facts = {"texts": len(texts), "seconds": elapsed, "answers": answers, "measured": measured}
        json.dump(facts, sys.stdout, allow_nan=False)
        print()
    else:
        print_measurements(measured)
    return 0


def question(text: str) -> str:
    """Read a question from the command line."""
    if not words(text):
        raise argparse.ArgumentTypeError(f"expected at least one word, got {text!r}")
    return printable(text)
