/* What CPython keeps per kernel thread and means per C stack: saved and restored at every switch of stacks.
 *
 * The interpreter's idea of "where this thread is" lies in PyThreadState: the innermost frame, the exception being
 * handled, how deep the recursion is, where the next frame's memory comes from. With one C stack a thread that is the
 * same as where the stack is; with many, these fields travel with the stack, and all others stay with the thread.
 *
 *                            3.11                3.12                    3.13                   a fresh stack has
 *   innermost frame          cframe              cframe                  current_frame          an own cframe, NULL in it
 *   Python frames deep       recursion_*         py_recursion_*          py_recursion_*         0
 *   C calls to go            (the same)          c_recursion_remaining   c_recursion_remaining  by the stack's size
 *   deallocations nested     trash_delete_       trash.delete_nesting    (C calls to go)        0
 *                              nesting
 *   in a trace function      tracing,            tracing, what_event     tracing, what_event    0, none
 *                              tracing_what
 *   RecursionError's reserve recursion_headroom  the same                the same               0
 *   memory of frames         datastack_*         the same                the same               a seeded chunk
 *   exceptions being handled exc_info            the same                the same               an own item, NULL in it
 *   contextvars              context             the same                the same               NULL
 *
 * Rules:
 * - The depth is stored, not what remains: sys.setrecursionlimit may come between.
 * - 3.11 caches "somebody traces" in the cframe: computed anew at each restore, for it may have changed meanwhile.
 * - The context is moved, not copied: one reference, in the thread state or here; what is here of a running stack
 *   is NULL. `context_ver` tells the interpreter's caches that it changed.
 * - Of the C++ runtime, the exceptions being caught (__cxa_eh_globals of the C++ ABI, 2.2.2): a fiber may be inside a
 *   catch block of an extension module. Found in libstdc++, if the process has one.
 * - Left alone, because they belong to the thread: pending deallocations, trace and profile functions, the dict, the
 *   GIL's counters, hooks of asynchronous generators, the raised exception (never set at a switch).
 *
 * All fields are in the public headers of these versions; anything else does not compile. */
#ifndef SWAPCO_NATIVE_THREAD_H
#define SWAPCO_NATIVE_THREAD_H

#include <Python.h>
#include <dlfcn.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "swapco supports CPython 3.11, 3.12 and 3.13"
#endif

#if PY_VERSION_HEX < 0x030C0000
#define NATIVE_DEPTH(t) ((t)->recursion_limit - (t)->recursion_remaining)
#define NATIVE_SET_DEPTH(t, depth) ((t)->recursion_remaining = (t)->recursion_limit - (depth))
#define NATIVE_EVENT(t) ((t)->tracing_what)
#else
#define NATIVE_DEPTH(t) ((t)->py_recursion_limit - (t)->py_recursion_remaining)
#define NATIVE_SET_DEPTH(t, depth) ((t)->py_recursion_remaining = (t)->py_recursion_limit - (depth))
#define NATIVE_EVENT(t) ((t)->what_event)
#endif

/* The head of __cxa_eh_globals. */
typedef struct {
    void *caught;
    unsigned int uncaught;
} native_cxx_globals;

static native_cxx_globals *(*native_cxx_find)(void);
static __thread native_cxx_globals native_cxx_none;
static __thread native_cxx_globals *native_cxx __attribute__((tls_model("initial-exec")));

/* What lies at the base of a stack as long as it lives: a fresh stack's thread state points to it. */
typedef struct {
    _PyErr_StackItem handled;
#if PY_VERSION_HEX < 0x030D0000
    _PyCFrame cframe;
#endif
} native_thread_base;

typedef struct {
#if PY_VERSION_HEX < 0x030D0000
    _PyCFrame *cframe;
    int trash;
#else
    struct _PyInterpreterFrame *frame;
#endif
#if PY_VERSION_HEX >= 0x030C0000
    int c_calls;
#endif
    int depth;
    int headroom;
    int tracing;
    int event;
    _PyStackChunk *chunk;
    PyObject **top;
    PyObject **limit;
    _PyErr_StackItem *handled;
    PyObject *context;
    native_cxx_globals cxx;
} native_thread_state;

/* Asking CPython for it at every switch takes longer than the registers. */
static __thread PyThreadState *native_this_thread __attribute__((tls_model("initial-exec")));

