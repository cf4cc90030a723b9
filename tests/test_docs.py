"""README, docs/ and the docstrings are tests: every example in them runs as written."""

import contextlib
import doctest
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from examples import PAGES, ROOT, Block, blocks

import omendb
import omendb.neighbors

LENIENT = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

# Only the environment of `make test-adapters` has these frameworks.
ADAPTERS = {"omendb.langchain": "langchain_core", "omendb.haystack": "haystack"}
MODULES = [omendb, omendb.neighbors] + [
    importlib.import_module(name) for name, needs in ADAPTERS.items() if find_spec(needs)
]


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield each public module, its public names, and the members these define."""
    for module in MODULES:
        yield module.__name__, module
        for name in module.__all__:
            if name.startswith("_"):
                continue
            value = getattr(module, name)
            yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                for member in vars(value):
                    if not member.startswith("_"):
                        yield f"{module.__name__}.{name}.{member}", getattr(value, member)


OBJECTS = dict(public_objects())
EXAMPLES = {str(page.relative_to(ROOT)): page for page in PAGES if any(blocks(page))}


def is_possible(block: Block) -> bool:
    """Say whether it can be run: `make test` does not install UMAP and LangChain, others do."""
    imported = re.findall(r"^(?:import|from) (\w+)", block.code, re.MULTILINE)
    return block.kind == "python" or all(find_spec(name) for name in imported)


def check_output(block: Block, where: str, got: str) -> None:
    """Compare what an example printed with what its page shows."""
    example = doctest.Example(block.code, block.output or "")
    checker = doctest.OutputChecker()
    if not checker.check_output(example.want, got, LENIENT):
        pytest.fail(f"{where}: {checker.output_difference(example, got, LENIENT)}")


def run_console(block: Block, page: Path) -> None:
    """Run each line after a `$` and compare what follows it, up to the next."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "COLUMNS": "100"}
    for command in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.code, re.MULTILINE):
        done = subprocess.run(
            command[1],
            shell=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        shown = Block("console", block.line, command[1], command[2])
        check_output(shown, f"{page}:{block.line}", done.stdout)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_page_run_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = EXAMPLES[name]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "console":
            run_console(block, page)
            continue
        if not is_possible(block):
            continue
        # Blank lines in front let a traceback point at the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            if block.kind == "py":  # such packages warn of what is no concern of ours
                warnings.simplefilter("ignore")
            exec(code, namespace)
        if block.output is not None:
            check_output(block, f"{page}:{block.line}", printed.getvalue())


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_examples_give_what_they_show(name: str) -> None:
    text = inspect.getdoc(OBJECTS[name])
    assert text
    # No names are given: an example imports what it uses, so that it can be copied.
    examples = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=LENIENT)
    assert not runner.run(examples, out=report.append).failed, "".join(report)


@pytest.mark.parametrize("name", ["omendb.Index", "omendb.neighbors.NearestNeighbors"])
def test_the_main_classes_show_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(OBJECTS[name]) or "")


def test_the_reference_has_every_public_name() -> None:
    listed: set[str] = set()
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        module, text = "", page.read_text(encoding="utf-8")
        for directive, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", text, re.MULTILINE):
            if directive == "currentmodule":
                module = name
            elif module in {m.__name__ for m in MODULES}:
                listed.add(f"{module}.{name}")
    public = {f"{m.__name__}.{n}" for m in MODULES for n in m.__all__ if not n.startswith("_")}
    assert listed == public
