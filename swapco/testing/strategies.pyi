from collections.abc import Sequence

from .control import Strategy
from .trace import Chooser

class Random:
    def __init__(self, *seeds: int) -> None: ...

class Seeded(Strategy):
    seed: int
    def __init__(self, seed: int = 0) -> None: ...

class RandomWalk(Seeded): ...
class URW(Seeded): ...

class PCT(Seeded):
    depth: int
    def __init__(self, depth: int = 3, seed: int = 0) -> None: ...

class POS(Seeded): ...

class Chosen(Strategy):
    def __init__(self, chooser: Chooser) -> None: ...

class Path(Strategy):
    diverged: int
    first_divergence: int
    def __init__(self, path: Sequence[int] = ()) -> None: ...
    @property
    def left(self) -> int: ...

class Portfolio(Strategy):
    strategies: tuple[Strategy, ...]
    def __init__(self, *strategies: Strategy, seed: int = 0) -> None: ...
