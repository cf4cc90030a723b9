"""Where the C ABI is: for ctypes, cffi, Numba and Cython, as NumPy and pyarrow have it.

The extension module exports the symbols of ``omendb.h``, so nothing else needs to be installed, and
an index made in C lives beside those of Python. Calls through ctypes release Python's lock.
"""

import os

from . import _core

__all__ = ["get_include", "get_library"]


def get_include() -> str:
    """Return the folder of the header ``omendb.h``.

    Returns
    -------
    str
        For a C compiler's ``-I``.

    Examples
    --------
    >>> import omendb, pathlib
    >>> pathlib.Path(omendb.get_include(), "omendb.h").exists()
    True
    """
    return os.path.join(os.path.dirname(__file__), "include")


def get_library() -> str:
    """Return the path of the shared library that has the ``omen_*`` symbols.

    Returns
    -------
    str
        For ``ctypes.CDLL`` and its like: the extension module itself.

    Examples
    --------
    >>> import ctypes, omendb
    >>> library = ctypes.CDLL(omendb.get_library())
    >>> library.omen_version.restype = ctypes.c_char_p
    >>> library.omen_version().decode() == omendb.__version__
    True
    """
    return _core.__file__
