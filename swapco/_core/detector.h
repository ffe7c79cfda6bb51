/* Block detection: the thread that takes the slot from a worker that blocks.
 *
 * THEORY
 *
 * Nobody tells a program that one of its threads went to sleep in the kernel. But the slot word changes whenever a
 * worker enters or leaves the scheduler; so a worker that owns the slot in USER mode, and whose word is the same after
 * a tick of one millisecond, has run without a word to the scheduler for that long: it blocks, or computes.
 * The *monitor* is a C thread that looks once a tick and revokes (slot_word.h: one compare-and-swap on the word that
 * it saw, so it can never hit a later run of that worker). It is awake only while a slot is lent, and after EIGHT idle
 * ticks it goes to sleep until the next lend.
 *
 * Where one worker has blocked, others are about to: the fibers that wait behind ten sleepers would lose ten ticks. So
 * after each revocation the monitor is *quick* for a while: it looks eight times a tick, and revokes at once from a
 * worker that has used no CPU time since its last look. One that computes still has its whole tick.
 *
 * A worker that calls swapco again and again, but never waits there, changes the word with every call. So the monitor
 * also counts grants: a worker that has had the slot for TURN_TICKS has had its turn, and is revoked, too; its next call
 * waits behind the others. Without that, a thread fiber that polls would stop everybody else for as long as it likes.
 *
 * The *sentinel*, an option, reacts three times faster to sleepers: a SCHED_IDLE thread on the slot's CPU is run by the
 * kernel only when nothing else on that CPU is runnable; if the slot is lent then, its worker must be asleep.
 *
 * Going to sleep must not miss a lend. Lender: store the word, then load `awake`. Monitor: `awake` = 0, then load the
 * word once more. Both sequentially consistent: at least one of them sees the other (tests/model explores it, and the
 * broken variants).
 *
 * Neither thread touches Python, takes signals, or outlives its slot for more than a tick.
 *
 * Rejected: a timed wait of home (arming a timer costs a handoff); sched_yield by home to see whether it comes back at
 * once (any other process on that CPU makes it wait for milliseconds); PERF_COUNT_SW_CONTEXT_SWITCHES (counts 0
 * without privileges); home waiting in the GIL's queue (each short release is a false alarm).
 */
#ifndef SWAPCO_DETECTOR_H
#define SWAPCO_DETECTOR_H

#include "placement.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

enum {
    SWAPCO_IDLE_TICKS = 8,
    SWAPCO_TURN_TICKS = 10,
    SWAPCO_QUICK_SHARE = 8,  /* looks a tick, when quick */
    SWAPCO_QUICK_LOOKS = 64, /* so many after each revocation */
};

