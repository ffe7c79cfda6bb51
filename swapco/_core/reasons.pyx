"""What a blocked fiber can wait for: the closed list, with the words that reports use.

``{}`` stands for the object that the fiber waits for.
"""

cdef tuple _WORDS = (
    "",
    "block(), until it is resumed",
    "switch_to(), until it is resumed",
    "{}",
    "sleep()",
    "the end of {}",
    "{}",
    "{}",
    "a notification of {}",
    "{}",
    "an item from {}",
    "room in {}",
    "all items of {} to be done",
    "the fibers of {}",
    "{} to become readable",
    "{} to become writable",
    "{}",
)
assert len(_WORDS) == N_REASONS


def describe(reason: int, target: object) -> str:
    """The wait in words: "an item from <Queue ...>"."""
    if target is None:
        words = "something"
    elif hasattr(type(target), "wait_reason"):
        # a fiber: what that one waits for is another story, and might lead back to this one
        words = f"fiber {target.name!r}"
    else:
        words = repr(target)
    return _WORDS[reason].format(words)
