from .policy import Runnable

class Postable(Runnable): ...

class Worker:
    ident: int
    native_id: int
    home: bool

class Slot:
    home: Worker | None
    @property
    def workers(self) -> tuple[Worker, ...]: ...
    @property
    def owner(self) -> Worker | None: ...
