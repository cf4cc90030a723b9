"""How Sphinx builds the site: `make docs`.

Sphinx, because its autodoc reads the docstrings that live in Rust from the compiled module itself;
tools that read Python sources find nothing there. Nothing is executed here but the figures: the
examples of pages and docstrings are run by `tests/test_docs.py`, notebooks by `make notebooks`.
"""

import datetime
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from matplotlib import rc_params_from_file

import omendb

HERE = Path(__file__).parent
ROOT = HERE.parent
NOTEBOOKS = ROOT / "notebooks"
# Sphinx takes pages from one folder. A symbolic link would do, but links through it are not found.
shutil.copytree(NOTEBOOKS, HERE / "notebooks", dirs_exist_ok=True)

project = "omendb"
author = "the omendb authors"
project_copyright = f"{datetime.date.today().year}, {author}"
version = release = omendb.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_nb",
    "matplotlib.sphinxext.plot_directive",
]
exclude_patterns = ["figures", "**.ipynb_checkpoints"]

html_math_renderer = "mathml"  # see below
html_theme = "furo"
html_title = f"omendb {version}"
html_static_path = ["static"]
html_css_files = ["omendb.css"]
html_show_sphinx = False

# A name in single backticks of a docstring is a link where there is such a thing.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["haystack", "langchain_core"]  # adapters are documented without them
autodoc_typehints = "none"  # numpydoc's sections have them, with shapes
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # stored executed
nb_merge_streams = True

plot_formats = [("svg", 100)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_apply_rcparams = True
plot_rcparams = dict(
    rc_params_from_file(ROOT / "omendb" / "neutral.mplstyle", use_default_template=False)
)


def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep a shape such as (n_samples_fit_, 3) from being read as a link to `n_samples_fit`."""
    lines[:] = [re.sub(r"(?<=[( ])(n_\w+)_(?=[,)])", r"\1\_", line) for line in lines]


def write_math(page: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML: browsers draw it themselves, without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    markup = tex2mathml(node.astext(), as_block=block)
    page.body.append(f'<div class="math">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Read docstrings before numpydoc does; write formulas."""
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
