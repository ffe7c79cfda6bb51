import os
from collections.abc import Iterable, Sequence

from .control import Strategy
from .schedule import Named, Schedule
from .trace import Chooser

class Random:
    def __init__(self, *seeds: int) -> None: ...

class Seeded(Strategy):
    seed: int | None
    def __init__(self, seed: int | None = None) -> None: ...

class RandomWalk(Seeded): ...
class URW(Seeded): ...

class PCT(Seeded):
    depth: int
    def __init__(self, depth: int = 3, seed: int | None = None) -> None: ...

class POS(Seeded): ...

class Chosen(Strategy):
    def __init__(self, chooser: Chooser) -> None: ...
    def follow(self, chooser: Chooser) -> None: ...

class Path(Strategy):
    diverged: int
    first_divergence: int
    def __init__(self, path: Sequence[int] = ()) -> None: ...
    def follow(self, path: Sequence[int]) -> None: ...
    @property
    def left(self) -> int: ...

class ByName(Strategy):
    def __init__(self, named: Iterable[Named]) -> None: ...
    @property
    def missed(self) -> list[str]: ...

class Replay(Strategy):
    schedule: Schedule
    def __init__(self, schedule: str | os.PathLike[str] | Schedule | Sequence[int]) -> None: ...

class Portfolio(Strategy):
    strategies: tuple[Strategy, ...]
    seed: int | None
    def __init__(self, *strategies: Strategy, seed: int | None = None) -> None: ...
    @property
    def exhaustive(self) -> bool: ...  # type: ignore[override]
    @property
    def footprints(self) -> bool: ...  # type: ignore[override]
