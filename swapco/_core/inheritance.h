/* A thread or a program that is started while its starter is pinned would keep to that one CPU for ever.
 *
 * The workers of a slot are pinned while they take turns (placement.py), and a new thread and a child process inherit
 * the mask of the thread that starts them. After os.fork a hook gives it back (affinity.py); but subprocess and
 * posix_spawn use vfork, where nothing of ours runs in the child, and a new thread is not ours either. What does run
 * is CPython's audit hook, before it, in the thread that is about to start something: it unpins that worker, which is
 * pinned again when it gets the slot the next time.
 *
 * Home needs none of this: it is pinned only while it sleeps. Nobody is told of threads that C code starts in a worker,
 * nor of multiprocessing's spawn and forkserver, nor, before Python 3.12, of any thread.
 *
 * The hook is installed when something is pinned for the first time in the process: with one, each audited call (id(),
 * open, import) takes 0.1 us longer.
 *
 * Rejected: subprocess._USE_VFORK = False (a fork of a large process is slow; and posix_spawn is not covered);
 * replacing functions of subprocess and threading. */
#ifndef SWAPCO_INHERITANCE_H
#define SWAPCO_INHERITANCE_H

#include "placement.h"

#include <Python.h>
#include <pthread.h>

/* Of a worker's thread: its swapco_worker. */
static pthread_key_t swapco_worker_key;

static int inheritance_hook(const char *event, PyObject *args, void *unused)
{
    static const char *const starts[] = {
        "_thread.start_new_thread", "_thread.start_joinable_thread", "subprocess.Popen", "os.posix_spawn", "os.exec",
        "os.spawn", "os.system", NULL,
    };
    swapco_worker *w;
    (void)args;
    (void)unused;
    if (event[0] != 's' && event[0] != 'o' && event[0] != '_')
        return 0;
    for (int i = 0; starts[i] != NULL; i++)
        if (strcmp(event, starts[i]) == 0) {
            w = (swapco_worker *)pthread_getspecific(swapco_worker_key);
            if (w != NULL && w->slot != NULL)
                placement_free_worker(w);
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

#endif
