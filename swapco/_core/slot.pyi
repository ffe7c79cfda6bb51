from typing import NamedTuple

from .policy import Runnable
from .switch import Stack

class SlotTransition(NamedTuple):
    name: str
    owner_before: str
    mode_before: str
    owner_after: str
    mode_after: str
    actor: str
    how: str
    cause: str

DEFAULT_WORKERS: int
MODES: tuple[tuple[str, str], ...]
TRANSITIONS: tuple[SlotTransition, ...]

class Host: ...
class Postable(Runnable): ...
class ThreadStack(Stack): ...
class Controller: ...

class Worker:
    ident: int
    native_id: int
    home: bool

class Slot:
    home: Worker | None
    max_workers: int
    sentinel: bool
    tick: float
    def __init__(
        self,
        *,
        pin: bool | None = None,
        max_workers: int | None = None,
        sentinel: bool | None = None,
        tick: float = 0.001,
    ) -> None: ...
    @property
    def lends(self) -> int: ...
    @property
    def handoffs(self) -> int: ...
    @property
    def workers(self) -> tuple[Worker, ...]: ...
    @property
    def owner(self) -> Worker | None: ...
    @property
    def pinned_cpu(self) -> int | None: ...
    def statistics(self) -> dict[str, float]: ...
