"""The demo: what it reads, what it answers, and how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

from omendb import __main__ as cli
from omendb import demo

SMALL = ("zip*.py", "zipfile/*.py", "*datetime.py", "zoneinfo/*.py", "textwrap.py", "stat*.py")

IMPORT = "import sys; from omendb import __main__ as cli, demo;"


def python(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard library of a few modules, so that the whole demo takes a second."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    for source in (path for name in SMALL for path in stdlib.glob(name)):
        target = tmp_path / source.relative_to(stdlib)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))


def test_sources_are_parsed_and_never_run(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text('"""Top."""\nraise SystemExit("was run")\n')
    (package / "good.py").write_text(
        'class Reader:\n    """Reads."""\n    def read(self):\n        """Read all."""\n'
        "    def plain(self): ...\n"
    )
    (package / "broken.py").write_text("def broken(:\n")
    (package / "binary.py").write_bytes(b"\x00\xff\xfe")
    (package / "tests").mkdir()
    (package / "tests" / "test_it.py").write_text('"""Tests are not for users."""\n')
    (tmp_path / "_pyio.py").write_text('"""Twin."""\n')
    texts = [text for found in demo.read_sources(tmp_path) for text in found]
    assert texts == [
        demo.Text("io", "Twin."),
        demo.Text("package", "Top."),
        demo.Text("package.good.Reader", "Reads."),
        demo.Text("package.good.Reader.read", "Read all."),
    ]


def test_modules_written_in_c_are_read_too() -> None:
    names = {text.name for found in demo.read_compiled() for text in found}
    assert {"math.gcd", "zlib.compress", "builtins.str.split", "itertools.chain"} <= names


def test_copies_and_repeated_names_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, doc in (("a", "Do it."), ("b", "Do it."), ("c", "Do more.")):
        (tmp_path / f"{name}.py").write_text(f'def work():\n    """{doc}"""\n' * 2)
    monkeypatch.setattr(demo, "COMPILED_MODULES", ())
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert [text.name for text in demo.read_texts(demo.Progress())] == ["a.work", "c.work"]
    monkeypatch.setattr(demo, "MAX_TEXTS", 1)
    assert [text.name for text in demo.read_texts(demo.Progress())] == ["a.work"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zipfile.ZipFile_open", ["zipfile", "zip", "file", "open"]),
        ("HTTPServer utf8 X", ["http", "server", "utf", "8", "x"]),
        ("Élan naïve über", ["élan", "naïve", "über"]),
        ("__ .-", []),
    ],
)
def test_words_split_names(text: str, expected: list[str]) -> None:
    assert demo.words(text) == expected


def test_ngrams_are_the_marked_word_and_its_pieces() -> None:
    assert demo.ngrams("a") == ["<a>"]
    assert demo.ngrams("zip") == ["<zip>", "<zi", "zip", "ip>", "<zip", "zip>"]
    assert all(
        len(set(demo.ngrams(word))) == len(demo.ngrams(word)) for word in ("file", "archives")
    )


def test_vectors_have_unit_length_and_near_texts_are_near() -> None:
    contents = ["open a zip archive", "opening of zip archives", "sine of an angle", "cosine"]
    vectors = demo.Embedding(contents)(contents)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, demo.DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    near = vectors @ vectors.T
    assert near[0, 1] > near[0, 2] + 0.1
    assert near[2, 3] > near[0, 3] + 0.1


def test_vectors_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import zlib; from omendb.demo import Embedding as E; c = ['read a file', 'a map'];"
        "print(zlib.crc32(E(c)(c).tobytes()))"
    )
    first, second = (
        subprocess.check_output(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": s}
        )
        for s in "12"
    )
    assert first == second


def test_the_numpy_rival_finds_the_nearest(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((300, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids, distances = demo.numpy_search(rows, rows[:200], 7)
    exact = 1 - rows[:200].astype(np.float64) @ rows.astype(np.float64).T
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :7], atol=1e-6)
    np.testing.assert_array_equal(ids[:, 0], np.arange(200))


@pytest.mark.usefixtures("small_library")
def test_the_demo_answers_and_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--k", "3"]) == 0
    out, err = capsys.readouterr()
    tables = out.split("\n\n")
    assert [table.splitlines()[0] for table in tables[1:4]] == list(demo.QUESTIONS)
    assert "  zipfile.Zip" in tables[1].splitlines()[1]
    assert "  datetime." in tables[2] or "  zoneinfo." in tables[2]
    assert "  math.gcd " in tables[3].splitlines()[1]
    assert all(len(table.splitlines()) == 4 for table in tables[1:4])
    assert tables[4].count(" queries per second") == 3
    counts = re.search(r"and ([\d,]+) of the ([\d,]+) distances agree", tables[4])
    assert counts is not None
    assert counts[1] == counts[2]
    assert "reading docstrings\n" in err
    assert "\r" not in err


@pytest.mark.usefixtures("small_library")
def test_the_demo_tells_programs_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--json", "--query", "greatest common divisor", "--k", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (answer,) = facts["answers"]
    assert answer["query"] == "greatest common divisor"
    assert answer["answers"][0]["name"] == "math.gcd"
    assert answer["answers"][0]["distance"] <= answer["answers"][1]["distance"]
    measured = facts["measured"]
    assert measured["rows"] + measured["queries"] == facts["texts"]
    assert measured["equal_distances"] == measured["distances"] == 2 * measured["queries"]
    assert 0.9 < measured["recall"] <= 1
    assert all(value > 0 for key, value in measured.items() if key.endswith("seconds"))


@pytest.mark.usefixtures("small_library")
def test_the_demo_takes_questions_and_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["demo", "--query", "wrap a\nparagraph", "--query", "median", "--k", "2"]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    assert [table.splitlines()[0] for table in tables[1:3]] == ["wrap a paragraph", "median"]
    assert "textwrap" in tables[1]
    assert "statistics.median" in tables[2]
    assert all(len(line) <= 60 for table in tables[1:3] for line in table.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--k", "0"], "expected a whole number of at least 1, got '0'"),
        (["demo", "--k", "2.5"], "expected a whole number of at least 1, got '2.5'"),
        (["demo", "--k", "²"], "expected a whole number of at least 1, got '²'"),
        (["demo", "--query", " ?"], "expected at least one word, got ' ?'"),
        (["demo", "zip"], "unrecognized arguments: zip"),
    ],
)
def test_bad_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_the_commands() -> None:
    process = python("-m", "omendb", "--help")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "demo" in out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one child")
def test_ctrl_c_ends_quietly() -> None:
    # A shell's background job, as this test may be, starts its children deaf to SIGINT.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    process = python("-c", f"{listen} {IMPORT} sys.exit(cli.main(['demo']))")
    assert process.stderr is not None
    assert process.stderr.readline() == "reading docstrings\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_closes_early_sees_no_traceback() -> None:
    process = python("-c", f"{IMPORT} demo.MAX_FILES = 30; sys.exit(cli.main(['demo']))")
    assert process.stdout is not None
    process.stdout.close()  # as in `python -m omendb demo | head`
    assert process.wait() == 141
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.slow
def test_the_whole_demo_gives_sensible_answers_in_time() -> None:
    start = time.perf_counter()
    process = python("-m", "omendb", "demo")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert time.perf_counter() - start < 60
    tables = out.split("\n\n")
    assert "  zipfile." in tables[1].splitlines()[1]
    assert "  datetime." in tables[2] or "  zoneinfo." in tables[2]
    assert "  math.gcd " in tables[3].splitlines()[1]
