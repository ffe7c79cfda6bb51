"""Recursion through C code inside a fiber ends in an exception or a result, never in a crash.

A fiber's C stack is smaller than a thread's, and only a count stands between a deep recursion and its end: CPython
counts nested C calls, whatever their size.  So every way that we know to recurse through C runs here, at the default
recursion limit, in a process of its own; it must go on as an ordinary fiber afterwards.
"""

from __future__ import annotations

import json

import pytest
from helpers import run_program

PRELUDE = """
import ast, collections, contextvars, copy, ctypes, functools, io, itertools, json, marshal, operator, pickle, re
import select, socket, string, sys, tempfile, traceback, typing, weakref
import xml.etree.ElementTree as ElementTree
import xml.parsers.expat as expat
from swapco import *

MANY = 100_000  # more than any counter allows
UNGUARDED = 3000  # for what CPython does not count: its own end comes later, but comes

def nested(make, depth=MANY):
    value = make(0)
    for _ in range(depth):
        value = make(value)
    return value
"""

#: Name: a program that defines ``recurse()``.
KINDS: dict[str, str] = {
    # -- serialization
    "json.dumps": "def recurse(): json.dumps(nested(lambda x: [x]))",
    "json.dumps of dicts, indented": "def recurse(): json.dumps(nested(lambda x: {'a': x}), indent=1)",
    "json.dumps with a default": "def recurse(): json.dumps(object(), default=lambda x: [object()])",
    "json.loads of lists": "def recurse(): json.loads('[' * MANY)",
    "json.loads of objects": "def recurse(): json.loads('{\"a\":' * MANY)",
    "json.loads with a hook": """
def hook(found):
    return json.loads('{"a": 1}', object_hook=hook)

def recurse(): hook(None)
""",
    "pickle.dumps": "def recurse(): pickle.dumps(nested(lambda x: [x]))",
    "pickle.dumps of dicts": "def recurse(): pickle.dumps(nested(lambda x: {0: x}))",
    "pickle.dumps of tuples": "def recurse(): pickle.dumps(nested(lambda x: (x,)))",
    "pickle.dumps with __reduce__": """
class Again:
    def __reduce__(self):
        return str, (Again(),)

def recurse(): pickle.dumps(Again())
""",
    "pickle.dumps inside __reduce__": """
class Again:
    def __reduce__(self):
        return pickle.dumps(Again())

def recurse(): pickle.dumps(Again())
""",
    "pickle.loads": "def recurse(): pickle.loads(b']' * MANY + b'a' * (MANY - 1) + b'.')",
    "pickle.loads inside __setstate__": """
class Again:
    def __setstate__(self, state):
        pickle.loads(data)

data = pickle.dumps(Again(), 2)[:-1] + b'}b.'

def recurse(): pickle.loads(data)
""",
    "marshal.dumps": "def recurse(): marshal.dumps(nested(lambda x: [x]))",
    "marshal.loads": "def recurse(): marshal.loads(b'(\\x01\\x00\\x00\\x00' * MANY)",
    "marshal, as deep as it goes": """
def recurse():
    for depth in (1900, 1990, 1998, 1999):
        value = nested(lambda x: (x,), depth)
        assert marshal.loads(marshal.dumps(value)) is not None
""",
    "copy.deepcopy": "def recurse(): copy.deepcopy(nested(lambda x: [x]))",
    "copy.deepcopy of an XML tree": """
def recurse():
    root = ElementTree.Element('a')
    for _ in range(1000):
        outer = ElementTree.Element('a')
        outer.append(root)
        root = outer
    copy.deepcopy(root)
""",
    # -- text
    "repr of lists": "def recurse(): repr(nested(lambda x: [x]))",
    "repr of dicts": "def recurse(): repr(nested(lambda x: {0: x}))",
    "repr of tuples": "def recurse(): repr(nested(lambda x: (x,)))",
    "repr of deques": "def recurse(): repr(nested(lambda x: collections.deque([x]), UNGUARDED))",
    "repr of ordered dicts": "def recurse(): repr(nested(lambda x: collections.OrderedDict(a=x)))",
    "repr of partials": "def recurse(): repr(nested(lambda x: functools.partial(print, x)))",
    "repr of exceptions": "def recurse(): repr(nested(lambda x: ValueError(x)))",
    "repr of generic aliases": "def recurse(): repr(nested(lambda x: list[x]))",
    "__repr__": """
class Again:
    def __repr__(self):
        return repr(Again())

def recurse(): repr(Again())
""",
    "__str__ in %": """
class Again:
    def __str__(self):
        return '%s' % Again()

def recurse(): str(Again())
""",
    "__format__ in an f-string": """
class Again:
    def __format__(self, spec):
        return f'{Again():>{10}}'

def recurse(): format(Again())
""",
    "__format__ in str.format": """
class Again:
    def __format__(self, spec):
        return '{0:{1}}'.format(Again(), 'x')

def recurse(): format(Again())
""",
    "str.format_map": """
class Map(dict):
    def __missing__(self, key):
        return '{a} {b:{c}}'.format_map(Map())

def recurse(): '{a}'.format_map(Map())
""",
    "string.Formatter": """
class Again:
    def __format__(self, spec):
        return string.Formatter().format('{0}', Again())

def recurse(): format(Again())
""",
    "str.join": """
def pieces():
    yield ''.join(pieces())

def recurse(): ''.join(pieces())
""",
    "re.compile of groups": "def recurse(): re.compile('(' * 5000 + ')' * 5000)",
    "re.compile of atomic and conditional groups": "def recurse(): re.compile('(?>(?=' * 2000 + '))' * 2000)",
    "a match that goes back far": """
def recurse():
    assert re.match('(?:(a)|b)*', 'ab' * MANY).end() == 2 * MANY
    assert re.match('(?:a(?:b(?:c)*)*)*$', 'abcc' * 5000)
    assert re.match('(a?){20}a{20}', 'a' * 20)
    assert not re.match('(?:(?:(?:(?:a+)b?)c?)d?)*e', 'a' * 20)
""",
    "re.sub": """
pattern = re.compile('a')

def replace(match):
    return pattern.sub(replace, 'a')

def recurse(): replace(None)
""",
    "re.Scanner": """
def token(scanner, text):
    return re.Scanner([('a', token)]).scan('a')

def recurse(): token(None, 'a')
""",
    # -- the compiler
    **{
        f"compile: {name}": f"def recurse(): compile({source}, 'source', 'exec')"
        for name, source in {
            "parentheses, as deep as it goes": "'(' * 190 + '1' + ')' * 190",
            "parentheses": "'(' * MANY",
            "lists": "'[' * 190 + ']' * 190",
            "calls": "'f(' * 190 + ')' * 190",
            "dicts": "'{0: ' * 190 + '0' + '}' * 190",
            "subscripts": "'a[' * 190 + '0' + ']' * 190",
            "lambdas": "'lambda: ' * 5000 + '0'",
            "lambdas with defaults": "'lambda x=' * 5000 + '0' + ': 0' * 5000",
            "unary operators": "'-' * 5000 + '1'",
            "not": "'not ' * 5000 + '1'",
            "await": "'async def f(): ' + 'await ' * 1000 + 'x'",
            "powers": "'2 ** ' * 5000 + '2'",
            "sums": "'1 + ' * 5000 + 'x'",
            "attributes": "'a' + '.b' * 5000",
            "chains of calls": "'a' + '()' * 5000",
            "chains of subscripts": "'a' + '[0]' * 5000",
            "conditional expressions": "'a if b else ' * 5000 + 'c'",
            "comparisons in comparisons": "'(a < ' * 190 + 'a' + ')' * 190",
            "elif": "'if a: pass\\n' + 'elif a: pass\\n' * 5000",
            "try in try": "''.join('\\t' * i + 'try:\\n' for i in range(90)) + '\\t' * 90 + 'pass\\n'",
            "if in if": "''.join(' ' * i + 'if a:\\n' for i in range(99)) + ' ' * 99 + 'pass\\n'",
            "functions in functions": "''.join(' ' * i + 'def f():\\n' for i in range(99)) + ' ' * 99 + 'pass\\n'",
            "classes in classes": "''.join(' ' * i + 'class A:\\n' for i in range(99)) + ' ' * 99 + 'pass\\n'",
            "comprehensions": "'[' * 18 + 'x' + ' for x in y]' * 18",
            "walrus": "'(a := ' * 190 + '1' + ')' * 190",
            "f-strings": "'f\"{' * 100 + '1' + '}\"' * 100",
            "strings in a row": "'\"a\" ' * MANY",
            "patterns": "'match a:\\n case ' + '[' * 190 + 'b' + ']' * 190 + ': pass'",
            "targets": "'[' * 90 + 'a' + ']' * 90 + ' = b'",
            "assignments": "'a = ' * 5000 + 'b'",
            "decorators": "'@a\\n' * 5000 + 'def f(): pass'",
            "annotations": "'a: ' + 'b[' * 190 + 'c' + ']' * 190",
            "nothing closes": "'f(a, [b, {c: ' * 60",
            "a star everywhere": "'f(*[*' * 90 + 'a' + '])' * 90",
            "conditions in brackets": "'[a if b else ' * 190 + 'c' + ']' * 190",
            "or and in brackets": "'(a or b and not ' * 190 + 'c' + ')' * 190",
            "lambdas in calls": "'f(lambda x: ' * 190 + 'x' + ')' * 190",
        }.items()
    },
    "compile of a tree made by hand": """
def recurse():
    tree = ast.Constant(1)
    for _ in range(MANY):
        tree = ast.UnaryOp(ast.USub(), tree)
    compile(ast.fix_missing_locations(ast.Expression(ast.Constant(1))), 'source', 'eval')
    compile(ast.Expression(tree), 'source', 'eval')
""",
    "ast.parse and ast.literal_eval": """
def recurse():
    source = '[' * 190 + ']' * 190
    tree = ast.parse(source)
    assert len(list(ast.walk(tree))) > 190
    assert ast.unparse(tree) == source
    assert repr(ast.literal_eval(source)) == source
    ast.parse('-' * 5000 + '1')
""",
    "a tree of ast.parse": """
def recurse():
    tree = ast.parse('1' + ' + 1' * 900)
    ast.dump(tree)
    copy.deepcopy(tree)
""",
    "eval in eval": """
def again():
    return eval('again()')

def recurse(): again()
""",
    "exec in exec": """
def recurse():
    source = 'exec(source)'
    exec(source, {'source': source})
""",
    # -- ordering and hashing
    "sorted": """
def again(x):
    return sorted([1], key=again)

def recurse(): again(1)
""",
    "sorted with lambdas": """
again = lambda x: sorted([1, 2, 3], key=lambda y: again(y))

def recurse(): again(1)
""",
    "list.sort": """
def again(x):
    return [1].sort(key=again)

def recurse(): again(1)
""",
    "list.sort in __lt__": """
class Again:
    def __lt__(self, other):
        [Again(), Again()].sort()
        return True

def recurse(): Again() < Again()
""",
    "list.sort in __lt__, specialized": """
class Again:
    def __init__(self, level):
        self.level = level

    def __lt__(self, other):
        if self.level == 0:
            return True
        inner = all_of_them[self.level - 1]
        pair = [inner, inner]
        pair.sort()
        return True

all_of_them = [Again(level) for level in range(5000)]

def recurse():
    for _ in range(100):
        all_of_them[5] < all_of_them[5]
    all_of_them[-1] < all_of_them[-1]
""",
    "cmp_to_key": """
@functools.cmp_to_key
def again(a, b):
    return again(a) < again(b)

def recurse(): again(1) < again(2)
""",
    "sorted with cmp_to_key": """
def again(a, b):
    sorted([1, 2], key=functools.cmp_to_key(again))
    return 0

def recurse(): again(1, 2)
""",
    "max with a key": """
def again(x):
    return max([1, 2], key=again)

def recurse(): again(1)
""",
    "heapq": """
import heapq

class Again:
    def __lt__(self, other):
        heap = [Again()]
        heapq.heappush(heap, Again())
        return True

def recurse(): Again() < Again()
""",
    "bisect": """
import bisect

class Again:
    def __lt__(self, other):
        return bisect.bisect_left([Again()], Again())

def recurse(): Again() < Again()
""",
    "comparison of lists": "def recurse(): nested(lambda x: [x]) == nested(lambda x: [x])",
    "comparison of tuples": "def recurse(): nested(lambda x: (x,)) < nested(lambda x: (x,))",
    "comparison of dicts": "def recurse(): nested(lambda x: {0: x}) == nested(lambda x: {0: x})",
    "comparison of deques": """
def recurse():
    nested(lambda x: collections.deque([x]), UNGUARDED) == nested(lambda x: collections.deque([x]), UNGUARDED)
""",
    "__eq__ in a dict": """
class Again:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        return {Again(): 1}[Again()]

def recurse(): Again() == Again()
""",
    "__eq__ in list.index": """
class Again:
    def __eq__(self, other):
        return [Again()].index(Again())

def recurse(): Again() == Again()
""",
    "hash of tuples": "def recurse(): hash(nested(lambda x: (x,), 2000))",
    "hash of frozen sets": "def recurse(): hash(nested(lambda x: frozenset([x]), 2000))",
    "__hash__": """
class Again:
    def __hash__(self):
        return hash((Again(),))

def recurse(): hash(Again())
""",
    # -- iterators and functions that call
    "map": "def recurse(): list(nested(lambda x: map(int, x or [1]), 2000))",
    "filter": "def recurse(): list(nested(lambda x: filter(None, x or [1]), 2000))",
    "map and filter": """
def recurse(): list(nested(lambda x: map(int, filter(None, zip(x or [1]) if not x else x)), 1000))
""",
    "zip": "def recurse(): list(nested(lambda x: zip(x or [1]), 2000))",
    "itertools": """
def recurse():
    list(nested(lambda x: itertools.chain(x or [1]), 2000))
    list(nested(lambda x: itertools.islice(x or [1], 5), 2000))
    list(nested(lambda x: itertools.takewhile(bool, x or [1]), 2000))
    list(nested(lambda x: itertools.accumulate(x or [1]), 2000))
    list(nested(lambda x: itertools.tee(x or [1])[0], 2000))
""",
    "a map in a map": """
def again(x):
    return list(map(again, [x]))

def recurse(): again(1)
""",
    "functools.reduce": """
def again(x, y):
    return functools.reduce(again, [1, 2])

def recurse(): again(1, 2)
""",
    "sum": """
class Again:
    def __radd__(self, other):
        return sum([Again()])

def recurse(): sum([Again()])
""",
    "functools.partial": """
def again():
    return functools.partial(again)()

def recurse(): again()
""",
    "functools.lru_cache": """
@functools.lru_cache(maxsize=None)
def again(n):
    return again(n + 1)

@functools.lru_cache(maxsize=10)
def and_again(n):
    return and_again(n + 1)

def recurse():
    try:
        again(0)
    except RecursionError:
        and_again(0)
""",
    "generators": """
def again():
    yield from again()

def recurse(): list(again())
""",
    "generators in next": """
def again():
    yield next(again())

def recurse(): next(again())
""",
    "coroutines": """
async def again():
    await again()

def recurse(): again().send(None)
""",
    "asynchronous generators": """
async def again():
    async for x in again():
        yield x

async def start():
    async for x in again():
        pass

def recurse(): start().send(None)
""",
    "Context.run": """
def again():
    return contextvars.copy_context().run(again)

def recurse(): again()
""",
    "operator.methodcaller": """
class Again:
    def again(self):
        return operator.methodcaller('again')(self)

def recurse(): Again().again()
""",
    "ctypes callbacks": """
def again():
    return callback()

callback = ctypes.CFUNCTYPE(ctypes.c_int)(again)
sys.unraisablehook = lambda unraisable: None

def recurse(): callback()
""",
    "qsort of libc": """
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def again(a, b):
    libc.qsort(ctypes.create_string_buffer(8), 2, 4, again)
    return 0

libc = ctypes.CDLL(None)
sys.unraisablehook = lambda unraisable: None

def recurse(): libc.qsort(ctypes.create_string_buffer(8), 2, 4, again)
""",
    "sqlite3": """
import sqlite3

def again(x):
    connection = sqlite3.connect(':memory:')
    connection.create_function('again', 1, again)
    try:
        return connection.execute('select again(1)').fetchall()[0][0]
    finally:
        connection.close()

def recurse():
    try:
        again(1)
    except sqlite3.OperationalError:
        pass
""",
    # -- types and attributes
    "isinstance": """
class Meta(type):
    def __instancecheck__(cls, value):
        return isinstance(1, Again)

class Again(metaclass=Meta):
    pass

def recurse(): isinstance(1, Again)
""",
    "isinstance of tuples": "def recurse(): isinstance('', nested(lambda x: (x,) if x else (int,)))",
    "issubclass of abstract classes": """
import abc

class Again(abc.ABC):
    @classmethod
    def __subclasshook__(cls, other):
        return issubclass(type('New', (), {}), Again)

def recurse(): issubclass(int, Again)
""",
    "typing": """
def recurse():
    kind = typing.TypeVar('T')
    for _ in range(500):
        kind = typing.Union[typing.List[kind], None]
    kind[int]
""",
    "unions in isinstance": """
def recurse():
    kind = int
    for _ in range(1000):
        kind = list[kind] | None
    hash(kind)
    repr(kind)
""",
    "__getattr__": """
class Again:
    def __getattr__(self, name):
        return getattr(Again(), name)

def recurse(): Again().x
""",
    "__getattribute__": """
class Again:
    def __getattribute__(self, name):
        return getattr(self, name)

def recurse(): Again().x
""",
    "__setattr__": """
class Again:
    def __setattr__(self, name, value):
        setattr(self, name, value)

def recurse(): setattr(Again(), 'x', 1)
""",
    "a property": """
class Again:
    @property
    def x(self):
        return self.x

def recurse(): Again().x
""",
    "a descriptor": """
class Again:
    def __get__(self, one, kind):
        return Holder().x

class Holder:
    x = Again()

def recurse(): Holder().x
""",
    "functools.cached_property and singledispatch": """
class Holder:
    @functools.cached_property
    def x(self):
        return Holder().x

@functools.singledispatch
def again(x):
    return again(x)

def recurse():
    try:
        Holder().x
    except RecursionError:
        again(1)
""",
    "__call__": """
class Again:
    def __call__(self):
        return Again()()

def recurse(): Again()()
""",
    "__call__ of itself": """
class Again:
    pass

def recurse():
    Again.__call__ = Again()
    Again()()
""",
    "__init__": """
class Again:
    def __init__(self):
        Again()

def recurse(): Again()
""",
    "__new__": """
class Again:
    def __new__(cls):
        return cls()

def recurse(): Again()
""",
    "a metaclass": """
class Meta(type):
    def __call__(cls):
        return cls()

class Again(metaclass=Meta):
    pass

def recurse(): Again()
""",
    "__init_subclass__": """
class Again:
    def __init_subclass__(cls):
        type('New', (Again,), {})

def recurse(): type('New', (Again,), {})
""",
    "__set_name__": """
class Again:
    def __set_name__(self, owner, name):
        type('New', (), {'again': Again()})

def recurse(): type('New', (), {'again': Again()})
""",
    "__build_class__": """
def again():
    class New:
        x = again()

def recurse(): again()
""",
    "arithmetic": """
class Again:
    def __add__(self, other):
        return self + other

    def __neg__(self):
        return -self

    def __iadd__(self, other):
        self += other

    def __pow__(self, other, modulus=None):
        return pow(self, other, 3)

def recurse():
    again = Again()
    for function in (lambda: again + 1, lambda: -again, lambda: operator.iadd(again, 1), lambda: pow(again, 1, 3)):
        try:
            function()
        except RecursionError:
            pass
""",
    "conversions": """
class Again:
    def __bool__(self): return bool(self)
    def __len__(self): return len(self)
    def __index__(self): return operator.index(self)
    def __int__(self): return int(self)
    def __float__(self): return float(self)
    def __bytes__(self): return bytes(self)
    def __dir__(self): return dir(self)
    def __iter__(self): return iter(self)
    def __next__(self): return next(self)
    def __reversed__(self): return reversed(self)
    def __getitem__(self, key): return self[key]
    def __setitem__(self, key, value): self[key] = value
    def __contains__(self, key): return key in self
    def __enter__(self):
        with self:
            pass
    def __exit__(self, *error): pass
    def __round__(self): return round(self)
    def __divmod__(self, other): return divmod(self, other)
    def __fspath__(self): return __import__('os').fspath(self)
    def __class_getitem__(cls, key): return cls[key]

def recurse():
    again = Again()
    for function in (
        bool, len, operator.index, int, float, bytes, dir, iter, next, reversed, lambda x: x[0],
        lambda x: operator.setitem(x, 0, 0), lambda x: 0 in x, Again.__enter__, round, lambda x: divmod(x, 1), open,
        lambda x: Again[x],
    ):
        try:
            function(again)
        except RecursionError:
            pass
""",
    # -- the end of objects
    "the end of nested things": """
class Link:
    __slots__ = ('inner',)

    def __init__(self, inner):
        self.inner = inner

class Loud(Link):
    def __del__(self):
        self.inner = None

def recurse():
    for make in (
        lambda x: [x], lambda x: (x,), lambda x: {0: x}, Link, Loud, lambda x: iter([x]), lambda x: {0: x}.items(),
        lambda x: functools.partial(print, x), lambda x: (lambda: x), ValueError, lambda x: map(int, [x]),
    ):
        nested(make)
    for make in (
        lambda x: collections.deque([x]), lambda x: collections.defaultdict(int, a=x), operator.itemgetter, slice,
        functools.cmp_to_key(min), property, staticmethod,
    ):
        nested(make, UNGUARDED)
""",
    "the end of a chain of exceptions": """
def recurse():
    error = None
    for _ in range(MANY):
        new = ValueError()
        new.__context__ = error
        error = new
    del error, new
""",
    "the end of an XML tree": """
def recurse():
    ElementTree.fromstring('<a>' * MANY + '</a>' * MANY)
""",
    "__del__ in __del__": """
class Again:
    def __del__(self):
        if left:
            left.pop()
            Again()

left = [0] * 5000
sys.unraisablehook = lambda unraisable: None

def recurse(): Again()
""",
    "weak references": """
class Thing:
    pass

def again(reference):
    if left:
        left.pop()
        thing = Thing()
        keep.append(weakref.ref(thing, again))
        del thing

left = [0] * 5000
keep = []
sys.unraisablehook = lambda unraisable: None

def recurse(): again(None)
""",
    # -- XML
    "pyexpat": """
def recurse():
    depth = 0
    def start(name, attributes):
        nonlocal depth
        depth += 1
    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.Parse('<a>' * MANY + '</a>' * MANY, True)
    assert depth == MANY
""",
    "pyexpat in pyexpat": """
def again(name, attributes):
    parser = expat.ParserCreate()
    parser.StartElementHandler = again
    parser.Parse('<a/>', True)

def recurse(): again('a', {})
""",
    "pyexpat: a content model": """
def recurse():
    parser = expat.ParserCreate()
    parser.ElementDeclHandler = lambda name, model: None
    depth = 1500
    parser.Parse('<!DOCTYPE a [<!ELEMENT a ' + '(a' * depth + ')' * depth + '>]><a/>', True)
""",
    "XML trees": """
def recurse():
    root = ElementTree.fromstring('<a>' * 2000 + 'text' + '</a>' * 2000)
    assert len(list(root.iter())) == 2000
    assert ''.join(root.itertext()) == 'text'
    assert pickle.dumps(ElementTree.Element('a'))
    ElementTree.tostring(root)
""",
    # -- exceptions, tracing, imports
    "nested exception groups": """
def recurse():
    group = nested(lambda x: ExceptionGroup('a', [x or ValueError()]), 2000)
    group.split(KeyError)
""",
    "printing a chain of exceptions": """
def recurse():
    error = None
    for number in range(3000):
        new = ValueError(number)
        new.__cause__ = error
        error = new
    sys.stderr, saved = io.StringIO(), sys.stderr
    try:
        sys.__excepthook__(ValueError, error, None)
        traceback.print_exception(error)
    finally:
        sys.stderr = saved
""",
    "a trace function": """
def trace(frame, event, argument):
    traced()
    return trace

def traced():
    return again()

def again():
    return sorted([1], key=lambda x: again())

def recurse():
    sys.settrace(trace)
    try:
        again()
    finally:
        sys.settrace(None)
""",
    "warnings": """
import warnings

def show(*args, **kwargs):
    warnings.warn('again')

def recurse():
    warnings.simplefilter('always')
    warnings.showwarning = show
    warnings.warn('first')
""",
    "imports of imports": """
def recurse():
    with tempfile.TemporaryDirectory() as folder:
        for number in range(300):
            with open(f'{folder}/module_{number}.py', 'w') as file:
                file.write(f'import module_{number + 1}')
        open(f'{folder}/module_300.py', 'w').close()
        sys.path.insert(0, folder)
        sys.setrecursionlimit(1000)
        import module_0
""",
}

