"""The command line, ``python -m omendb``.

People read tables that fit the terminal; programs ask for ``--json`` and get one JSON object on
standard output. A failure is one line on standard error and an exit status, never a traceback.
"""

import argparse
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import omendb
from omendb import _core, demo

STATUS = """\
exit status:
  0   done, and all is well
  1   the file is damaged, or the command failed: one line on standard error says why
  2   the command line makes no sense
"""
INFO_KEYS = """\
with --json, one object:
  path, bytes       the file and its size
  rows, dim         the number of rows, and of numbers in each
  metric, dtype     as in Python
  graph             whether near rows are linked
  effort            the width of a walk's beam where a search names none
  columns           of each column name, type and bytes
"""
VERIFY_KEYS = """\
with --json, one object:
  path              the file
  ok                whether all is as it was written
  damage            what is not, a sentence each
  columns           of each column name, type, bytes and damage (null if none)
  graph             rows, unreachable, dangling, links and degree, or null
"""
SEARCH_KEYS = """\
with --json, one object:
  path, metric, k   the file, its metric, and the answers of each query
  ids, distances    a list for each query, nearest first; null for a distance too
                    large for the file's number type
  exact             of each query, whether its answers are proven
"""
DEMO_KEYS = """\
with --json, one object:
  texts, seconds    docstrings that were read, and how long their vectors took
  answers           of each question, its query and answers (name, distance, summary)
  measured          rows, queries, k and cores; seconds of each way, recall and effort
                    of the graph, and how many distances equal NumPy's
"""


class CommandError(Exception):
    """What a user is told in one line."""


def info(options: argparse.Namespace) -> int:
    """Say what is in a file; its vectors are not read."""
    columns = [
        {key: column[key] for key in ("name", "type", "bytes")}
        for column in _core.file_columns(options.file)
    ]
    index = omendb.Index.load(options.file)
    kinds = [column["type"].partition("[")[0] for column in columns if column["name"] == "vectors"]
    facts: dict[str, Any] = {
        "path": readable(options.file),
        "bytes": options.file.stat().st_size,
        "rows": len(index),
        "dim": index.dim,
        "metric": index.metric,
        # Arrow does not know bfloat16: its bits are saved.
        "dtype": kinds[0].replace("uint16", "bfloat16"),
        "graph": index.has_graph,
        "effort": index.effort,
        "columns": columns,
    }
    if options.json:
        print_json(facts)
        return 0
    shown = {
        "file": facts["path"],
        "size": size(facts["bytes"]),
        "rows": f"{len(index):,}",
        "dim": f"{index.dim:,}",
        "metric": index.metric,
        "dtype": facts["dtype"],
        "graph": f"yes, effort {index.effort}" if index.has_graph else "no",
    }
    for name, value in shown.items():
        print_line(f"{name:8}{value}")
    print()
    print_columns(columns)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read a whole file and say whether it is as it was written."""
    columns: list[dict[str, Any]] = []
    graph = None
    try:
        columns = _core.file_columns(options.file, verify=True)
        damage = [str(column["damage"]) for column in columns if column["damage"] is not None]
        if not damage:
            graph = omendb.Index.load(options.file, verify=True).check()
    except ValueError as error:
        damage = [str(error)]
    else:
        if graph is not None and graph["unreachable"] + graph["dangling"]:
            damage.append(
                f"{graph['unreachable']:,} rows cannot be reached by the graph, and"
                f" {graph['dangling']:,} links lead to no row"
            )
    if options.json:
        facts = {"path": readable(options.file), "ok": not damage, "damage": damage}
        print_json({**facts, "columns": columns, "graph": graph})
    elif columns:
        print_columns(columns)
        if not damage:
            print()
            print_line(f"{options.file}: all is as it was written")
    if damage:
        named = f"{options.file} is damaged: " if columns else ""
        raise CommandError(named + "; ".join(damage))
    return 0


def search(options: argparse.Namespace) -> int:
    """Search a saved index for the rows of a ``.npy`` file."""
    index = omendb.Index.load(options.file)
    queries = np.atleast_2d(load_queries(options.query_file))
    hits = index.search(queries, options.k, method=options.method, effort=options.effort)
    if options.json:
        distances = hits.distances.astype(object)
        distances[np.isinf(hits.distances)] = None  # JSON has no infinity
        print_json(
            {
                "path": readable(options.file),
                "metric": index.metric,
                "k": options.k,
                "ids": hits.ids.tolist(),
                "distances": distances.tolist(),
                "exact": np.atleast_1d(hits.exact).tolist(),
            }
        )
        return 0
    names = [[str(id_) for id_ in ids] for ids in hits.ids]
    width = max((len(name) for row in names for name in row), default=2)
    width = min(max(width, 12), 40)
    print_line(f"{'query':>8} {'rank':>6} {'id':>{width}} {'distance':>14}")
    for query, (ids, distances) in enumerate(zip(names, hits.distances, strict=True)):
        for rank, (id_, distance) in enumerate(zip(ids, distances, strict=True)):
            shown = demo.shorten(id_, width)
            print_line(f"{query:8} {rank:6} {shown:>{width}} {distance:14.6f}")
    return 0


def load_queries(path: Path) -> Any:
    """Read the array of a ``.npy`` file; what could run code is refused."""
    try:
        with path.open("rb") as file:
            # NumPy goes back and forth, which in a pipe is not possible.
            whole = file if file.seekable() else io.BytesIO(file.read())
            queries = np.lib.format.read_array(whole, allow_pickle=False)
    except OSError:
        raise
    except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        why = "objects would have to be unpickled" if "pickle" in str(error) else str(error)
        raise CommandError(f"cannot read {path} as an array of numbers (.npy): {why}") from error
    if queries.ndim not in (1, 2):
        raise CommandError(
            f"expected {path} to hold queries of 1 or 2 dimensions, got shape {queries.shape}"
        )
    return queries


def size(count: int) -> str:
    """Write a number of bytes."""
    if count < 1024:
        return f"{count:,} bytes"
    power = min((count.bit_length() - 1) // 10, 3)
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def print_columns(columns: Sequence[dict[str, Any]]) -> None:
    """Print a table of a file's columns."""
    width = max([12, *(len(column["name"]) for column in columns)])
    kinds = max([12, *(len(column["type"]) for column in columns)])
    checked = any("damage" in column for column in columns)
    print_line(f"{'column':{width}}  {'type':{kinds}}  {'size':>12}")
    for column in columns:
        state = ""
        if checked:
            state = "  good" if column["damage"] is None else "  damaged"
        line = f"{column['name']:{width}}  {column['type']:{kinds}}  {size(column['bytes']):>12}"
        print_line(line + state)


