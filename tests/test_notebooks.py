"""The notebooks: that they run as they are stored, and that they are stored as they ran.

What is stored can be checked by reading. Running needs Jupyter's packages, which `make test` does
not install: `make notebooks` does, and runs what is marked `notebook`. With OMENDB_WRITE=1 it also
stores what the run gave.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: Any) -> list[set[str]]:
    """Return for each cell the kinds of what it gave; text that scrolls by counts as one."""
    return [
        {kind for output in cell["outputs"] for kind in output.get("data", [output["output_type"]])}
        for cell in code_cells(notebook)
    ]


def test_there_are_five() -> None:
    assert NOTEBOOKS == ["choosing", "deduplicate", "pandas", "quickstart", "sklearn-umap"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_as_it_ran(name: str) -> None:
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = outputs(notebook)
    assert sum("image/png" in kind for kind in kinds) >= 1
    # What goes to standard error is no answer: a warning, or an error.
    assert not [o for c in cells for o in c["outputs"] if o.get("name") == "stderr"]
    assert not any("error" in kind for kind in kinds)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 600_000


@pytest.mark.notebook
@pytest.mark.filterwarnings("default")  # of Jupyter about itself
@pytest.mark.timeout(900)  # minutes on a machine that does other work as well
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    # By name, since mypy also runs where Jupyter is not installed.
    nbformat = importlib.import_module("nbformat")
    nbclient = importlib.import_module("nbclient")

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    stored = outputs(notebook)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises with the cell that raised
    if os.environ.get("OMENDB_WRITE"):
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran, which nobody reads
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    else:
        assert outputs(notebook) == stored
