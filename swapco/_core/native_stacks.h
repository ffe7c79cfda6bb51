/* Memory for native stacks: mapped in slabs, guarded, reused.
 *
 * A stack is NATIVE_STACK_BYTES of address space of which a parked fiber touches one page: the C stack grows down from where
 * the memory of its Python frames grows up.
 *
 *     base                                                                           base + size
 *     | guard, 64 KiB | C stack  <------ grows down | head | Python frames ---- grow up ----> |
 *                                                   ^ in the middle of a page; frames: 17 KiB
 *
 * - Slabs: one mmap holds many stacks, without huge pages (one touched byte would cost 2 MiB) and without reserving
 *   swap. Where the machine refuses (RLIMIT_AS, strict overcommit), slabs of fewer and smaller stacks are tried;
 *   SMALLEST_STACK is the least that compile() of ordinary code needs.
 *   RecursionError comes earlier on these. With 3.11, which does not count C calls apart, it would not: so there are
 *   none there, and a process whose address space is limited from the start takes greenlets (native_space_refusal).
 * - A page of page tables covers 2 MiB. Stacks begin SLAB_OFFSET beside its borders, so that the top of one and the
 *   guard of the next share one.
 * - The guard is at the low end. MADV_GUARD_INSTALL (Linux 6.13) marks pages without splitting the mapping; mprotect
 *   costs two mappings a stack, of which a process has vm.max_map_count, 65,530 by default: 32,000 stacks.
 *   It is 64 KiB, so that a function with a large frame (select has 49 KB) does not jump over it.
 * - Free stacks are kept in a list, last in first out. One that comes back gives the pages of its C stack back to the
 *   system: those below the first WARM_BYTES, or, if WARM stacks are free already, all of them.
 * - Frames begin in memory of the stack itself because CPython would map and unmap 16 KiB a fiber: dearer than all
 *   the rest of starting one.
 *
 * The C budget: CPython counts nested C calls (Py_EnterRecursiveCall), from 3.12 on apart from Python frames. The
 * largest of them, measured, takes 2,490 bytes: a list.sort() whose comparison sorts; and the innermost call may need
 * LEAF_BYTES more (select has 49 KB of local variables). With 3.11 the recursion limit (1,000) counts both, and the
 * same list.sort() takes 4,890 bytes, hence the larger stack. What does not count (parser, compile, marshal on nested
 * input: 300 to 800 KiB) must fit, too.
 *
 * All of this is under the GIL. Rejected: mmap a stack (30 times slower to start, and max_map_count again); stacks
 * that grow by moving (no pointer to a C stack may change). */
#ifndef SWAPCO_NATIVE_STACKS_H
#define SWAPCO_NATIVE_STACKS_H

#include <Python.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "native_thread.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#if PY_VERSION_HEX < 0x030C0000
#define NATIVE_STACK_BYTES ((size_t)8 << 20)
#define SCARCE_STACK NATIVE_STACK_BYTES
#define SMALLEST_STACK NATIVE_STACK_BYTES
#else
#define NATIVE_STACK_BYTES ((size_t)2 << 20)
#define SCARCE_STACK ((size_t)1 << 20)
#define SMALLEST_STACK ((size_t)256 << 10)
#endif

enum {
    SLAB_STACKS = 64,
    SLAB_OFFSET = 1 << 20,
    GUARD_BYTES = 64 << 10,
    FRAMES_BYTES = 17 << 10, /* 1 KiB of it in the page that the C stack begins in */
    C_CALL_BYTES = 2600,
    LEAF_BYTES = 128 << 10,
    WARM = 1024,
    WARM_BYTES = 32 << 10, /* of C stack */
};

/* At the base of each stack's C part. */
typedef struct native_stack {
    struct native_stack *next; /* while it is free */
    char *base;
    size_t size;
    native_thread_base thread;
    _PyStackChunk *frames;
} native_stack;

/* Newest first; never unmapped, so that the overflow handler may walk them at any moment. */
typedef struct native_slab {
    struct native_slab *next;
    char *start;
    char *end;
    size_t stack_size;
} native_slab;

static native_slab *native_slabs;
static char *native_slab_unused; /* of the newest slab */
static native_stack *native_free;
static Py_ssize_t native_free_count;
static Py_ssize_t native_stack_count; /* all there are, free or not */
static int native_guards_split;       /* MADV_GUARD_INSTALL is not there */

