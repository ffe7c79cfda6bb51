"""Bugs that the model of the slot can have, each the name of a broken step in ``slot_model``."""

from __future__ import annotations

# the bug, and what the counterexample says
MUTANTS = {
    # the word
    "enter is a load and a store": "home runs, and the slot is 1's",
    "revokes in SCHED mode": "is inside the scheduler, and the slot is 0's, REVOKED",
    "notice is a store": "is inside the scheduler, and the slot is 0's",
    "who loses the notice thinks that it has the slot": "home runs, and the slot is 1's",
    "take_back does not compare the generation": "the slot is 1's",
    "a revocation does not wake home": "home is stuck at 'asleep'",
    # sleep and wake
    "wake before grant": "home is stuck at 'asleep'",
    "no look after sleeping = 1": "home is stuck at 'asleep'",
    "the counter is loaded after the look": "home is stuck at 'asleep'",
    "a wake does not add to the counter": "home is stuck at 'asleep'",
    # the inbox and the hub
    "no look after hub_idle": "home sleeps, and there is work",
    "noted is cleared before the eventfd is read": "home sleeps, and there is work",
    "the drain does not look at the wait": "runs again, and its wait is open",
    "who wins from outside does not post": "its wait is won by resume",
    # tokens and cancellations
    "the token is left after a claim that failed": "beside its token",
    "no look at the token after the open": "beside its token",
    "the canceller wins the wait and does not post": "its wait is won by cancel",
    # detached fibers and their workers
    "asks for the slot without a post": "is left behind, detached",
    "posts before it says what it wants": "is left behind, detached",
    "a detached fiber finishes itself": "changes the scheduler's state without the slot",
    "who is told to end looks at the word alone": "was given the slot and has no fiber to run",
    "an ended worker is used again before the drain": "B calls end and is running",
}
