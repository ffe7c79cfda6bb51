from .fiber import Dispatcher
from .slot import ThreadStack

class LentStack(ThreadStack): ...

class Lender(Dispatcher):
    @property
    def detached(self) -> int: ...
    @property
    def switches(self) -> int: ...
