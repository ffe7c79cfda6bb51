"""Redis' glob patterns: `*`, `?`, `[abc]`, `[a-z]`, `[^a]`, and a backslash that makes the next byte plain.

A pattern becomes a regular expression. Each star is an *atomic* lazy group up to the text that must follow:
a group that has matched is never reconsidered, which glob patterns do not need, so that a hostile pattern
(`*a*a*a*a*b`) costs a few scans of the text instead of exponential time.
"""

import re
from functools import lru_cache


@lru_cache(maxsize=256)
def compile_glob(pattern: bytes) -> re.Pattern[bytes]:
    """Use its `fullmatch`."""
    segments: list[bytes] = [b""]  # what stands between the stars
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        position += 1
        if char == b"*":
            segments.append(b"")
        elif char == b"?":
            segments[-1] += b"."
        elif char == b"[":
            expression, position = _bracket(pattern, position)
            segments[-1] += expression
        else:
            if char == b"\\" and position < len(pattern):
                char = pattern[position : position + 1]
                position += 1
            segments[-1] += re.escape(char)
    first, *others = segments
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    jumps = b"".join(b"(?>.*?%b)" % segment for segment in middle if segment)
    return re.compile(b"%b%b.*%b" % (first, jumps, last), re.DOTALL)


def _bracket(pattern: bytes, position: int) -> tuple[bytes, int]:
    """The expression for the bracket that opened just before `position`, and where it ends.

    As in Redis, a bracket that is never closed ends with the pattern, and a range may run backwards.
    """
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    size = len(pattern)
    while position < size and pattern[position : position + 1] != b"]":
        if pattern[position : position + 1] == b"\\" and position + 1 < size:
            members.add(pattern[position + 1])
            position += 2
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < size:
            low, high = sorted((pattern[position], pattern[position + 2]))
            members.update(range(low, high + 1))
            position += 3
        else:
            members.add(pattern[position])
            position += 1
    if not members:
        return (b"." if negated else b"(?!)"), position + 1
    choice = b"".join(re.escape(bytes([member])) for member in sorted(members))
    return b"[%b%b]" % (b"^" if negated else b"", choice), position + 1
