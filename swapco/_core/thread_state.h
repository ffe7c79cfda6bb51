/* What the switch must know of the calling kernel thread's state: its context, its Python frames and their depth.
 *
 * The context (contextvars) is assigned, not entered.
 * A parked fiber must not hold its context entered: PyContext_Enter refuses a context that is entered
 * already, so a callback or a second fiber with the same context would fail. So a fiber's context is
 * assigned to the thread state when the fiber first runs; each switch then keeps it with the stack.
 * All fields used here are part of the public struct in CPython 3.11 to 3.13. */
#ifndef SWAPCO_THREAD_STATE_H
#define SWAPCO_THREAD_STATE_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "swapco supports CPython 3.11, 3.12 and 3.13"
#endif

static inline void thread_context_assign(PyObject *context)
{
    PyThreadState *thread = PyThreadState_Get();
    PyObject *previous = thread->context;
    if (previous == context)
        return;
    Py_XINCREF(context);
    thread->context = context;
    thread->context_ver++;
    Py_XDECREF(previous);
}

static inline PyObject *thread_context_borrow(void)
{
    return PyThreadState_Get()->context;
}

/* Which memory the calling greenlet's Python frames live in. A greenlet has chunks of its own; the first one
 * stays until the greenlet ends, so its address tells greenlets apart. NULL before the first frame. */
static inline void *thread_frames_chunk(void)
{
    return PyThreadState_Get()->datastack_chunk;
}

static inline void *thread_frames_root(void)
{
    _PyStackChunk *chunk = PyThreadState_Get()->datastack_chunk;
    while (chunk != NULL && chunk->previous != NULL)
        chunk = chunk->previous;
    return chunk;
}

/* A fiber's Python frames are counted from zero: a greenlet would go on from the depth of whoever started it, which
 * is the depth at which the program called run(). */
static inline void thread_recursion_restart(void)
{
    PyThreadState *thread = PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030C0000
    thread->py_recursion_remaining = thread->py_recursion_limit;
#else
    thread->recursion_remaining = thread->recursion_limit;
#endif
}

#endif
