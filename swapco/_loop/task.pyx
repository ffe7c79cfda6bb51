"""From asyncio's side: a fiber is a future, and answers to what libraries ask of a task.

``await fiber`` in a coroutine, ``asyncio.gather(fiber, task)``, ``asyncio.wait``, done callbacks: all of them
know a future by its protocol (``_asyncio_future_blocking``, ``add_done_callback``, ``get_loop``), and a task
by its methods.  ``isinstance(fiber, asyncio.Task)`` is False: a task runs a coroutine step by step, a fiber does
not.  Libraries also look at ``_must_cancel``, ``_fut_waiter``, ``get_coro`` and ``_log_destroy_pending``; they
are here.

An exception that nobody retrieves is logged when the fiber is collected, as for a task.
"""

import linecache
import traceback
from types import GenericAlias

from .._core.fiber cimport enter, look, outside, section
from .._core.scheduler cimport Scheduler
from .._core.states cimport DONE
from .awaiting cimport AwaitingFiber

from .._core.errors import CancelledError, InvalidStateError
from .compat import unregister_task

cdef extern from *:
    """
    /* A new object without calling __init__, and without the dict of keywords of a call from Python. */
    static inline PyObject *swapco_new(PyTypeObject *type)
    {
        static PyObject *nothing;
        if (nothing == NULL && (nothing = PyTuple_New(0)) == NULL)
            return NULL;
        return type->tp_new(type, nothing, NULL);
    }
    """
    Fiber swapco_new(type type)

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)
    object PyContext_CopyCurrent()


cdef class _Given:
    """A function that returns the coroutine object that the fiber was made with."""

    cdef object coroutine

    def __init__(self, coroutine):
        self.coroutine = coroutine

    @property
    def __qualname__(self) -> str:
        return self.coroutine.__qualname__

    def __call__(self):
        return self.coroutine


