"""Build the compiled modules: every ``.pyx`` below ``swapco/`` becomes one extension.

Everything else about the project is in ``pyproject.toml``.  Environment:

- ``SWAPCO_ANNOTATE=1`` writes Cython's annotated HTML beside each module;
- ``SWAPCO_CFLAGS`` appends to the compiler flags (for example ``-O0 -g``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

if not sys.platform.startswith("linux"):
    raise SystemExit("swapco needs Linux: it is built on futex(2) and epoll(7).")

ROOT = Path(__file__).parent
# greenlet installs its header inside the package; asking the imported package is the one way that
# holds for wheels, isolated builds and distribution packages alike.
GREENLET_INCLUDE = str(Path(greenlet.__file__).parent.parent)
CFLAGS = [
    "-O2",
    "-g0",  # a quarter of the time of a build; SWAPCO_CFLAGS=-g brings it back
    "-fno-semantic-interposition",
    "-fexceptions",  # forced_unwind.h
    "-fno-plt",  # a twelfth of a spawn went through the PLT
    "-Wno-unused-function",
    *os.environ.get("SWAPCO_CFLAGS", "").split(),
]


def extensions() -> list[Extension]:
    """One extension for each ``.pyx`` file, named after its place in the tree."""
    found = []
    for path in sorted((ROOT / "swapco").rglob("*.pyx")):
        relative = path.relative_to(ROOT)
        found.append(
            Extension(
                ".".join(relative.with_suffix("").parts),
                [str(relative)],
                include_dirs=[GREENLET_INCLUDE, "swapco/_core"],
                depends=[str(h.relative_to(ROOT)) for h in (ROOT / "swapco").rglob("*.h")],
                extra_compile_args=CFLAGS,
            )
        )
    return found


jobs = os.cpu_count() or 1
setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=jobs,
        annotate=bool(os.environ.get("SWAPCO_ANNOTATE")),
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "nonecheck": False,
            "cdivision": True,
            "embedsignature": True,
            "embedsignature.format": "python",
        },
    ),
    options={"build_ext": {"parallel": jobs}},
)