#: What an innermost frame may still do after a recursion has gone as deep as the limit allows.
LEAVES: dict[str, str] = {
    "nothing": "pass",
    "compile": "compile('(' * 190 + '1' + ')' * 190, 'source', 'eval')",
    "an import of Python code": "import statistics",
    "an import of an extension": "import _decimal, _sqlite3, _ssl",
    "select.select": "select.select([0], [], [], 0)",
    "getaddrinfo": "socket.getaddrinfo('localhost', 80)",
    "realpath": "__import__('os').path.realpath('/usr/lib/python3')",
    "a traceback": "traceback.format_exc()",
    "repr": "repr(nested(lambda x: [x]))",
    "json": "json.loads('[' * 10_000)",
    "marshal": "marshal.loads(b'(' + b'\\x01\\x00\\x00\\x00(' * 10_000)",
    "hash": "hash(nested(lambda x: (x,), 500))",
    "sort": "sorted(range(1000, 0, -1), key=str)",
    "a regular expression": "re.compile('(a|b)*?c{3,5}[^x-z]').search('ab' * 1000)",
    "formatting": "'%1000.500f %s %r' % (1e300, 2.5, 3.25), f'{1e300:.300e}', str(2 ** 5000)[:5], float('1' * 3000)",
    "ssl": "__import__('ssl').create_default_context()",
    "sqlite3": "__import__('sqlite3').connect(':memory:').execute('select ' + '(' * 80 + '1' + ')' * 80).fetchall()",
}