cdef class Fiber(AwaitingFiber):
    """A flow of control with a stack of its own; made by ``spawn``.

    Has the methods of asyncio's Task: ``cancel``, ``result``, ``exception``, ``add_done_callback`` …, and can be
    awaited by coroutines; ``join()`` waits for it from a fiber.
    """

    def __cinit__(self):
        self._asyncio_future_blocking = False
        self._log_destroy_pending = True

    # ``Fiber[int]`` in annotations: a fiber whose result is an int
    __class_getitem__ = classmethod(GenericAlias)

    cdef bint accepts(self, object fn) except -1:
        return callable(fn) or PyCoro_CheckExact(fn)

    cdef object function_of(self, object fn):
        return _Given(fn) if PyCoro_CheckExact(fn) else fn

    cdef int discard(self) except -1:
        if isinstance(self.fn, _Given):
            (<_Given>self.fn).coroutine.close()
        return 0

    cdef int complete(self, object returned) noexcept:
        if not PyCoro_CheckExact(returned):
            self.result_value = returned
            return 0
        # the result of calling an ``async def`` function
        try:
            self.result_value = self.drive(returned)
        except BaseException as error:
            self.exception_value = error
        return 0

    cdef int on_finished(self) except -1:
        if self.registered:
            unregister_task(self)
        if self.callbacks is not None:
            self.schedule_callbacks()
        return 0

    cdef int schedule_callbacks(self) except -1:
        cdef object callbacks = self.callbacks
        self.callbacks = None
        for callback, context in callbacks:
            self.scheduler.hub.call_soon(callback, self, context)
        return 0

    # -- the future

    def result(self):
        """The result, or raise what the fiber raised; InvalidStateError while it is not done.  See ``join``."""
        look(self)
        if self._state != DONE:
            raise InvalidStateError(f"{self!r} has no result yet: wait for it with join()")
        return self.outcome()

    def exception(self):
        """What the fiber raised, or None; raises CancelledError if that, InvalidStateError while not done."""
        look(self)
        if self._state != DONE:
            raise InvalidStateError(f"{self!r} has no outcome yet: wait for it with join()")
        self.result_retrieved = True
        if isinstance(self.exception_value, CancelledError):
            raise self.exception_value
        return self.exception_value

    def add_done_callback(self, fn, *, context=None) -> None:
        """Have ``fn(fiber)`` called by the event loop once the fiber is done (soon, if it is)."""
        cdef section here = outside()
        enter(&here.worker, self)
        if not callable(fn):
            raise TypeError(f"a done callback must be callable, not {fn!r}")
        if context is None:
            context = PyContext_CopyCurrent()
        if self._state == DONE:
            self.scheduler.hub.call_soon(fn, self, context)
        else:
            if self.callbacks is None:
                self.callbacks = []
                self.watched = True
            self.callbacks.append((fn, context))

    def remove_done_callback(self, fn) -> int:
        """Take back every registration of ``fn``; returns how many there were."""
        cdef section here = outside()
        enter(&here.worker, self)
        before = self.callbacks or []
        self.callbacks = [pair for pair in before if pair[0] != fn] or None
        return len(before) - len(self.callbacks or ())

    def __await__(self):
        look(self)
        if self._state != DONE:
            self._asyncio_future_blocking = True
            self.register()
            yield self
        if self._state != DONE:
            raise RuntimeError("await wasn't used with future")
        return self.outcome()

    __iter__ = __await__

    def get_loop(self):
        """The event loop that the fiber belongs to."""
        return self.event_loop()

    @property
    def _loop(self):
        return self.event_loop()

    # -- the task

    def get_name(self) -> str:
        """The name; also the attribute ``name``."""
        return self.name

    def set_name(self, value) -> None:
        """Change the name."""
        self.name = value

    def get_coro(self):
        """The coroutine that the fiber drives at the moment, or None."""
        return self.coroutine

    def get_context(self):
        """The contextvars context that the fiber runs in; None once it is done."""
        return self.context

    def set_result(self, result):
        """Not for a fiber: its function sets the result."""
        raise RuntimeError("a fiber's result is what its function returns: set_result is not supported")

    def set_exception(self, exception):
        """Not for a fiber: its function sets the exception."""
        raise RuntimeError("a fiber's exception is what its function raises: set_exception is not supported")

    def get_stack(self, *, limit=None) -> list:
        """The Python frames of a parked fiber, the outermost first; of a failed one, those of its traceback."""
        frames = []
        if self.exception_value is not None:
            entry = self.exception_value.__traceback__
            while entry is not None:
                frames.append(entry.tb_frame)
                entry = entry.tb_next
            return frames[:limit] if limit is not None else frames
        frame = self.frame
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        if limit is not None:
            del frames[limit:]
        frames.reverse()
        return frames

    def print_stack(self, *, limit=None, file=None) -> None:
        """Print ``get_stack`` in the form of a traceback."""
        frames = self.get_stack(limit=limit)
        print(f"Stack for {self!r} (most recent call last):" if frames else f"No stack for {self!r}", file=file)
        for frame in frames:
            linecache.checkcache(frame.f_code.co_filename)
        summary = [
            traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            for frame in frames
        ]
        print("".join(traceback.format_list(summary)), file=file, end="")

    # -- what libraries look at

    @property
    def _must_cancel(self) -> bool:
        return self.cancel_pending

    @property
    def _fut_waiter(self):
        return self.awaited

    @property
    def _cancel_message(self):
        return self.cancel_message

    @property
    def _exception(self):
        return self.exception_value

    @property
    def _result(self):
        return self.result_value

    @property
    def _log_traceback(self) -> bool:
        return self._state == DONE and self.exception_value is not None and not self.result_retrieved

    @_log_traceback.setter
    def _log_traceback(self, value) -> None:
        if value:
            raise ValueError("_log_traceback can only be set to False")
        self.result_retrieved = True

    def _make_cancelled_error(self):
        error = self.exception_value
        return error if isinstance(error, CancelledError) else CancelledError()

    def __del__(self):
        if self.exception_value is None or self.result_retrieved or self.scheduler is None:
            return
        if isinstance(self.exception_value, CancelledError):
            return
        loop = self.event_loop()
        if loop is None:
            return
        loop.call_exception_handler({
            "message": f"Fiber exception was never retrieved: nobody joined {self.name!r}",
            "exception": self.exception_value,
            "future": self,
        })


cdef Fiber new_fiber(Scheduler scheduler, object fn, tuple args, object name, object context):
    """A fiber that is not queued yet."""
    cdef Fiber fiber = swapco_new(scheduler.fiber_type)
    fiber.set_up(scheduler, fn, args, name, context)
    return fiber
