r"""The Redis serialisation protocol, version 2 (RESP2): requests in, replies out. No I/O in here.

A request is an array of byte strings:

    *2\r\n $3\r\n GET\r\n $4\r\n name\r\n        (without the blanks)

or one *inline* line, words parted by blanks, as one types it into telnet: `GET name\r\n`.

`Parser` takes the byte stream in any pieces and gives the complete requests. There are two ways through it:

- The quick one splits the chunk at its line ends. In nearly all traffic headers and arguments then alternate,
  and all that is left to do is to look up each header and compare a length. It takes half the time.
- The careful one takes over where that pattern ends: at an incomplete request, an argument that contains a
  line end, a large one, an inline request, an error. It searches forward with an index.

What they must stand up to:

- a request that trickles in byte by byte: parsed arguments are kept, never parsed twice;
- an argument of many MiB: its chunks are collected, and joined only once the last one is there;
- lengths that lie: every size has a limit, checked before memory is spent on it;
- garbage: `error` says what was wrong with the stream. It cannot be trusted any further, and the connection
  must be closed after the requests before the error were answered and the client was told.

A reply is built by one of the small functions at the end. They all return bytes.
"""

from collections.abc import Iterable

Request = list[bytes]

MAX_LINE = 64 * 1024  # an inline request, or the header of a length
MAX_ARGUMENTS = 1024 * 1024
MAX_BULK = 64 * 1024 * 1024  # one argument
MAX_REQUEST = 2 * MAX_BULK  # all arguments of one request, with their headers

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

CRLF = b"\r\n"

# The headers that make up nearly all traffic: looking one up is faster than parsing its digits.
_ARRAY_HEADERS = {b"*%d" % count: count for count in range(1, 64)}
_BULK_HEADERS = {b"$%d" % length: length for length in range(1024)}

_STAR = ord("*")
_DOLLAR = ord("$")


class _ProtocolError(Exception):
    """The byte stream is no RESP2."""


class Parser:
    """Turns a byte stream, fed in chunks of any size, into requests."""

    def __init__(self) -> None:
        self.error: str | None = None
        """What made the stream unreadable; after that `feed` ignores its input."""
        self._chunks: list[bytes] = []  # received, not parsed yet
        self._held = 0  # bytes in _chunks
        self._wanted = 0  # parsing is of no use below this many bytes
        self._arguments: Request = []  # of the request that is incomplete
        self._missing = 0  # arguments that it still lacks; 0 between two requests
        self._parsed = 0  # bytes of it that were parsed

    def feed(self, data: bytes) -> list[Request]:
        """The requests that `data` completes, in order. Look at `error` after them."""
        requests: list[Request] = []
        if self.error is not None:
            return requests
        try:
            if self._chunks or self._missing:
                self._chunks.append(data)
                self._held += len(data)
                if self._held < self._wanted:
                    return requests
                data = self._parse(b"".join(self._chunks), requests, until_one=True)
            if data:
                data = _parse_plain(data, requests)
            if data:
                self._parse(data, requests, until_one=False)
        except _ProtocolError as error:
            self.error = f"Protocol error: {error}"
            self._chunks.clear()
            self._arguments = []
        return requests

    def _parse(self, buffer: bytes, requests: list[Request], *, until_one: bool) -> bytes:
        """The careful way. Returns what it has not looked at, because one request was enough."""
        size = len(buffer)
        position = 0  # of the first byte that is not parsed yet
        origin = -self._parsed  # where the current request began, seen from this buffer
        wanted = 0
        arguments, missing = self._arguments, self._missing
        find = buffer.find
        while position < size and not (until_one and requests):
            if not missing:
                origin = position
                if buffer[position] != _STAR:
                    end = find(b"\n", position)
                    if (size if end < 0 else end) - position > MAX_LINE:
                        raise _ProtocolError("too big inline request")
                    if end < 0:
                        break
                    if words := split_inline(buffer[position:end]):
                        requests.append(words)
                    position = end + 1
                    continue
                end = find(CRLF, position)
                if end < 0:
                    _check_header(size - position, "mbulk count")
                    break
                missing = _array_length(buffer[position:end])
                position = end + 2
                arguments = []
            while missing:
                end = find(CRLF, position)
                if end < 0:
                    _check_header(size - position, "bulk count")
                    break
                start = end + 2
                stop = start + _bulk_length(buffer[position:end])
                if stop + 2 > size:
                    wanted = stop + 2 - position
                    break
                arguments.append(buffer[start:stop])
                position = stop + 2
                missing -= 1
            if missing:
                if position - origin + wanted > MAX_REQUEST:
                    raise _ProtocolError("too big request")
                break
            if arguments:
                requests.append(arguments)
                arguments = []
        rest = buffer[position:]
        self._arguments, self._missing, self._wanted = arguments, missing, wanted
        self._parsed = position - origin if missing else 0
        if until_one and requests:
            self._chunks, self._held = [], 0
            return rest
        self._chunks, self._held = [rest] if rest else [], len(rest)
        return b""