#: Recursions whose every level can catch the error and do something else there.
TRUNKS: dict[str, str] = {
    "sorted": "sorted([1], key=lambda x: deeper())",
    "list.sort": "[Less(), Less()].sort()",
    "repr": "repr(Represented())",
    "re.sub": "re.sub('a', lambda match: deeper() or 'b', 'a')",
    "str.format": "'{0:{1}}'.format(Formatted(), 'x')",
    "json": "json.dumps(Represented(), default=lambda x: deeper())",
}

RUN = """
def main():
    try:
        recurse()
    except Exception as error:
        print("raised", type(error).__name__)
    else:
        print("returned")
    # what has gone wrong is over: the fiber waits, others run
    assert gather(*[lambda: sleep(0, 1)] * 3) == [1, 1, 1]
    return sleep(0.001, "goes on")

print(run(main))
"""

TRUNK = """
def deeper():
    try:
        {trunk}
    except RecursionError:
        if not done:
            done.append(True)
            leaf()
        raise

class Less:
    def __lt__(self, other):
        deeper()
        return True

class Represented:
    def __repr__(self):
        return deeper()

class Formatted:
    def __format__(self, spec):
        return deeper()

def recurse():
    global leaf
    for source in {leaves}:
        leaf = functools.partial(exec, source, globals())
        done.clear()
        fiber = spawn(deeper)
        wait([fiber])
        assert done, fiber
        try:
            fiber.join()
        except Exception as error:
            print(source, repr(error))

done = []
"""


