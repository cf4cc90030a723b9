"""The Python examples of README.md and docs/: one reader for who runs them and who types them.

`tests/test_docs.py` runs each page from top to bottom. `make types` writes each page as a module
(`python tests/examples.py FOLDER`) and gives it to mypy and pyright: the modules keep the pages'
line numbers, so that a complaint about line 70 of docs_tutorial.py is one about docs/tutorial.md.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|py|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of one of these kinds.

    `python` is run, and `py` where what it imports is installed; `console` is run by a shell. A
    `text` block right below has the output.
    """

    kind: str
    line: int  # of its first line of code, from 1
    code: str
    output: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the examples of a page, each with the output that the page shows for it."""
    text = page.read_text(encoding="utf-8")
    found: list[re.Match[str] | None] = [*BLOCK.finditer(text), None]
    for match, following in pairwise(found):
        if match is None or match[1] == "text":
            continue
        output = None
        if following and following[1] == "text":
            between = text[match.end() : following.start()]
            output = following[2] if not between.strip() else None
        yield Block(match[1], text.count("\n", 0, match.start(2)) + 1, match[2], output)


def module(page: Path) -> str:
    """Return the Python code of a page, each line at its own number."""
    lines: list[str] = []
    for block in blocks(page):
        if block.kind == "python":
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def main(folder: Path) -> None:
    """Write the pages as modules into a folder, which then holds nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.py"):
        old.unlink()
    for page in PAGES:
        if code := module(page):
            name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
            (folder / f"{name}.py").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
