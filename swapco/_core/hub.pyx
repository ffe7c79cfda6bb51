"""The hub: the interface through which the core reaches an event loop.

The core has no event loop in it.  A scheduler drains its run queue whenever the loop calls it, and asks the
loop for the few things below; ``swapco._loop.loop`` implements them on uvloop.

- ``request_drain``: call the scheduler's ``drain`` once, soon, from the loop, and clear
  ``callbacks_waiting``: every callback queued before this one will have run by then.
- ``arm_timer``: call ``drain`` at this point in time at the latest (``NEVER_NS``: no more).
- ``notify``: the same as request_drain, from any thread.
- ``went_idle``: the drain found nothing to run; look for a deadlock if nothing can ever wake a fiber.
- ``fail``: stop the loop; the error leaves ``run_forever`` (KeyboardInterrupt of a fiber, a broken policy).
- ``call_soon``: run a done callback from the loop.
- ``threads_begin``: home is about to start the first kernel thread for fibers.

``fail`` and ``call_soon`` may come from another worker than home, which is asleep then and must not be touched: they
are noted (``unsettled``), and home acts on them when it has the slot again (``settle``).
"""


cdef class Hub:
    """The interface; each method is called by the owner of the slot, ``notify`` by anyone."""

    cdef int request_drain(self) except -1:
        raise TypeError(f"{type(self).__name__} does not implement request_drain")

    cdef int arm_timer(self, long long deadline_ns) except -1:
        raise TypeError(f"{type(self).__name__} does not implement arm_timer")

    cdef int notify(self) except -1:
        raise TypeError(f"{type(self).__name__} does not implement notify")

    cdef int went_idle(self) except -1:
        raise TypeError(f"{type(self).__name__} does not implement went_idle")

    cdef int fail(self, object error) except -1:
        raise TypeError(f"{type(self).__name__} does not implement fail")

    cdef int settle(self) except -1:
        raise TypeError(f"{type(self).__name__} does not implement settle")

    cdef int call_soon(self, object callback, object argument, object context) except -1:
        raise TypeError(f"{type(self).__name__} does not implement call_soon")

    cdef int threads_begin(self) except -1:
        return 0