def _parse_plain(buffer: bytes, requests: list[Request]) -> bytes:
    """The quick way. Returns the rest, from the first request on that does not suit it."""
    pieces = buffer.split(CRLF)
    tail = pieces.pop()  # the line that has not ended yet
    lines = iter(pieces)
    take = lines.__next__
    done = 0
    try:
        for header in lines:
            count = _ARRAY_HEADERS[header]
            arguments = []
            for _ in range(count):
                length = _BULK_HEADERS[take()]
                argument = take()
                if len(argument) != length:
                    raise KeyError
                arguments.append(argument)
            requests.append(arguments)
            done += 2 * count + 1
    except (StopIteration, KeyError):
        pass
    return CRLF.join((*pieces[done:], tail)) if done < len(pieces) else tail


def _check_header(length: int, what: str) -> None:
    if length > MAX_LINE:
        raise _ProtocolError(f"too big {what} string")


def _array_length(header: bytes) -> int:
    _check_header(len(header), "mbulk count")
    length = to_int64(header[1:])
    if length is None or length > MAX_ARGUMENTS:
        raise _ProtocolError("invalid multibulk length")
    return max(length, 0)


def _bulk_length(header: bytes) -> int:
    _check_header(len(header), "bulk count")
    if not header or header[0] != _DOLLAR:
        raise _ProtocolError(f"expected '$', got '{printable(header[:1])}'")
    length = to_int64(header[1:])
    if length is None or not 0 <= length <= MAX_BULK:
        raise _ProtocolError("invalid bulk length")
    return length


_BLANKS = b" \t\r\n\v\f"
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_HEX = b"0123456789abcdefABCDEF"


def split_inline(line: bytes) -> Request:
    """The words of an inline request; "double quotes" know escapes, 'single quotes' only \\'."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    words: Request = []
    position, size = 0, len(line)
    while position < size:
        if line[position] in _BLANKS:
            position += 1
            continue
        word = bytearray()
        while position < size and line[position] not in _BLANKS:
            char = line[position : position + 1]
            if char in (b'"', b"'"):
                position = _unquote(line, position + 1, char, word)
            else:
                word += char
                position += 1
        words.append(bytes(word))
    return words


def _unquote(line: bytes, position: int, quote: bytes, word: bytearray) -> int:
    """Appends the quoted text that starts at `position` to `word`; returns where it ended."""
    while char := line[position : position + 1]:
        if char == quote:
            position += 1
            if position < len(line) and line[position] not in _BLANKS:
                break
            return position
        follower = line[position + 1 : position + 2]
        digits = line[position + 2 : position + 4]
        if char != b"\\" or not follower or (quote == b"'" and follower != b"'"):
            word += char
            position += 1
        elif quote == b'"' and follower == b"x" and len(digits) == 2 and all(d in _HEX for d in digits):
            word.append(int(digits, 16))
            position += 4
        else:
            word += _ESCAPES.get(follower, follower) if quote == b'"' else follower
            position += 2
    raise _ProtocolError("unbalanced quotes in request")


def to_int64(raw: bytes) -> int | None:
    """The number that `raw` is the canonical decimal form of, or None."""
    try:
        value = int(raw) if len(raw) <= 20 else None
    except ValueError:
        return None
    if value is None or b"%d" % value != raw or not INT64_MIN <= value <= INT64_MAX:
        return None
    return value


def printable(raw: bytes) -> str:
    """`raw` as it may stand in an error message: one line, nothing but ASCII."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in raw)


OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NIL = b"$-1\r\n"
NIL_ARRAY = b"*-1\r\n"


def simple(text: str) -> bytes:
    """A status: short, without line breaks."""
    return f"+{text}\r\n".encode()


def error(text: str) -> bytes:
    """An error; its first word is its code, which clients match on."""
    return f"-{text}\r\n".encode()


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def bulk(value: bytes | None) -> bytes:
    """A byte string, or nil."""
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(replies: Iterable[bytes]) -> bytes:
    """An array of things that are replies already."""
    replies = list(replies)
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))