static inline size_t native_page_bytes(void)
{
    static size_t bytes;
    if (bytes == 0)
        bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

static inline size_t native_guard_bytes(void)
{
    return native_page_bytes() > GUARD_BYTES ? native_page_bytes() : GUARD_BYTES;
}

static int native_guard_install(char *base)
{
    if (!native_guards_split) {
        if (madvise(base, native_guard_bytes(), MADV_GUARD_INSTALL) == 0)
            return 0;
        if (errno != EINVAL)
            return -1;
        native_guards_split = 1;
    }
    return mprotect(base, native_guard_bytes(), PROT_NONE);
}

/* Every mapping counts where RLIMIT_AS or RLIMIT_DATA is set, and under strict overcommit. */
static int native_address_space_is_scarce(void)
{
    struct rlimit limit;
    char mode = '0';
    FILE *file;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return 1;
    if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return 1;
    file = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (file != NULL) {
        if (fread(&mode, 1, 1, file) != 1)
            mode = '0';
        fclose(file);
    }
    return mode == '2';
}

/* One more slab; -1 without memory. Sizes are powers of two. */
static int native_slab_map(void)
{
    int scarce = native_address_space_is_scarce();
    size_t stack = scarce ? SCARCE_STACK : NATIVE_STACK_BYTES, count = scarce ? 4 : SLAB_STACKS;
    for (;;) {
        size_t bytes = stack * count + SLAB_OFFSET * 2;
        char *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (mapped != MAP_FAILED) {
            native_slab *slab = malloc(sizeof *slab);
            if (slab == NULL) {
                munmap(mapped, bytes);
                return -1;
            }
            madvise(mapped, bytes, MADV_NOHUGEPAGE);
            /* the first odd multiple of SLAB_OFFSET in it */
            uintptr_t even = ((uintptr_t)mapped + SLAB_OFFSET - 1) & ~(uintptr_t)(2 * SLAB_OFFSET - 1);
            char *start = (char *)(even + SLAB_OFFSET);
            if (start < mapped || start + stack * count > mapped + bytes)
                Py_FatalError("a slab of stacks does not fit its mapping");
            *slab = (native_slab){native_slabs, start, start + stack * count, stack};
            native_slab_unused = start;
            __atomic_store_n(&native_slabs, slab, __ATOMIC_RELEASE);
            return 0;
        }
        if (count > 4)
            count /= 4;
        else if (stack > SMALLEST_STACK)
            stack /= 2;
        else if (count > 1)
            count = 1;
        else
            return -1;
    }
}

/* A stack, warm if possible; NULL without memory (or mappings, where guards split them). */
static native_stack *native_stack_get(void)
{
    native_stack *s = native_free;
    if (s != NULL) {
        native_free = s->next;
        native_free_count--;
        return s;
    }
    if (native_slabs == NULL || native_slab_unused + native_slabs->stack_size > native_slabs->end)
        if (native_slab_map() < 0)
            return NULL;
    char *base = native_slab_unused;
    size_t size = native_slabs->stack_size;
    if (native_guard_install(base) < 0)
        return NULL;
    native_slab_unused += size;
    native_stack_count++;
    char *frames = base + size - FRAMES_BYTES;
    s = (native_stack *)(((uintptr_t)frames - sizeof *s) & ~(uintptr_t)15);
    s->base = base;
    s->size = size;
    s->frames = (_PyStackChunk *)frames;
    return s;
}

/* Nothing runs on it any more. */
static void native_stack_put(native_stack *s)
{
    char *low = s->base + native_guard_bytes();
    uintptr_t high = (uintptr_t)s - (native_free_count < WARM ? WARM_BYTES : 0);
    high -= high % native_page_bytes();
    if (high > (uintptr_t)low)
        madvise(low, high - (uintptr_t)low, MADV_DONTNEED);
    s->next = native_free;
    native_free = s;
    native_free_count++;
}

static inline void *native_stack_frames(native_stack *s)
{
    return s->frames;
}

/* Of the stacks that are made now. */
static size_t native_stack_size(void)
{
    return native_slabs == NULL ? NATIVE_STACK_BYTES : native_slabs->stack_size;
}

/* How many nested C calls of the dearest kind fit. */
static int native_c_calls(size_t size)
{
    size_t leaf = size > 4 * LEAF_BYTES ? LEAF_BYTES : size / 4;
    return (int)((size - native_guard_bytes() - FRAMES_BYTES - leaf) / C_CALL_BYTES);
}

/* Is this address in the guard of a stack? Safe in a signal handler. */
static size_t native_stack_guards(const char *address)
{
    native_slab *slab = __atomic_load_n(&native_slabs, __ATOMIC_ACQUIRE);
    for (; slab != NULL; slab = slab->next)
        if (address >= slab->start && address < slab->end)
            return (size_t)(address - slab->start) % slab->stack_size < native_guard_bytes() ? slab->stack_size : 0;
    return 0;
}

#endif
