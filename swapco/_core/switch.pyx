"""Stacks, and the switch from one to another: the only file that knows how.

A *stack* is a reusable execution context.  A fiber runs *on* a stack; when it ends, the stack takes the next
new fiber, or goes to the scheduler's pool.  The interface is three operations of a ``Backend`` and one of a
``Stack``:

- ``adopt()``: the stack that the caller runs on (the hub's);
- ``create(entry, hub)``: a fresh stack that calls ``entry.main(stack)`` when it is first switched to;
- ``unwind(stack, hub)``: by the hub: let an idle stack return from its entry and die;
- ``stack.switch_from(leaving)``: continue ``stack`` and suspend the caller, which runs on ``leaving``;
  returns when somebody switches back.

Rules that every backend and every caller keeps:

1. Stacks belong to the kernel thread that made them, for ever.
2. Only the hub makes the first switch to a stack.  A greenlet inherits the recursion depth and the stack
   position of whoever starts it: started in a chain, the thousandth raises RecursionError.
3. A stack never ends by itself; only the hub unwinds it.  So nothing ever falls out of a stack into
   whatever its parent happens to be by then.
4. An exception is never thrown into another stack (the thrower would be stranded): make the fiber runnable
   with the exception pending, and let it raise when it runs.
5. The current exception, the recursion depth and the context travel with the stack.

Two lanes.  greenlet runs all greenlets on one C stack: before it continues one, it copies away whatever lies
below that one's base, and copies its content back.  Stacks that begin at the same address are copied twice at
every switch, out and in.  So every other stack begins ``LANE_BYTES`` further down: of two fibers that hand the
slot to each other, in different lanes, the upper one stays where it is (a quarter less per switch; more lanes
gain nothing more for a ring of many fibers).  A fiber that grows into the lower lane is copied as always.

The backend here is greenlet, through its C API.  A user's own greenlet inside a fiber may block, too: what
``switch_from`` remembers is the greenlet that was running, not the one that the stack was made of.

Rejected: one greenlet a fiber (starting a greenlet costs 8 to 16 µs, reusing one 1 µs); letting the greenlet
of a finished fiber die at once (it would switch to its parent, the hub: one needless trip a fiber).
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF


cdef extern from "greenlet/greenlet.h":
    ctypedef struct PyGreenlet:
        pass
    void PyGreenlet_Import()
    PyGreenlet *PyGreenlet_New(PyObject *run, PyGreenlet *parent)
    PyGreenlet *PyGreenlet_GetCurrent()
    PyObject *PyGreenlet_Switch(PyGreenlet *g, PyObject *args, PyObject *kwargs)
    int PyGreenlet_SetParent(PyGreenlet *g, PyGreenlet *parent)

cdef extern from *:
    """
    #include <alloca.h>

    #define LANE_BYTES 16384

    /* The first switch to a greenlet of the lower lane: it begins where the caller's stack ends. */
    static __attribute__((noinline)) PyObject *switch_lower(PyGreenlet *g)
    {
        volatile char *gap = alloca(LANE_BYTES);
        gap[0] = 0; /* else the compiler drops it */
        PyObject *returned = PyGreenlet_Switch(g, NULL, NULL);
        gap[0] = 1;
        return returned;
    }
    """
    PyObject *switch_lower(PyGreenlet *g)

PyGreenlet_Import()

cdef extern from "frame_chunks.h":
    void frame_chunks_install()
    void frame_chunks_seed()

frame_chunks_install()

cdef extern from "forced_unwind.h":
    object call_at_base(object (*main)(object), object argument)


cdef class Stack:
    """An execution context; see the rules above."""

    cdef int switch_from(self, Stack leaving) noexcept:
        return 0

    cdef object frame(self):
        """The innermost Python frame of a parked stack, or None."""
        return None


cdef class StackMain:
    """What a stack runs from its first switch to its end."""

    cdef int main(self, Stack stack) except -1:
        return 0


cdef class Backend:
    """Makes stacks of one kind."""

    cdef Stack adopt(self):
        raise TypeError(f"{type(self).__name__} does not implement adopt")

    cdef Stack create(self, StackMain entry, Stack hub):
        raise TypeError(f"{type(self).__name__} does not implement create")

    cdef int unwind(self, Stack stack, Stack hub) except -1:
        raise TypeError(f"{type(self).__name__} does not implement unwind")


cdef class GreenletStack(Stack):
    """A greenlet."""

    cdef int switch_from(self, Stack leaving) noexcept:
        cdef PyObject *returned
        cdef PyObject *target = <PyObject *>self.continuation
        cdef GreenletStack left = <GreenletStack>leaving
        if left.root_chunk == NULL or left.root_chunk != thread_frames_chunk():
            left.remember_current()
        if self.begins_lower:
            self.begins_lower = False
            returned = switch_lower(<PyGreenlet *>target)
        else:
            returned = PyGreenlet_Switch(<PyGreenlet *>target, NULL, NULL)
        if returned == NULL:
            return -1
        Py_XDECREF(returned)
        return 0

    def __call__(self):
        """What the fresh greenlet calls."""
        return call_at_base(_stack_base, self)

    cdef int remember_current(self) except -1:
        """Continue whatever greenlet runs now: the stack's own, or one that its fiber made."""
        self.continuation = _current()
        self.root_chunk = thread_frames_root() if self.continuation is self.own else NULL
        return 0

    cdef object frame(self):
        return None if self.continuation is None else self.continuation.gr_frame


