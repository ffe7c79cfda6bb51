/* A fiber that uses its C stack up ends the process; this says why.
 *
 * The overflow hits the stack's guard, the kernel raises SIGSEGV, and there is no stack left to handle it on: so every
 * kernel thread that runs fibers gets an alternate signal stack, and a handler that knows the guards says what has
 * happened, with Python's traceback where CPython exports the function that is safe to call here (3.11, 3.12;
 * faulthandler does it for all). What then follows is what would have without it: the handler that was installed
 * before (faulthandler's), or the default, a core dump. Any other segmentation fault goes there untouched.
 *
 * Whoever installs a handler after ours hides the message: so it is installed anew, if need be, each time a loop
 * starts. Everything called from the handler is async-signal-safe. */
#ifndef SWAPCO_NATIVE_OVERFLOW_H
#define SWAPCO_NATIVE_OVERFLOW_H

#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "native_stacks.h"

enum { SIGNAL_STACK_BYTES = 64 << 10 };

static struct sigaction native_overflow_previous;
static volatile sig_atomic_t native_overflow_inside;  /* the handler runs */
static volatile sig_atomic_t native_overflow_chained; /* since a loop began, the previous handler was called */
static void (*native_overflow_traceback)(int fd, PyThreadState *thread);
static pthread_key_t native_overflow_key;
static int native_overflow_has_key;

static void native_overflow_write(const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t written = write(STDERR_FILENO, text, left);
        if (written <= 0)
            return;
        text += written;
        left -= (size_t)written;
    }
}

static void native_overflow_handler(int number, siginfo_t *info, void *context)
{
    struct sigaction *previous = &native_overflow_previous;
    if (info->si_code <= 0 && previous->sa_handler == SIG_IGN && !(previous->sa_flags & SA_SIGINFO))
        return; /* somebody's kill(), and the program does not care */
    if (native_overflow_inside || (info->si_code <= 0 && native_overflow_chained)) {
        /* The previous handler calls, or raises it again for, the one before it: us, if it came in between. */
        signal(number, SIG_DFL);
        raise(number); /* delivered on return */
        return;
    }
    native_overflow_inside = native_overflow_chained = 1;
    if (info->si_code > 0 && native_stack_guards(info->si_addr)) {
        native_overflow_write(
            "\nFatal error: a fiber has used up its C stack.\n"
            "Recursion through C code (repr, json, pickle, sorted, the compiler ...) went too deep in it. Recurse less, "
            "do it\noutside fibers, or let greenlets carry the fibers: SWAPCO_SWITCH=greenlet or "
            "swapco.run(main, switch=\"greenlet\").\n");
        if (native_overflow_traceback != NULL && previous->sa_handler == SIG_DFL && native_this_thread != NULL) {
            native_overflow_write("\n");
            native_overflow_traceback(STDERR_FILENO, native_this_thread);
        }
    }
    if (previous->sa_flags & SA_SIGINFO) {
        previous->sa_sigaction(number, info, context);
    } else if (previous->sa_handler == SIG_DFL || previous->sa_handler == SIG_IGN) {
        /* the faulting instruction runs again, and this time there is no handler */
        signal(number, SIG_DFL);
        if (info->si_code <= 0)
            raise(number);
    } else {
        previous->sa_handler(number);
    }
    native_overflow_inside = 0;
}

static void native_overflow_drop_stack(void *memory)
{
    stack_t none = {.ss_flags = SS_DISABLE}, now;
    if (sigaltstack(NULL, &now) == 0 && now.ss_sp == memory)
        sigaltstack(&none, NULL);
    munmap(memory, SIGNAL_STACK_BYTES);
}

/* The calling thread is about to run fibers. Where something fails there is just no message. */
static void native_overflow_prepare(void)
{
    struct sigaction now, ours;
    stack_t stack;
    if (sigaltstack(NULL, &stack) == 0 && stack.ss_flags & SS_DISABLE) {
        if (!native_overflow_has_key)
            native_overflow_has_key = pthread_key_create(&native_overflow_key, native_overflow_drop_stack) == 0;
        void *memory = mmap(NULL, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory != MAP_FAILED) {
            stack = (stack_t){.ss_sp = memory, .ss_size = SIGNAL_STACK_BYTES};
            if (!native_overflow_has_key || sigaltstack(&stack, NULL) < 0)
                munmap(memory, SIGNAL_STACK_BYTES);
            else
                pthread_setspecific(native_overflow_key, memory);
        }
    }
    native_overflow_chained = 0;
    if (sigaction(SIGSEGV, NULL, &now) < 0)
        return;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == native_overflow_handler)
        return;
    native_overflow_previous = now;
    native_overflow_traceback = (void (*)(int, PyThreadState *))dlsym(RTLD_DEFAULT, "_Py_DumpTraceback");
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = native_overflow_handler;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &ours, NULL);
}

#endif
