"""Stacks made of greenlets.

Two lanes.  greenlet runs all greenlets on one C stack: before it continues one, it copies away whatever lies
below that one's base, and copies its content back.  Stacks that begin at the same address are copied twice at
every switch, out and in.  So every other stack begins ``LANE_BYTES`` further down: of two fibers that hand the
slot to each other, in different lanes, the upper one stays where it is (a quarter less per switch; more lanes
gain nothing more for a ring of many fibers).  A fiber that grows into the lower lane is copied as always.

What a switch leaves is the greenlet that was running, not the one that the stack was made of: a user's own greenlet
inside a fiber may block, too.

The hub's frames are shallow: greenlet walks the Python frames of the greenlet that it leaves and of the one that it
enters (CPython 3.12 and later), so a hub deep inside a program would make every switch to it dearer.  Therefore
``call_in_hub`` starts a greenlet of its own.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF

from .switch cimport (
    Backend,
    Stack,
    StackMain,
    thread_context_assign,
    thread_context_borrow,
    thread_frames_chunk,
    thread_frames_root,
    thread_recursion_restart,
)


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

    def __cinit__(self):
        self.name = "greenlet"

    cdef object call_in_hub(self, object fn):
        """Call ``fn()`` on a stack whose frames begin here, in the caller's context; return its result."""
        cdef _ShallowCall call = _ShallowCall.__new__(_ShallowCall)
        cdef object fresh
        call.fn = fn
        call.context = <object>thread_context_borrow() if thread_context_borrow() != NULL else None
        fresh = _take(<PyObject *>PyGreenlet_New(<PyObject *>call, NULL))
        return _take(PyGreenlet_Switch(<PyGreenlet *><PyObject *>fresh, NULL, NULL))

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