cdef object _stack_base(object stack):
    frame_chunks_seed()
    thread_recursion_restart()
    (<GreenletStack>stack).entry.main(<GreenletStack>stack)


cdef class GreenletBackend(Backend):
    """Stacks made of greenlets."""

    cdef Stack adopt(self):
        cdef GreenletStack stack = GreenletStack.__new__(GreenletStack)
        stack.own = stack.continuation = _current()
        return stack

    cdef Stack create(self, StackMain entry, Stack hub):
        cdef GreenletStack stack = GreenletStack.__new__(GreenletStack)
        stack.entry = entry
        stack.own = _take(<PyObject *>PyGreenlet_New(
            <PyObject *>stack, <PyGreenlet *><PyObject *>(<GreenletStack>hub).own
        ))
        stack.continuation = stack.own
        stack.begins_lower = self.next_is_lower
        self.next_is_lower = not self.next_is_lower
        return stack

    cdef int unwind(self, Stack stack, Stack hub) except -1:
        cdef GreenletStack dying = <GreenletStack>stack
        cdef PyObject *own = <PyObject *>dying.own
        # the hub that made it may be long gone: it must fall into this one
        if PyGreenlet_SetParent(<PyGreenlet *>own, <PyGreenlet *><PyObject *>(<GreenletStack>hub).own) < 0:
            return -1
        dying.fiber = None
        if dying.switch_from(hub) < 0:
            return -1
        dying.own = dying.continuation = None
        return 0


def call_on_fresh_stack(fn):
    """Call ``fn()`` on a stack whose frames begin here, in the caller's context; return its result.

    greenlet walks the Python frames of the greenlet that it leaves and of the one that it enters (CPython 3.12
    and later): a hub deep inside a program would make every switch to it dearer, and does not here.
    """
    cdef _ShallowCall call = _ShallowCall.__new__(_ShallowCall)
    cdef object fresh
    call.fn = fn
    call.context = <object>thread_context_borrow() if thread_context_borrow() != NULL else None
    fresh = _take(<PyObject *>PyGreenlet_New(<PyObject *>call, NULL))
    return _take(PyGreenlet_Switch(<PyGreenlet *><PyObject *>fresh, NULL, NULL))


cdef class _ShallowCall:
    cdef object fn
    cdef object context

    def __call__(self):
        return call_at_base(_shallow_base, self)


cdef object _shallow_base(object call):
    if (<_ShallowCall>call).context is not None:
        thread_context_assign(<PyObject *>(<_ShallowCall>call).context)
    return (<_ShallowCall>call).fn()


cdef extern from *:
    """
    /* A new reference from C; NULL means that an exception is set. */
    static inline PyObject *swapco_take(PyObject *owned) { return owned; }
    """
    object _take "swapco_take"(PyObject *owned)


cdef inline object _current():
    return _take(<PyObject *>PyGreenlet_GetCurrent())
