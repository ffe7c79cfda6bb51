"""Stacks, and the switch from one to another: the interface of its two backends.

A *stack* is a reusable execution context.  A fiber runs *on* a stack; when it ends, the stack takes the next
new fiber, or goes to the scheduler's pool.  The interface:

- ``Backend.may_run_here()``: may the caller become a hub?
- ``Backend.call_in_hub(fn)``: call ``fn()``, which becomes one;
- ``Backend.adopt()``: the stack that the caller runs on (the hub's);
- ``Backend.create(entry, hub)``: a fresh stack that calls ``entry.main(stack)`` when it is first switched to;
  MemoryError if there is no room for one;
- ``Backend.unwind(stack, hub)``: by the hub: let an idle stack return from its entry and die;
- ``stack.switch_from(leaving)``: continue ``stack`` and suspend the caller, which runs on ``leaving``;
  returns when somebody switches back;
- ``stack.leave_elsewhere()``: its fiber is about to wait, and does not run on the stack's own Python frames:
  refuse here, before anything has changed.

greenlet_switch.pyx copies C stacks (works everywhere, with everything); native_switch.pyx exchanges registers (an
order of magnitude faster, where it is supported); backends.py chooses.

Rules that every backend and every caller keeps:

1. Stacks belong to the kernel thread that made them, for ever.
2. Only the hub makes the first switch to a stack.  A greenlet inherits the recursion depth and the stack
   position of whoever starts it: started in a chain, the thousandth raises RecursionError.
3. A stack never ends by itself; only the hub unwinds it.  So nothing ever falls out of a stack into
   whatever its parent happens to be by then.
4. An exception is never thrown into another stack (the thrower would be stranded): make the fiber runnable
   with the exception pending, and let it raise when it runs.
5. The current exception, the recursion depth and the context travel with the stack.
6. A fiber's Python frames are counted from zero, whatever the depth of ``run()``.

Rejected: one stack a fiber (starting a greenlet costs 8 to 16 µs, reusing one 1 µs); letting the stack of a finished
fiber die at once (a greenlet would switch to its parent, the hub: one needless trip a fiber).
"""


cdef class Stack:
    """An execution context; see the rules above."""

    cdef int switch_from(self, Stack leaving) noexcept:
        return 0

    cdef int leave_elsewhere(self) except -1:
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

    cdef bint may_run_here(self) except -1:
        return True

    cdef object call_in_hub(self, object fn):
        raise TypeError(f"{type(self).__name__} does not implement call_in_hub")

    cdef Stack adopt(self):
        raise TypeError(f"{type(self).__name__} does not implement adopt")

    cdef Stack create(self, StackMain entry, Stack hub):
        raise TypeError(f"{type(self).__name__} does not implement create")

    cdef int unwind(self, Stack stack, Stack hub) except -1:
        raise TypeError(f"{type(self).__name__} does not implement unwind")