/* The calling kernel thread is about to switch. */
static void native_thread_prepare(void)
{
    native_this_thread = PyThreadState_Get();
    if (native_cxx_find == NULL) {
        void *library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
        if (library != NULL)
            native_cxx_find = (native_cxx_globals *(*)(void))dlsym(library, "__cxa_get_globals");
    }
    native_cxx = native_cxx_find == NULL ? &native_cxx_none : native_cxx_find();
}

static inline void native_thread_save(PyThreadState *t, native_thread_state *s)
{
#if PY_VERSION_HEX < 0x030C0000
    s->cframe = t->cframe;
    s->trash = t->trash_delete_nesting;
#elif PY_VERSION_HEX < 0x030D0000
    s->cframe = t->cframe;
    s->trash = t->trash.delete_nesting;
    s->c_calls = t->c_recursion_remaining;
#else
    s->frame = t->current_frame;
    s->c_calls = t->c_recursion_remaining;
#endif
    s->depth = NATIVE_DEPTH(t);
    s->headroom = t->recursion_headroom;
    s->tracing = t->tracing;
    s->event = NATIVE_EVENT(t);
    s->chunk = t->datastack_chunk;
    s->top = t->datastack_top;
    s->limit = t->datastack_limit;
    s->handled = t->exc_info;
    s->context = t->context;
    s->cxx = *native_cxx;
}

static inline void native_thread_restore(PyThreadState *t, native_thread_state *s)
{
    t->tracing = s->tracing;
#if PY_VERSION_HEX < 0x030C0000
    t->cframe = s->cframe;
    s->cframe = NULL;
    t->cframe->use_tracing = t->tracing == 0 && (t->c_tracefunc != NULL || t->c_profilefunc != NULL) ? 255 : 0;
    t->trash_delete_nesting = s->trash;
#elif PY_VERSION_HEX < 0x030D0000
    t->cframe = s->cframe;
    s->cframe = NULL;
    t->trash.delete_nesting = s->trash;
    t->c_recursion_remaining = s->c_calls;
#else
    t->current_frame = s->frame;
    s->frame = NULL;
    t->c_recursion_remaining = s->c_calls;
#endif
    NATIVE_SET_DEPTH(t, s->depth);
    t->recursion_headroom = s->headroom;
    NATIVE_EVENT(t) = s->event;
    t->datastack_chunk = s->chunk;
    t->datastack_top = s->top;
    t->datastack_limit = s->limit;
    t->exc_info = s->handled;
    if (t->context != s->context) {
        t->context = s->context;
        t->context_ver++;
    }
    s->context = NULL;
    *native_cxx = s->cxx;
}

/* The state of a stack on which nothing has run; `chunk` is room for its first frames. */
static void native_thread_fresh(native_thread_state *s, native_thread_base *base, _PyStackChunk *chunk,
                                size_t chunk_bytes, int c_calls)
{
    memset(s, 0, sizeof *s);
    memset(base, 0, sizeof *base);
#if PY_VERSION_HEX < 0x030D0000
    base->cframe.previous = &PyThreadState_Get()->root_cframe;
    s->cframe = &base->cframe;
#endif
#if PY_VERSION_HEX >= 0x030C0000
    s->c_calls = c_calls;
#endif
    s->event = -1;
    s->handled = &base->handled;
    /* as in push_chunk of Python/pystate.c: the first slot of a root chunk stays empty, so that it is never popped */
    chunk->previous = NULL;
    chunk->size = chunk_bytes;
    chunk->top = 0;
    s->chunk = chunk;
    s->top = &chunk->data[1];
    s->limit = (PyObject **)((char *)chunk + chunk_bytes);
}

/* The innermost Python frame of a parked stack: a new reference, or NULL without an exception (it runs). Making the frame's
 * object must not collect garbage: Python code would run with the wrong frame. */
static PyObject *native_thread_frame(native_thread_state *s)
{
    PyThreadState *t = PyThreadState_Get();
    PyFrameObject *found;
    int collects;
#if PY_VERSION_HEX < 0x030D0000
    _PyCFrame *here = t->cframe;
    if (s->cframe == NULL)
        return NULL;
    collects = PyGC_Disable();
    t->cframe = s->cframe;
    found = PyThreadState_GetFrame(t);
    t->cframe = here;
#else
    struct _PyInterpreterFrame *here = t->current_frame;
    if (s->frame == NULL)
        return NULL;
    collects = PyGC_Disable();
    t->current_frame = s->frame;
    found = PyThreadState_GetFrame(t);
    t->current_frame = here;
#endif
    if (collects)
        PyGC_Enable();
    return (PyObject *)found;
}

#endif
