"""Native stacks: each fiber on a C stack of its own, and a switch that only exchanges registers.

greenlet copies the C stacks that are in the way, and walks the Python frames of both sides (CPython 3.12 and later);
this switch stores seven registers and a dozen fields of the thread state, whatever the depth.  The C half is in
native_switch.h and the four headers that it names.

What it cannot do
-----------------
- Two kinds of stack slicing in one place do not mix: a user's greenlet belongs to the part of the C stack on which it
  was started.  A fiber may make greenlets, switch between them and finish them; what it may not do is to *wait* while
  one of them runs.  That is refused (``leave_elsewhere``), with RuntimeError; the frames in use tell.  For the same
  reason the hub must run in the thread's main greenlet.
- A greenlet that one fiber made and another one switches to, or collects, crashes; nobody can see that from here.
  Programs that do this use the other backend.
- The garbage collector does not see the C stack: what a parked fiber refers to stays alive, also if nothing else
  refers to the fiber.  The scheduler holds live fibers anyway.

Invariants
----------
- A stack that has been switched to holds a reference to itself until it is unwound: never freed under its own feet,
  and never unwound by a deallocation.
- ``here`` of the running stack is out of date, and its context is NULL.
- Nothing is raised between the two halves of a switch; a switch allocates nothing.
"""

import traceback

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from .policy cimport Runnable
from .switch cimport Backend, Stack, StackMain, thread_frames_root


cdef extern from "native_switch.h":
    const char *native_refusal()
    const char *native_space_refusal()
    void native_thread_prepare()
    void native_overflow_prepare()
    void native_switch(native_continuation *leaving, native_continuation *to) noexcept
    void native_leave(native_continuation *leaving, native_continuation *to) noexcept
    void native_begin(native_continuation *c, native_stack *s, void (*main)(void *) noexcept, void *argument)
    native_stack *native_stack_get()
    void native_stack_put(native_stack *s)
    void *native_stack_frames(native_stack *s)
    PyObject *native_stack_frame(native_continuation *c)
    Py_ssize_t native_stack_count
    Py_ssize_t native_free_count
    bint native_guards_split
    size_t native_stack_size()
    int native_c_calls(size_t size)
    void native_fatal "Py_FatalError"(const char *message)

cdef extern from "greenlet/greenlet.h":
    ctypedef struct PyGreenlet:
        pass
    void PyGreenlet_Import()
    PyGreenlet *PyGreenlet_GetCurrent()

cdef extern from *:
    """
    /* A new reference from C. */
    static inline PyObject *swapco_take(PyObject *owned) { return owned; }
    """
    object _take "swapco_take"(PyObject *owned)

PyGreenlet_Import()


cdef class NativeStack(Stack):
    """A C stack of its own."""

    cdef int switch_from(self, Stack leaving) noexcept:
        native_switch(&(<NativeStack>leaving).here, &self.here)
        return 0

    cdef int leave_elsewhere(self) except -1:
        if thread_frames_root() == self.root_chunk:
            return 0
        raise RuntimeError(
            "a fiber cannot wait inside a greenlet when fibers switch natively: wait outside the greenlet, or let "
            "greenlets carry the fibers, too: swapco.run(main, switch=\"greenlet\"), or SWAPCO_SWITCH=greenlet in the "
            "environment"
        )

    cdef object frame(self):
        cdef PyObject *found = NULL
        if self.memory != NULL:
            found = native_stack_frame(&self.here)
        return None if found == NULL else _take(found)


cdef void _main(void *p) noexcept:
    """The first and the last function of every native stack."""
    if _call_entry(<PyObject *>p) < 0:
        native_fatal("the entry of a native stack raised")
    native_leave(
        &(<NativeStack><PyObject *>p).here, &(<NativeStack>(<NativeStack><PyObject *>p).unwinder).here
    )


cdef int _call_entry(PyObject *p) noexcept:
    try:
        return (<NativeStack>p).entry.main(<NativeStack>p)
    except BaseException:
        traceback.print_exc()
        return -1


cdef class NativeBackend(Backend):
    """Native stacks; RuntimeError where they do not work."""

    def __cinit__(self):
        if native_refusal() != NULL:
            raise RuntimeError(f"fibers cannot switch natively: {build_refusal()}")
        self.name = "native"

    cdef bint may_run_here(self) except -1:
        return _take(<PyObject *>PyGreenlet_GetCurrent()).parent is None

    cdef object call_in_hub(self, object fn):
        native_overflow_prepare()
        return fn()

    cdef Stack adopt(self):
        cdef NativeStack stack = NativeStack.__new__(NativeStack)
        native_thread_prepare()
        stack.root_chunk = thread_frames_root()
        return stack

    cdef Stack create(self, StackMain entry, Stack hub):
        cdef NativeStack stack = NativeStack.__new__(NativeStack)
        stack.entry = entry
        stack.memory = native_stack_get()
        if stack.memory == NULL:
            raise MemoryError(
                f"no address space for one more fiber's stack; there are {native_stack_count}"
                + (" (vm.max_map_count is the limit on this kernel)" if native_guards_split else "")
            )
        stack.root_chunk = native_stack_frames(stack.memory)
        native_begin(&stack.here, stack.memory, _main, <void *>stack)
        Py_INCREF(stack)  # until it is unwound
        return stack

    cdef int unwind(self, Stack stack, Stack hub) except -1:
        cdef NativeStack dying = <NativeStack>stack
        dying.fiber = None
        dying.unwinder = <PyObject *>hub
        dying.switch_from(hub)
        native_stack_put(dying.memory)
        dying.memory = NULL
        dying.entry = None
        Py_DECREF(dying)
        return 0


def build_refusal():
    """Why this build, or this process, has no native stacks; None: it has."""
    cdef const char *refusal = native_refusal()
    if refusal == NULL:
        refusal = native_space_refusal()
    return None if refusal == NULL else refusal.decode()


def statistics() -> dict:
    """Native stacks of the process: how many, how many of them free, and the size of the ones that are made now.

    ``c_calls``: how many nested calls of C code CPython lets a fiber make (3.11 counts them as Python frames);
    ``guards_split``: the guards cost mappings, of which a process has few.
    """
    return {
        "stacks": native_stack_count,
        "free": native_free_count,
        "stack_bytes": native_stack_size(),
        "c_calls": native_c_calls(native_stack_size()),
        "guards_split": native_guards_split,
    }


# ------------------------------------------------------------------------------------------ self-test

cdef class _Probe(StackMain):
    """Calls a function each time it is switched to, and keeps what that returned."""

    cdef object look
    cdef Stack hub
    cdef list seen

    cdef int main(self, Stack stack) except -1:
        while stack.fiber is not None:
            try:
                self.seen.append(self.look())
            except BaseException as error:
                self.seen.append(error)
            self.hub.switch_from(stack)
        return 0


def probe(look, Py_ssize_t count, Py_ssize_t rounds) -> list:
    """Call ``look()`` on ``count`` native stacks in turn, ``rounds`` times each: what it returned, in that order."""
    cdef NativeBackend backend = NativeBackend()
    cdef _Probe entry = _Probe.__new__(_Probe)
    cdef Runnable somebody = Runnable.__new__(Runnable)
    cdef Stack stack
    cdef list stacks
    entry.look = look
    entry.hub = backend.adopt()
    entry.seen = []
    stacks = [backend.create(entry, entry.hub) for _ in range(count)]
    for _ in range(rounds):
        for stack in stacks:
            stack.fiber = somebody
            stack.switch_from(entry.hub)
    for stack in stacks:
        backend.unwind(stack, entry.hub)
    return entry.seen