def readable(path: Path) -> str:
    """Write a path as text that every program can read, though its bytes may be no text."""
    return str(path).encode(errors="replace").decode()


def print_line(line: str) -> None:
    """Print a line, cut to the width of the terminal if there is one."""
    line = demo.printable(line)
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        line = demo.shorten(line, shutil.get_terminal_size().columns)
    print(line)


def print_json(facts: dict[str, Any]) -> None:
    """Print one JSON object; NaN, which is none, would be a fault."""
    print(json.dumps(facts, allow_nan=False, default=str))  # whole, or nothing where it fails


def positive(text: str) -> int:
    """Read a count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Describe the command line; each command names the function that runs it."""
    form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="python -m omendb",
        description=omendb.__doc__,
        epilog=f"{STATUS}\nEach command has its own --help.",
        formatter_class=form,
    )
    top.add_argument("--version", action="version", version=f"omendb {omendb.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for run, what, keys in (
        (info, "say what is in a saved index", INFO_KEYS),
        (verify, "read a saved index and look for damage", VERIFY_KEYS),
        (search, "find the rows nearest to some queries", SEARCH_KEYS),
    ):
        command = commands.add_parser(
            run.__name__,
            help=what,
            description=run.__doc__,
            epilog=f"{keys}\n{STATUS}",
            formatter_class=form,
        )
        command.set_defaults(run=run)
        command.add_argument("file", type=Path, help="what index.save() wrote")
        command.add_argument("--json", action="store_true", help="for programs")
        if run is search:
            command.add_argument(
                "--query-file",
                type=Path,
                required=True,
                metavar="Q.npy",
                help="an array of shape (queries, dim) or (dim,), from numpy.save",
            )
            command.add_argument(
                "-k", "--k", type=positive, default=10, help="answers to each (default: 10)"
            )
            command.add_argument(
                "--method",
                choices=("auto", "exact", "graph"),
                default="auto",
                help="how (default: auto)",
            )
            command.add_argument("--effort", type=positive, help="the width of a walk's beam")
    command = commands.add_parser(
        "demo",
        help="search the documentation on this machine",
        description=demo.demo.__doc__,
        epilog=f"{DEMO_KEYS}\n{STATUS}",
        formatter_class=form,
    )
    command.set_defaults(run=demo.demo)
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument(
        "--query",
        type=demo.question,
        action="append",
        help="a question of your own; may be repeated",
    )
    command.add_argument("-k", "--k", type=positive, default=5, help="answers to each (default: 5)")
    return top


def failed(why: str) -> int:
    """Say in one line why a command failed, and return its exit status."""
    print(f"omendb: {demo.printable(' '.join(why.split()))}", file=sys.stderr)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status."""
    if sys.stderr is None:  # closed, as by 2>&-: what is printed would go to standard output
        sys.stderr = io.StringIO()
    if sys.stdout is None:
        return failed("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a docstring may hold what a terminal cannot
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        try:
            status: int = options.run(options)
        finally:
            sys.stdout.flush()  # what was found comes before why it failed, also in a file
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        return failed(f"{error.filename}: {error.strerror}" if named else str(error))
    except (CommandError, ValueError, TypeError, MemoryError) as error:
        return failed(str(error) or type(error).__name__)
    return status


if __name__ == "__main__":
    sys.exit(main())
