"""The README and the docstrings are tests: every example in them runs as written."""

import doctest
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import omendb
import omendb.neighbors

README = Path(__file__).resolve().parents[1] / "README.md"

# Only the environment of `make test-adapters` has these frameworks.
ADAPTERS = {"omendb.langchain": "langchain_core", "omendb.haystack": "haystack"}
ABSENT = [name for name, needs in ADAPTERS.items() if importlib.util.find_spec(needs) is None]
MODULES = [omendb, omendb.neighbors] + [
    importlib.import_module(name) for name in ADAPTERS if name not in ABSENT
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
                for member, definition in vars(value).items():
                    if not member.startswith("_"):
                        yield f"{module.__name__}.{name}.{member}", definition


OBJECTS = dict(public_objects())


def test_the_readme_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "readme"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    for block in blocks:
        if any(name in block[1] for name in ABSENT):
            continue
        # Blank lines in front let a traceback point at the line of the README.
        before = text.count("\n", 0, block.start(1))
        exec(compile("\n" * before + block[1], README, "exec"), namespace)


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_examples_give_what_they_show(name: str) -> None:
    text = inspect.getdoc(OBJECTS[name])
    assert text
    # No names are given: an example imports what it uses, so that it can be copied.
    examples = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not runner.run(examples, out=report.append).failed, "".join(report)


@pytest.mark.parametrize("name", ["omendb.Index", "omendb.neighbors.NearestNeighbors"])
def test_the_main_classes_show_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(OBJECTS[name]) or "")
