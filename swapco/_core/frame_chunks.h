/* Where the Python frames of a fiber live: a small first chunk, and cheap further ones.
 *
 * CPython keeps frames in chunks of 16 KiB that it maps and unmaps one by one. For a fiber that is dear twice
 * over: a parked one, with a frame or two, holds a whole page (more than half of its memory), and every start
 * costs an mmap, a page fault and a munmap. So a stack begins with a chunk of ours of SEED_BYTES, from malloc:
 * room for a dozen frames. Deeper calls go on in chunks of CPython's as always.
 *
 * A boundary that comes earlier is also crossed more often: a loop that calls a function right at it would map
 * and unmap 16 KiB each time. Therefore the last CACHED chunks that were freed are kept, by a wrapper of the
 * arena allocator (PyObject_SetArenaAllocator), and crossing costs 20 ns instead of 2.5 us. The same wrapper is
 * what frees a seed: whoever ends a greenlet, and however, frees its chunks through the arena allocator, and a
 * seed is known by its size, which no arena has.
 *
 * The layout is that of _PyStackChunk, in the public headers of CPython 3.11 to 3.13; what the fields mean is
 * in Python/pystate.c (push_chunk): the first slot of a root chunk stays empty, so that it is never popped.
 *
 * The wrapper may be called with any interpreter's GIL, hence the lock.
 */
#ifndef SWAPCO_FRAME_CHUNKS_H
#define SWAPCO_FRAME_CHUNKS_H

#include <Python.h>

enum { SEED_BYTES = 2032, CHUNK_BYTES = 16384, CACHED = 64 };

static PyObjectArenaAllocator frame_chunks_arenas;
static void *frame_chunks_cache[CACHED];
static int frame_chunks_cached;
static char frame_chunks_locked;

static inline void frame_chunks_lock(void)
{
    while (__atomic_test_and_set(&frame_chunks_locked, __ATOMIC_ACQUIRE))
        ;
}

static inline void frame_chunks_unlock(void)
{
    __atomic_clear(&frame_chunks_locked, __ATOMIC_RELEASE);
}

static void *frame_chunks_alloc(void *context, size_t size)
{
    void *chunk = NULL;
    (void)context;
    if (size == CHUNK_BYTES && frame_chunks_cached) {
        frame_chunks_lock();
        if (frame_chunks_cached)
            chunk = frame_chunks_cache[--frame_chunks_cached];
        frame_chunks_unlock();
    }
    return chunk != NULL ? chunk : frame_chunks_arenas.alloc(frame_chunks_arenas.ctx, size);
}

static void frame_chunks_free(void *context, void *chunk, size_t size)
{
    (void)context;
    if (size == SEED_BYTES) {
        PyMem_RawFree(chunk);
        return;
    }
    if (size == CHUNK_BYTES) {
        frame_chunks_lock();
        if (frame_chunks_cached < CACHED) {
            frame_chunks_cache[frame_chunks_cached++] = chunk;
            chunk = NULL;
        }
        frame_chunks_unlock();
    }
    if (chunk != NULL)
        frame_chunks_arenas.free(frame_chunks_arenas.ctx, chunk, size);
}

/* Once, when the module is imported. */
static void frame_chunks_install(void)
{
    PyObjectArenaAllocator ours = {NULL, frame_chunks_alloc, frame_chunks_free};
    PyObject_GetArenaAllocator(&frame_chunks_arenas);
    PyObject_SetArenaAllocator(&ours);
}

/* By a fresh greenlet, before its first Python frame. Without memory it just has no seed. */
static void frame_chunks_seed(void)
{
    PyThreadState *thread = PyThreadState_Get();
    _PyStackChunk *seed;
    if (thread->datastack_chunk != NULL)
        return;
    seed = PyMem_RawMalloc(SEED_BYTES);
    if (seed == NULL)
        return;
    seed->previous = NULL;
    seed->size = SEED_BYTES;
    seed->top = 0;
    thread->datastack_chunk = seed;
    thread->datastack_top = &seed->data[1];
    thread->datastack_limit = (PyObject **)((char *)seed + SEED_BYTES);
}

#endif
