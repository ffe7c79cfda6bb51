/* A program that is started while its starter is pinned would keep to that one CPU for ever.
 *
 * The workers of a slot are pinned while they take turns (placement.py), and a child process inherits the mask of the
 * thread that starts it. After os.fork a hook gives it back (affinity.py); but subprocess and posix_spawn use vfork,
 * where nothing of ours runs in the child. What does run is CPython's audit hook, before it, in the thread that is about
 * to start a program: it unpins that thread, which is pinned again when it gets the slot the next time.
 *
 * The hook is installed when something is pinned for the first time in the process: with one, each audited call (id(),
 * open, import) takes 0.1 us longer.
 *
 * Rejected: subprocess._USE_VFORK = False (a fork of a large process is slow; and posix_spawn is not covered);
 * replacing functions of subprocess. */
#ifndef SWAPCO_INHERITANCE_H
#define SWAPCO_INHERITANCE_H

#include "slot_word.h"

#include <Python.h>
#include <pthread.h>

/* Of a worker's thread: its swapco_worker. */
static pthread_key_t swapco_worker_key;
/* Of the thread of a home worker that is pinned: its slot. */
static __thread swapco_slot *swapco_pinned_home;

static int inheritance_hook(const char *event, PyObject *args, void *unused)
{
    static const char *const starts[] = {"subprocess.Popen", "os.posix_spawn", "os.exec", "os.spawn", "os.system", NULL};
    swapco_worker *w = NULL;
    swapco_slot *s;
    (void)args;
    (void)unused;
    if (event[0] != 's' && event[0] != 'o')
        return 0;
    for (int i = 0; starts[i] != NULL; i++) {
        if (strcmp(event, starts[i]) != 0)
            continue;
        if (swapco_pinned_home != NULL)
            w = swapco_pinned_home->home;
        else
            w = (swapco_worker *)pthread_getspecific(swapco_worker_key);
        if (w == NULL || (s = w->slot) == NULL || atomic_load(&s->cpu) < 0)
            return 0;
        atomic_store(&w->displaced, 1);
        sched_setaffinity(0, sizeof s->allowed, &s->allowed);
        return 0;
    }
    return 0;
}

/* -1 with an exception set, if another hook does not want this one. */
static int inheritance_prepare(void)
{
    static int done;
    if (done)
        return 0;
    done = 1;
    return PySys_AddAuditHook(inheritance_hook, NULL);
}

static inline void inheritance_home_is_pinned(swapco_slot *s) { swapco_pinned_home = s; }

#endif
