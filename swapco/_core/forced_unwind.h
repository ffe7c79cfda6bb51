/* A daemon thread that Python ends at interpreter exit must not be unwound through greenlets.
 *
 * Up to CPython 3.13, a thread that asks for the GIL after the interpreter began to finalize is ended with
 * pthread_exit, which walks the thread's C stack and runs the clean-ups it finds. Below the base of a greenlet lies
 * whatever other greenlets left there, and greenlet's own frames have C++ destructors, which give references up:
 * without the GIL, while the main thread collects garbage. So the walk ends at the base of each greenlet of ours, and
 * the thread sleeps until the process is gone, as CPython 3.14 lets all of them do.
 *
 * Any other forced unwind (somebody called pthread_exit inside a fiber) goes on: the caller may hold the GIL.
 * Needs -fexceptions: without it, C has no clean-ups for a walk to find. */
#ifndef SWAPCO_FORCED_UNWIND_H
#define SWAPCO_FORCED_UNWIND_H

#include <Python.h>
#include <unistd.h>

#ifndef __EXCEPTIONS
#error "compile with -fexceptions"
#endif

static void sleep_if_python_ends(int *unwound)
{
#if PY_VERSION_HEX >= 0x030D0000
    int ending = Py_IsFinalizing();
#else
    int ending = _Py_IsFinalizing();
#endif
    while (*unwound && ending)
        pause();
}

/* Call `main(argument)` on a stack that begins here. */
static __attribute__((noinline)) PyObject *call_at_base(PyObject *(*main)(PyObject *), PyObject *argument)
{
    __attribute__((cleanup(sleep_if_python_ends))) int unwound = 1;
    PyObject *returned = main(argument);
    unwound = 0;
    return returned;
}

#endif
