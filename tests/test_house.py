"""The rules of ARCHITECTURE.md that a compiler does not check.

The files are read as text: comments and string literals are blanked first, so that a rule about
code never trips over a sentence about it.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import omendb

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

# A module may import only what stands before it (lib.rs and its own folder aside).
ORDER = [
    "error",
    "metric",
    "random",
    "scratch",
    "kernels",
    "region",
    "threads",
    "rows",
    "codes",
    "top_k",
    "selection",
    "tally",
    "corpus",
    "exact",
    "graph",
    "file",
    "index",
    "table",
    "database",
    "capi",
    "python",
]

# Where a foreign crate may be named, so that replacing it touches those files only.
HOMES = {
    "pyo3": ("python",),
    "numpy": ("python",),
    "ndarray": ("rows.rs",),
    "smallvec": ("scratch.rs",),
    "faer": ("kernels/matmul.rs",),
    "libc": ("region.rs",),
    "memmap2": (
        "file/map.rs",
        "index/saved.rs",
    ),
    "arrow_array": ("file", "index/columns.rs", "table", "python", "lib.rs"),  # there, a measure
    "arrow_buffer": ("file", "table", "python"),
    "arrow_cast": ("table", "python"),
    "arrow_data": ("file", "table", "python"),
    "arrow_ipc": ("file", "index/columns.rs", "table"),  # there, its tests
    "arrow_schema": ("file", "index/columns.rs", "table", "python"),
    "arrow_select": ("table", "python"),
    "ahash": ("table",),
    "hashbrown": ("table/ids.rs",),
    "pyo3_arrow": ("python",),
    "flatbuffers": ("file/format.rs", "file/tests.rs"),
    "sqlparser": ("table/predicate/parse.rs",),
    "strsim": ("table/predicate/parse.rs",),
    "chrono": ("table/predicate/literal.rs",),
    "memchr": ("table/predicate.rs",),
}

# SIMD, memory borrowed from the caller, the boundaries where it is handed over and held, mapped
# files, records that are written while others are read, and the one pointer that makes the pool
# survive a fork.
UNSAFE_HOMES = (
    "kernels",
    "region.rs",
    "rows.rs",
    "threads.rs",
    "file/map.rs",
    "index/mod.rs",
    "index/saved.rs",
    "capi.rs",
    "python",
)

# What could run code hidden in data. Python's own `compile` of a pattern is a method, not this.
BANNED_IMPORTS = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
BANNED_CALLS = {"__import__", "compile", "eval", "exec"}

LARGEST_FILE_BYTES = 1_000_000

NOT_CODE = re.compile(
    r"""
    //[^\n]*                            # line comment
    | /\*.*?\*/                         # block comment
    | \br(\#*)".*?"\1                   # raw string
    | "(?:\\.|[^"\\])*"                 # string
    | '(?:\\[^\n]*?|[^'\\\n])'          # character, not a lifetime
    """,
    re.VERBOSE | re.DOTALL,
)


def code_of(source: str) -> str:
    """Return Rust source with comments and literals blanked, line numbers kept."""
    return NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)


def first_names(tree: str) -> list[str]:
    """Return the first name of each path in the use tree at the start of the text.

    ``a::b`` gives a; ``{a::{b, c}, d}`` gives a and d.
    """
    if not tree.startswith("{"):
        return re.findall(r"\A\w+", tree)
    names, depth = [], 0
    for token in re.finditer(r"[{},]|(?:\w+::)*\w+", tree):
        match token[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    break
            case ",":
                pass
            case path if depth == 1:
                names.append(path.split("::")[0])
    return names


def imports_of(path: Path, code: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module below the crate's root) for every path in a Rust file.

    An indented ``super::`` is left alone: it stands in an inner module and means the file itself.
    """
    depth = len(path.relative_to(SOURCE).with_suffix("").parts) - (path.name == "mod.rs")
    roots = rf"\bcrate::|(?m:^(?:pub(?:\(\w+\))? )?use (?:super::){{{depth}}}(?!super))"
    for found in re.finditer(roots, code):
        line = code.count("\n", 0, found.start()) + 1
        for name in first_names(code[found.end() :].lstrip()):
            yield line, name


def is_within(path: Path, homes: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(SOURCE / home) for home in homes)


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


