"""The one file that touches what asyncio keeps private.

asyncio knows the current task of a loop and all tasks of a loop; both registries have no public setter, and
uvloop has neither.  A fiber enters them only where asyncio code could look: while it awaits something.

Checked against CPython 3.11, 3.12 and 3.13; tests/unit/test_compat.py fails when one of these is gone.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
from asyncio.base_futures import isfuture as isfuture
from asyncio.events import _get_running_loop as get_running_loop
from asyncio.events import _set_running_loop as set_running_loop
from typing import Any

__all__ = [
    "enter_task",
    "get_running_loop",
    "isfuture",
    "leave_task",
    "register_task",
    "set_running_loop",
    "unregister_task",
]

#: ``enter_task(loop, task)``: it is the current task of the loop from now on; RuntimeError if another one is.
enter_task: Any = asyncio.tasks._enter_task
#: ``leave_task(loop, task)``: it is the current task no more.
leave_task: Any = asyncio.tasks._leave_task
#: ``register_task(task)``: ``asyncio.all_tasks`` lists it (weakly) while it is not done.
register_task: Any = asyncio.tasks._register_task
#: ``unregister_task(task)``: it lists it no more.
unregister_task: Any = asyncio.tasks._unregister_task
