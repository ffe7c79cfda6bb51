/* Calling a fiber's function, and what comes of it. */
#ifndef SWAPCO_CALLS_H
#define SWAPCO_CALLS_H

#include <Python.h>

/* NULL with an exception set, or a new reference. */
static inline PyObject *swapco_call(PyObject *fn, PyObject *args)
{
    return args == NULL || PyTuple_GET_SIZE(args) == 0 ? PyObject_CallNoArgs(fn) : PyObject_Call(fn, args, NULL);
}

/* The exception that is set, with its traceback; clears it. */
static PyObject *swapco_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL)
        PyException_SetTraceback(value, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
#endif
}

#endif