static void detector_nap(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

/* Nobody can block now. A revoked slot is not idle: its worker may take it back, and block without another lend. */
static inline int detector_is_idle(slot_word w)
{
    return slot_word_owner(w) <= SWAPCO_HOME && slot_word_mode(w) != SWAPCO_SLOT_REVOKED;
}

/* Sleep until somebody sets the flag; 0: the slot is closed. */
static int detector_wait(swapco_slot *s, _Atomic int32_t *awake)
{
    while (!atomic_load(awake)) {
        if (atomic_load(&s->closed))
            return 0;
        swapco_futex_wait(awake, 0, SWAPCO_DEADLINE_NEVER);
    }
    return !atomic_load(&s->closed);
}

static inline void detector_rouse(_Atomic int32_t *awake)
{
    if (!atomic_load(awake)) {
        atomic_store(awake, 1);
        swapco_futex_wake(awake);
    }
}

/* The slot was revoked: home must get its CPU, also if the worker computes there and the kernel would let it go on.  The
 * worker may be back already; it is placed again then (Slot.place). */
static void detector_make_room(swapco_slot *s, slot_word revoked)
{
    swapco_worker *w = atomic_load(&s->granted);
    int32_t tid = w == NULL ? 0 : atomic_load(&w->tid);
    if (tid != 0 && w->id == slot_word_owner(revoked))
        placement_displace(s, w, tid);
}

/* The CPU time that the owner's thread has used, in nanoseconds; -1: unknown. */
static int64_t detector_cpu_time(swapco_slot *s, slot_word word)
{
    struct timespec used;
    swapco_worker *w = atomic_load(&s->granted);
    int32_t tid = w == NULL ? 0 : atomic_load(&w->tid);
    /* the kernel's clock of one thread: CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED */
    clockid_t clock = (clockid_t)((~(unsigned)tid << 3) | 6);
    if (tid == 0 || w->id != slot_word_owner(word) || clock_gettime(clock, &used) != 0)
        return -1;
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static void *detector_monitor(void *argument)
{
    swapco_slot *s = (swapco_slot *)argument;
    prctl(PR_SET_NAME, "swapco-monitor");
    prctl(PR_SET_TIMERSLACK, 1000UL);
    while (detector_wait(s, &s->monitor_awake)) {
        slot_word last = atomic_load(&s->word);
        uint64_t turn = atomic_load(&s->grants);
        int64_t used = -1, unchanged = 0, held = 0;
        int idle = 0, quick = 0;
        for (;;) {
            int64_t nap = quick ? s->tick_ns / SWAPCO_QUICK_SHARE : s->tick_ns;
            detector_nap(nap);
            atomic_fetch_add(&s->ticks, 1);
            slot_word now = atomic_load(&s->word);
            uint64_t grants = atomic_load(&s->grants);
            unchanged = now == last ? unchanged + nap : 0;
            held = grants == turn ? held + nap : 0;
            turn = grants;
            quick -= quick > 0;
            if (slot_word_mode(now) == SWAPCO_SLOT_USER) {
                int64_t before = now == last ? used : -1;
                used = quick ? detector_cpu_time(s, now) : -1;
                idle = 0;
                int overdue = held >= SWAPCO_TURN_TICKS * s->tick_ns;
                if (overdue)
                    atomic_store(&s->overdue, grants);
                if ((overdue || unchanged >= s->tick_ns || (used >= 0 && used == before)) && slot_revoke(s, now)) {
                    atomic_fetch_add(&s->revoked_by_monitor, 1);
                    slot_wake(s->home);
                    detector_make_room(s, now);
                    quick = SWAPCO_QUICK_LOOKS;
                }
            } else if (now != last)
                idle = 0;
            else if (detector_is_idle(now) && !quick)
                idle++;
            last = now;
            if (idle >= SWAPCO_IDLE_TICKS || atomic_load(&s->closed)) {
                atomic_store(&s->monitor_awake, 0);
                if (atomic_load(&s->word) == now || atomic_load(&s->closed))
                    break;
                atomic_store(&s->monitor_awake, 1);
                idle = 0;
            }
        }
    }
    swapco_slot_unref(s);
    return NULL;
}

static void detector_follow(swapco_slot *s, int *cpu)
{
    int now = atomic_load(&s->cpu);
    if (now != *cpu && now >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(now, &set);
        sched_setaffinity(0, sizeof set, &set);
        *cpu = now;
    }
}

static void *detector_sentinel(void *argument)
{
    swapco_slot *s = (swapco_slot *)argument;
    struct sched_param none = {0};
    int cpu = -1;
    prctl(PR_SET_NAME, "swapco-sentinel");
    pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    while (detector_wait(s, &s->sentinel_awake)) {
        detector_follow(s, &cpu);
        slot_word seen = atomic_load(&s->word);
        if (detector_is_idle(seen) || cpu < 0) {
            atomic_store(&s->sentinel_awake, 0);
            if (atomic_load(&s->word) != seen)
                atomic_store(&s->sentinel_awake, 1);
            continue;
        }
        detector_nap(s->grace_ns);
        if (atomic_load(&s->word) == seen && slot_revoke(s, seen)) {
            atomic_fetch_add(&s->revoked_by_sentinel, 1);
            slot_wake(s->home);
        }
    }
    swapco_slot_unref(s);
    return NULL;
}

/* Start a thread of the detector; an errno. */
static int detector_start(swapco_slot *s, void *(*main)(void *))
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    /* signals are for the threads of Python */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_fetch_add(&s->references, 1);
    error = pthread_create(&thread, &attributes, main, s);
    if (error)
        atomic_fetch_sub(&s->references, 1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* After a grant to a worker: see to it that somebody watches. */
static inline void detector_watch(swapco_slot *s)
{
    detector_rouse(&s->monitor_awake);
    if (s->sentinel_runs)
        detector_rouse(&s->sentinel_awake);
}

static void detector_stop(swapco_slot *s)
{
    atomic_store(&s->closed, 1);
    detector_rouse(&s->monitor_awake);
    detector_rouse(&s->sentinel_awake);
}

#endif
