/* What can be found out about another thread of this process, from outside: its CPU time, and what it does now.
 *
 * thread_look() must be called with the GIL held, and never lets it go.  That is the whole trick.  While the caller has
 * the GIL, the other thread can
 *
 *     use the CPU                             it runs C code that gave the GIL up
 *     sleep on a futex inside of _PyRuntime   it wants the GIL: it runs Python
 *     sleep in the kernel anywhere else       it blocks
 *
 * and in nothing else for long.  A thread that is only on its way to one of these (it was woken and has no CPU yet, or
 * its system call is about to return) must not be taken for another: only CPU time is proof of the first, and only
 * staying there is proof of the third; the second is proof as it stands.
 *
 * The GIL of the main interpreter, its mutex and its condition lie inside of the static _PyRuntime in CPython 3.11 to
 * 3.13; locks of programs (threading.Lock) are on the heap or on a stack.  How large it is says the symbol table.  Where
 * that cannot be asked (musl), a thread that wants the GIL looks asleep, and watchdog.py goes by its CPU time.
 *
 * /proc/self/task/TID/syscall may be read by the threads of the same process without any privilege.  Where there is
 * none (gVisor, a kernel without it), CPU time alone remains: UNREADABLE. */
#ifndef SWAPCO_THREAD_LOOK_H
#define SWAPCO_THREAD_LOOK_H

#include <Python.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    LOOK_UNCLEAR,    /* nothing was proved within LOOK_LIMIT_NS */
    LOOK_PYTHON,
    LOOK_C,
    LOOK_ASLEEP,
    LOOK_UNREADABLE, /* the kernel does not tell, and it used no CPU while it was looked at */
};

#define LOOK_PAUSE_NS 20000
#define LOOK_SETTLED_NS 300000
#define LOOK_PROOF_NS 150000
#define LOOK_LIMIT_NS 3000000

static inline long long look_clock_ns(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) != 0 ? -1 : now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The CPU time of a thread of this process; -1 when there is none (any more).
 *
 * The clock's number is made from the thread's, as the C library does in pthread_getcpuclockid: that function takes a
 * pthread_t, and reads freed memory if its thread has ended. */
static inline long long look_cpu_ns(int tid)
{
    return tid == 0 ? -1 : look_clock_ns((clockid_t)((~(unsigned int)tid << 3) | 6));
}

/* How long a thread was ready to run and had no CPU since it began, and how often it got one; tid 0: the calling one.
 * Both stay 0 if the kernel does not count that.  A wait counts when it is over. */
static long long look_starved_ns(int tid, long long *runs)
{
    char text[128], path[64] = "/proc/thread-self/schedstat";
    long long ran, waited = 0;
    int file;
    ssize_t n;
    *runs = 0;
    if (tid != 0)
        snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", tid);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    n = read(file, text, sizeof text - 1);
    close(file);
    if (n <= 0)
        return 0;
    text[n] = 0;
    return sscanf(text, "%lld %lld %lld", &ran, &waited, runs) == 3 ? waited : 0;
}

/* Copy from memory that another thread may unmap at any moment: 1, or 0 where there is none (or no such system call). */
static int look_copy(void *to, const void *from, size_t n)
{
    struct iovec here = {to, n}, there = {(void *)from, n};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)n;
}

/* Does the address belong to the interpreter itself? */
static int look_in_runtime(unsigned long address)
{
    static unsigned long begin, end;
    if (end == 0) {
        end = 1;
#ifdef __GLIBC__
        void *runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
        Dl_info info;
        ElfW(Sym) *symbol = NULL;
        if (runtime != NULL && dladdr1(runtime, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol != NULL) {
            begin = (unsigned long)runtime;
            end = begin + symbol->st_size;
        }
#endif
    }
    return address >= begin && address < end;
}

/* In which system call it sleeps: 1 and the call, 0 if it does not sleep, -1 if the file cannot be read. */
static int look_at_call(int file, long *number, unsigned long *first)
{
    char text[256];
    ssize_t n = pread(file, text, sizeof text - 1, 0);
    if (n <= 0)
        return -1;
    text[n] = 0;
    if (strncmp(text, "running", 7) == 0)
        return 0;
    *first = 0;
    return sscanf(text, "%ld %lx", number, first) >= 1 ? 1 : -1;
}

static int thread_look(const char *folder, int tid, long *number, unsigned long *first)
{
    const struct timespec pause = {0, LOOK_PAUSE_NS};
    long long began = look_clock_ns(CLOCK_MONOTONIC), cpu = look_cpu_ns(tid), asleep_since = -1, now;
    long call = -1;
    unsigned long argument = 0;
    char path[256];
    int file, result = LOOK_UNCLEAR, told;
    snprintf(path, sizeof path, "%s/%d/syscall", folder, tid);
    file = open(path, O_RDONLY | O_CLOEXEC);
    for (;;) {
        told = file < 0 ? -1 : look_at_call(file, &call, &argument);
        now = look_clock_ns(CLOCK_MONOTONIC);
        if (told <= 0 && look_cpu_ns(tid) - cpu >= LOOK_PROOF_NS) {
            result = LOOK_C;
            break;
        }
        if (told == 0) {
            asleep_since = -1;
        } else if (told > 0) {
            /* one that was interrupted goes on under another number, with the same registers */
            if ((call == SYS_futex || call == SYS_restart_syscall) && look_in_runtime(argument)) {
                result = LOOK_PYTHON;
                break;
            }
            if (asleep_since < 0 || call != *number) {
                asleep_since = now;
                *number = call;
                *first = argument;
            } else if (now - asleep_since >= LOOK_SETTLED_NS) {
                result = LOOK_ASLEEP;
                break;
            }
        }
        if (now - began >= LOOK_LIMIT_NS) {
            if (told < 0)
                result = LOOK_UNREADABLE;
            break;
        }
        /* asleep and not in a loop: on a machine with one CPU the other thread needs it to get anywhere */
        nanosleep(&pause, NULL);
    }
    if (file >= 0)
        close(file);
    return result;
}

#endif
