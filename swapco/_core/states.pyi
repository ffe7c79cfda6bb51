from typing import NamedTuple

class Transition(NamedTuple):
    source: str
    to: str
    name: str
    cause: str

STATES: tuple[str, ...]
TRANSITIONS: tuple[Transition, ...]
