/* What is behind a callable, without running any code of it: exact types and C fields, and no attributes. */
#ifndef SWAPCO_CALLABLES_H
#define SWAPCO_CALLABLES_H

#include <Python.h>

/* All of these borrow. */

/* What a function's own dictionary has as __wrapped__ (functools.wraps), if that can be called; or NULL.
   Looking a key up might call __eq__ of another one; these dictionaries are empty or small. */
static PyObject *swapco_wrapped(PyObject *function)
{
    PyObject *own = ((PyFunctionObject *)function)->func_dict;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    if (own == NULL)
        return NULL;
    while (PyDict_Next(own, &at, &name, &value))
        if (PyUnicode_CheckExact(name) && PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0)
            return PyCallable_Check(value) ? value : NULL;
    return NULL;
}

/* Of a bound method in C, which is made anew at each access, the descriptor in its class; NULL with no exception set
   if the callable is something else, or no class has it. */
static PyObject *swapco_method_descriptor(PyObject *callable)
{
    PyObject *self, *name, *found;
    PyMethodDef *method;
    if (!PyCFunction_Check(callable))
        return NULL;
    self = ((PyCFunctionObject *)callable)->m_self;
    method = ((PyCFunctionObject *)callable)->m_ml;
    if (self == NULL || PyModule_Check(self) || (name = PyUnicode_InternFromString(method->ml_name)) == NULL) {
        PyErr_Clear();
        return NULL;
    }
    found = _PyType_Lookup(Py_TYPE(self), name);
    if (found == NULL && PyType_Check(self))
        found = _PyType_Lookup((PyTypeObject *)self, name);
    Py_DECREF(name);
    if (found == NULL || !(Py_IS_TYPE(found, &PyMethodDescr_Type) || Py_IS_TYPE(found, &PyClassMethodDescr_Type)))
        return NULL;
    return ((PyMethodDescrObject *)found)->d_method == method ? found : NULL;
}

/* Part of a class, which outlives it: may be held. */
static inline int swapco_is_descriptor(PyObject *callable)
{
    return Py_IS_TYPE(callable, &PyMethodDescr_Type) || Py_IS_TYPE(callable, &PyClassMethodDescr_Type)
        || Py_IS_TYPE(callable, &PyWrapperDescr_Type);
}

static inline int swapco_can_be_watched(PyObject *object)
{
    return PyType_SUPPORTS_WEAKREFS(Py_TYPE(object));
}

/* Does a call of both begin in the same C function?  It does for all classes that define __call__ in Python. */
static inline int swapco_called_alike(PyObject *one, PyObject *other)
{
    return Py_TYPE(one)->tp_call == Py_TYPE(other)->tp_call;
}

#endif
