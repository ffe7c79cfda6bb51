"""The table of states.h as Python data: for docs, tests and reports.

``STATES`` lists the names in the order of the C enum; ``TRANSITIONS`` has one ``Transition`` a row.
"""

from typing import NamedTuple


class Transition(NamedTuple):
    """One legal step of a fiber: ``source`` → ``to``, under a name, with what causes it."""

    source: str
    to: str
    name: str
    cause: str


STATES: tuple = tuple([swapco_state_names[i].decode() for i in range(N_STATES)])

TRANSITIONS: tuple = tuple([
    Transition(
        STATES[swapco_transition_table[i].source],
        STATES[swapco_transition_table[i].to],
        swapco_transition_table[i].name.decode(),
        swapco_transition_table[i].cause.decode(),
    )
    for i in range(SWAPCO_N_TRANSITIONS)
])
