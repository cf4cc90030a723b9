"""The C ABI: programs in C and C++ against what `make capi` installed, and ctypes from Python.

`make test` builds and installs the library first. The programs lie in `tests/capi`; each runs
plainly, with the address and undefined-behaviour sanitizers, and under valgrind where that is
installed.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import omendb

ROOT = Path(__file__).resolve().parents[1]
PREFIX = ROOT / ".cache" / "capi"
PROGRAMS = ROOT / "tests" / "capi"
STRICT = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
HOSTILE_CALLS = 1_000_000

CC = os.environ.get("CC", "cc")
CXX = os.environ.get("CXX", "c++")
installed = pytest.mark.skipif(
    not (PREFIX / "lib" / "pkgconfig" / "omendb.pc").exists(),
    reason="the C library is not installed: run `make capi`",
)


def pkg_config(*arguments: str) -> list[str]:
    """Return what pkg-config says of omendb, or what omendb.pc says where there is none."""
    folder = PREFIX / "lib" / "pkgconfig"
    if command := shutil.which("pkg-config"):
        environment = os.environ | {"PKG_CONFIG_PATH": str(folder)}
        said = subprocess.run(
            [command, *arguments, "omendb"],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return said.stdout.split()
    text = (folder / "omendb.pc").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^(Cflags|Libs): (.*)$", text, re.MULTILINE))
    wanted = [entries[key] for key in ("Cflags", "Libs") if f"--{key.lower()}" in arguments]
    return " ".join(wanted).replace("${prefix}", str(PREFIX)).split()


def build(tmp_path: Path, source: Path, *flags: str) -> Path:
    compiler, standard = (CXX, "c++17") if source.suffix == ".cpp" else (CC, "c99")
    program = tmp_path / source.stem
    subprocess.run(
        [
            *(compiler, f"-std={standard}", *STRICT, *flags, str(source), "-o", str(program)),
            *pkg_config("--cflags", "--libs"),
            *(f"-Wl,-rpath,{PREFIX / 'lib'}", "-lm", "-pthread"),
        ],
        check=True,
    )
    return program


def run(command: list[str | Path], **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sanitizers(tmp_path: Path) -> list[str]:
    """Return the flags, if this compiler has the sanitizers."""
    source = tmp_path / "empty.c"
    source.write_text("int main(void) { return 0; }\n", encoding="utf-8")
    command = [CC, *SANITIZE, str(source), "-o", str(tmp_path / "empty")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this compiler has no sanitizers")
    return SANITIZE


@installed
@pytest.mark.parametrize("name", ["every_function.c", "threads.cpp"])
@pytest.mark.parametrize("way", ["plain", "sanitized", "valgrind"])
def test_a_program_works_and_leaks_nothing(tmp_path: Path, name: str, way: str) -> None:
    before: list[str | Path] = []
    if way == "valgrind":
        if not shutil.which("valgrind"):
            pytest.skip("valgrind is not installed")
        if name == "threads.cpp":
            pytest.skip("valgrind runs one thread at a time, which takes minutes")
        lost = "definite,indirect"  # the pool's threads are never ended
        before = ["valgrind", "--quiet", "--leak-check=full", "--error-exitcode=9"]
        before += [f"--show-leak-kinds={lost}", f"--errors-for-leak-kinds={lost}"]
    flags = sanitizers(tmp_path) if way == "sanitized" else []
    program = build(tmp_path, PROGRAMS / name, *flags)
    argument = "1" if way == "valgrind" else "20"
    if name == "every_function.c":
        argument = str(tmp_path / "x.omen")
    assert run([*before, program, argument])


@installed
def test_a_program_in_cplusplus_may_be_the_same_as_in_c(tmp_path: Path) -> None:
    source = tmp_path / "header.cpp"
    source.write_text(
        "#include <omendb.h>\n#include <omendb.h>\n"
        "int main() { omen_options a = OMEN_OPTIONS_INIT; omen_search_options b = "
        "OMEN_SEARCH_OPTIONS_INIT; omen_graph_options c = OMEN_GRAPH_OPTIONS_INIT; "
        "omen_recall_report d = OMEN_RECALL_REPORT_INIT; omen_statistics e = "
        "OMEN_STATISTICS_INIT; return !(a.size && b.size && c.size && d.size && e.size); }\n",
        encoding="utf-8",
    )
    run([build(tmp_path, source)])


@installed
def test_a_million_hostile_calls_end_in_a_status(tmp_path: Path) -> None:
    program = build(tmp_path, PROGRAMS / "hostile.c", *sanitizers(tmp_path))
    seed = os.environ.get("OMENDB_TEST_SEED", "1")
    told = run([program, str(HOSTILE_CALLS), seed, tmp_path / "x.omen"])
    counts = [int(count) for count in told.split(":")[1].split()[:8]]
    assert sum(counts) > HOSTILE_CALLS // 2
    assert all(counts[:5])  # of each status that random calls can reach


@installed
def test_the_library_exports_the_functions_of_the_header_and_no_others() -> None:
    lines = (ROOT / "include" / "omendb.abi").read_text(encoding="utf-8").splitlines()
    declared = {name[1] for line in lines if (name := re.match(r"[^(]*\b(omen_\w+)\(", line))}
    library = ctypes.CDLL(str(next((PREFIX / "lib").glob("libomendb.*[!a]"))))
    assert len(declared) > 20
    assert all(hasattr(library, name) for name in declared)
    if not (nm := shutil.which("nm")) or sys.platform != "linux":
        return
    listed = run([nm, "-D", "--defined-only", PREFIX / "lib" / "libomendb.so"])
    assert {line.split()[-1] for line in listed.splitlines()} == declared


@installed
def test_pkg_config_tells_the_version_and_the_installed_header_is_the_committed_one() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    text = (PREFIX / "lib" / "pkgconfig" / "omendb.pc").read_text(encoding="utf-8")
    assert f"Version: {cargo['package']['version']}\n" in text
    committed = (ROOT / "include" / "omendb.h").read_bytes()
    assert (PREFIX / "include" / "omendb.h").read_bytes() == committed
    assert Path(omendb.get_include(), "omendb.h").read_bytes() == committed


@installed
@pytest.mark.parametrize("page", ["README.md", "docs/how-to/c-and-rust.md"])
def test_the_example_of_a_page_runs_in_c(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (example,) = re.findall(r"^```c\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    source = tmp_path / "example.c"
    source.write_text(example, encoding="utf-8")
    program = build(tmp_path, source)
    done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=True)
    if page == "README.md":
        assert done.stdout.splitlines() == ["2 at 0.000", "0 at 0.293"]
    else:
        assert f"It prints\n\n```text\n{done.stdout}```" in text


def test_ctypes_calls_the_library_inside_the_wheel_on_arrays_without_copying() -> None:
    library = ctypes.CDLL(omendb.get_library())
    library.omen_last_error.restype = ctypes.c_char_p
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 24), dtype=np.float32)
    queries = rng.standard_normal((7, 24), dtype=np.float32)
    ids = np.empty((7, 5), np.int64)
    distances = np.empty((7, 5), np.float64)
    counts = np.empty(7, np.uint64)

    def pointer(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    index = ctypes.c_void_p()
    size = ctypes.c_uint64
    assert library.omen_create(size(24), None, ctypes.byref(index)) == 0
    assert library.omen_borrow(index, pointer(vectors), size(500), None) == 0

    def search() -> None:
        status = library.omen_search(
            index,
            pointer(queries),
            size(7),
            size(5),
            None,
            pointer(ids),
            pointer(distances),
            pointer(counts),
        )
        assert status == 0, library.omen_last_error()

    search()
    hits = omendb.Index(vectors).search(queries, k=5)
    np.testing.assert_array_equal(ids, hits.ids)
    np.testing.assert_array_equal(distances.astype(np.float32), hits.distances)
    assert (counts == 5).all()
    # Nothing was copied: what is written to the array is what the verdict reads.
    nearest = int(ids[0, 0])
    vectors[nearest] = queries[0]
    search()
    assert (ids[0, 0], distances[0, 0]) == (nearest, 0.0)
    assert library.omen_add(index, None, size(1), None) == 2
    assert library.omen_last_error() == b"expected 1 vectors, got NULL"
    assert library.omen_free(index) == 0
    assert library.omen_free(index) == 1
