from .fiber import Dispatcher
from .slot import ThreadStack

class LentStack(ThreadStack): ...

class Lender(Dispatcher):
    @property
    def switches(self) -> int: ...