#: Runs each of PROGRAMS in a forked child of its own: an interpreter's start costs more than most of
#: them. What a child prints goes through a file, since a crash loses what is buffered.
FORKS = """
import os
for name, program in PROGRAMS:
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            status = 1
            try:
                exec(program, globals())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        output.seek(0)
        print(json.dumps([name, status, output.read()[-3000:]]), flush=True)
"""
GROUPS = 10


def all_go_on(programs: list[tuple[str, str]]) -> None:
    given = f"PROGRAMS = {[(name, body + RUN) for name, body in programs]!r}\n"
    result = run_program(PRELUDE + given + FORKS, "-W", "ignore", timeout_s=110)
    assert result.returncode == 0, result.stderr[-3000:]
    results = [json.loads(line) for line in result.stdout.splitlines()]
    assert [name for name, _, _ in results] == [name for name, _ in programs], result.stderr[-3000:]
    for name, status, printed in results:
        assert status == 0, f"{name}: status {status}\n{printed}"
        assert printed.splitlines()[-1] == "goes on", f"{name}: {printed}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_recursion_through_c_ends_in_an_exception_or_a_result(group: int, switch: str) -> None:
    all_go_on(list(KINDS.items())[group::GROUPS])


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_innermost_frame_may_still_do_something(trunk: str, switch: str) -> None:
    all_go_on([(trunk, TRUNK.format(trunk=TRUNKS[trunk], leaves=list(LEAVES.values())))])
