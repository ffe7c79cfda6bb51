/* Does the calling kernel thread collect garbage right now, and do its Python frames lie where its fiber's begin?
 *
 * The two questions before each wait (fiber.pyx: _may_wait), as loads from thread-local memory: asking CPython for the
 * thread state each time took longer than the switch. */
#ifndef SWAPCO_COLLECTION_H
#define SWAPCO_COLLECTION_H

#include <Python.h>

/* The thread state of the thread that collects; NULL: none does. */
static PyThreadState *swapco_collecting;
/* The thread state of this kernel thread, once a loop has run in it. */
static __thread PyThreadState *swapco_thread __attribute__((tls_model("initial-exec")));

static inline int swapco_collecting_here(void) { return swapco_collecting == swapco_thread; }
static inline void *swapco_frames_chunk(void) { return swapco_thread->datastack_chunk; }
static inline void swapco_note_thread(void) { swapco_thread = PyThreadState_Get(); }
static inline void swapco_note_collecting(int on) { swapco_collecting = on ? PyThreadState_Get() : NULL; }

#endif
