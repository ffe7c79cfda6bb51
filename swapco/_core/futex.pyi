from typing import Final, NamedTuple, final

BLOCKED: Final[int]
RUNNING: Final[int]
QUEUED: Final[int]

class Transition(NamedTuple):
    step: str
    before: int
    after: int
    outcome: str

TRANSITIONS: Final[tuple[Transition, ...]]

@final
class FutexWord:
    def __init__(self) -> None: ...
    def wait(self, timeout: float | None = None) -> None: ...
    def wake(self) -> bool: ...
    def swap(self, target: FutexWord, timeout: float | None = None) -> None: ...
    @property
    def value(self) -> int: ...
