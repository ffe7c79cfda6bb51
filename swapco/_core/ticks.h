/* A coarse clock for "has a millisecond gone by?": the CPU's own counter, 10 ns a read.
 *
 * The scheduler must look for I/O and timers once per millisecond of fibers running (law 5), also when
 * they never stop being runnable. clock_gettime would add 24 ns to every take from the run queue.
 *
 * Rejected: a flag set by a thread that wakes every millisecond. It makes every program that uses fibers
 * a multi-threaded one, for which CPython 3.12 warns at each fork, and its wake-ups cost a half-idle server
 * more (0.3 % of a CPU) than the reads cost a busy one. CLOCK_MONOTONIC_COARSE: its tick is 4 ms.
 */
#ifndef SWAPCO_TICKS_H
#define SWAPCO_TICKS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t ticks_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__x86_64__)
#include <x86intrin.h>
static inline uint64_t ticks_now(void) { return __rdtsc(); }
#elif defined(__aarch64__)
static inline uint64_t ticks_now(void)
{
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
}
#else
static inline uint64_t ticks_now(void) { return ticks_clock_ns(); }
#endif

/* Measured over 200 us: within a few per cent, which is all that a poll interval needs. */
static uint64_t ticks_per_ms(void)
{
    uint64_t t0 = ticks_now(), n0 = ticks_clock_ns(), n1;
    do
        n1 = ticks_clock_ns();
    while (n1 - n0 < 200000);
    uint64_t per_ms = (ticks_now() - t0) * 1000000u / (n1 - n0);
    return per_ms ? per_ms : 1;
}

#endif
