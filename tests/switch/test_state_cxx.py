"""An exception of C++ that is being handled belongs to the fiber that handles it.

The C++ runtime keeps, for each kernel thread, a list of the exceptions in whose ``catch`` blocks the thread is, and how
many are in flight (Itanium C++ ABI, ``__cxa_get_globals``). An extension module may call back into Python from such
a block, and the Python code may wait. Here the two words are written by hand, as a ``catch`` block would.
"""

from __future__ import annotations

import ctypes

import swapco


def test_what_cxx_handles_stays_with_the_fiber() -> None:
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_get_globals.restype = ctypes.POINTER(ctypes.c_size_t)

    def words() -> tuple[int, int]:
        found = library.__cxa_get_globals()
        return found[0], found[1] & 0xFFFF_FFFF

    def fiber(number: int) -> None:
        library.__cxa_get_globals()[0] = number
        ctypes.cast(library.__cxa_get_globals(), ctypes.POINTER(ctypes.c_uint32))[2] = number
        for _ in range(10):
            swapco.sleep(0)
            assert words() == (number, number)
        library.__cxa_get_globals()[0] = 0
        ctypes.cast(library.__cxa_get_globals(), ctypes.POINTER(ctypes.c_uint32))[2] = 0

    def looks() -> None:
        for _ in range(20):
            assert words() == (0, 0)
            swapco.sleep(0)

    def main() -> None:
        before = words()
        swapco.gather(*[lambda n=n: fiber(n) for n in range(1, 6)], looks)
        assert words() == before == (0, 0)

    swapco.run(main, switch="native")