RUST = {path: path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.rs"))}
CODE = {path: code_of(source) for path, source in RUST.items()}
PYTHON = sorted((ROOT / "omendb").glob("*.py"))


def test_each_rust_module_has_a_place_in_the_order_and_in_architecture_md() -> None:
    modules = {path.relative_to(SOURCE).parts[0].removesuffix(".rs") for path in RUST} - {"lib"}
    assert modules <= set(ORDER)
    described = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert not [name for name in modules if not re.search(rf"\b{name}(\.rs|/)", described)]


def test_a_rust_file_imports_only_what_stands_above_it() -> None:
    wrong = []
    for path, code in CODE.items():
        module = path.relative_to(SOURCE).parts[0].removesuffix(".rs")
        if module == "lib":
            continue
        above = ORDER[: ORDER.index(module) + 1]
        wrong += [
            f"{place(path, line)}: {module} may not import {name}"
            for line, name in imports_of(path, code)
            if name not in above
        ]
    assert not wrong


@pytest.mark.parametrize("crate", HOMES)
def test_a_foreign_crate_is_named_only_at_its_home(crate: str) -> None:
    wrong = [
        place(path, line)
        for path, code in CODE.items()
        if not is_within(path, HOMES[crate])
        for line, text in enumerate(code.splitlines(), start=1)
        if re.search(rf"\b{crate}\b", text)
    ]
    assert not wrong


def test_unsafe_stays_at_home_and_states_why_it_is_sound() -> None:
    wrong = []
    for path, code in CODE.items():
        lines = RUST[path].splitlines()
        for number, text in enumerate(code.splitlines()):
            if not re.search(r"\bunsafe\b", text):
                continue
            if not is_within(path, UNSAFE_HOMES):
                wrong.append(f"{place(path, number + 1)}: unsafe has no place in this file")
            if path.name == "capi.rs" and re.search(r"\bunsafe( extern| fn| trait|\()", text):
                continue  # the header's first comment is the contract of all
            # Clippy looks at each block more closely, but not at code for other processors.
            reason = "# Safety" if re.search(r"\bunsafe (extern|fn)\b", text) else "SAFETY:"
            before = lines[max(0, number - 25) : number + 1]
            if not any(reason in line or "SAFETY:" in line for line in before):
                wrong.append(f"{place(path, number + 1)}: unsafe without its {reason} text")
    assert not wrong


def project_files() -> list[Path]:
    """Return the files git tracks or would add, wherever this is a checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def test_nothing_is_compiled_for_the_machine_it_is_built_on() -> None:
    native = b"target-cpu=" + b"native"
    assert not [path for path in project_files() if native in path.read_bytes()]


def test_no_file_is_large() -> None:
    assert not [path for path in project_files() if path.stat().st_size > LARGEST_FILE_BYTES]


def test_the_package_root_holds_names_and_no_logic() -> None:
    body = ast.parse((ROOT / "omendb/__init__.py").read_text(encoding="utf-8")).body
    logic = [
        node.lineno
        for node in body[1:]  # the docstring
        if not isinstance(node, ast.ImportFrom | ast.Import)
        and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    ]
    assert ast.get_docstring(ast.Module(body, []))
    assert not logic


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_python_files_run_nothing_that_hides_in_data(path: Path) -> None:
    imported: set[str] = set()
    called: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                imported.update(name.name.split(".")[0] for name in names)
            case ast.ImportFrom(module=str(module)):
                imported.add(module.split(".")[0])
            case ast.Call(func=ast.Name(id=name)):
                called.add(name)
    assert not imported & BANNED_IMPORTS
    assert not called & BANNED_CALLS


def test_cargo_toml_alone_states_the_version() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert omendb.__version__ == cargo["package"]["version"]


def test_the_rules_see_what_they_forbid() -> None:
    code = code_of('// crate::a\nuse crate::{\n    b::{c, d},\n    e,\n};\nlet s = "crate::f";\n')
    assert list(imports_of(SOURCE / "x.rs", code)) == [(2, "b"), (2, "e")]
    assert list(imports_of(SOURCE / "x.rs", "use super::g::H;\n    use super::*;\n")) == [(1, "g")]
    assert not list(imports_of(SOURCE / "x/y.rs", "use super::z;\n"))
    assert list(imports_of(SOURCE / "x/y.rs", "use super::super::h;\n")) == [(1, "h")]
    assert code_of("fn f<'a>(x: &'a u8) { 'x' }").count("'") == 2
