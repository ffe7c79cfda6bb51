"""Observers of running programs: re-exports only.

They subscribe from above: nothing below knows them, and a program that does not ask for one does not pay for it.
"""

from .watchdog import Blocked, Watchdog

__all__ = ["Blocked", "Watchdog"]
