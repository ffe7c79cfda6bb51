/* The slot word: who may run fibers, and may that right be taken away?
 *
 * THEORY
 *
 * The workers of a slot are kernel threads; one of them, the home worker, runs the event loop. At most one may run
 * at a time, and it says so in one 64-bit word:
 *
 *      generation : 46 | mode : 2 | owner : 16
 *
 *      SCHED    the owner is inside the scheduler, or the slot is on its way to it: never revocable
 *      USER     a worker runs user code, and may block in the kernel: revocable
 *      REVOKED  the slot was taken from a worker that blocks; home owns it, and has not noticed yet
 *
 * Every change adds one to the generation, so that a value that was seen once is never seen again: whoever compares
 * the whole word knows that nothing has happened in between. Home is never USER: its fibers cannot be moved to
 * another thread, and when it waits in epoll, the loop's callbacks still run on it.
 *
 * The rows of SWAPCO_SLOT_TRANSITIONS are the protocol. Each is one function below; Python sees them as
 * slot.TRANSITIONS, the diagram in docs/futex-swap.md is drawn from them, and tests/model explores them.
 *
 * Whether a worker that was suspected to block is *done* or *detached* is decided by one compare-and-swap on this
 * word: its enter, against the revocation. A worker that comes back before home has noticed takes the slot back, and
 * nothing has happened: home needs the GIL to notice, and a worker that computes keeps it for milliseconds.
 *
 * Waiting. A worker that is not named by the word sleeps on an event counter of its own, with the word as the
 * predicate: load the counter, say "sleeping", look at the word, sleep while the counter stands still.
 * A waker changes the word, adds to the counter, and makes the system call only if it reads "sleeping". No token is
 * consumed, so late and spurious wake-ups cannot be miscounted.
 *
 * INVARIANTS
 *
 *  1. One owner. Nobody touches the scheduler's state but the owner in SCHED mode, and home in REVOKED does not.
 *  2. Nobody waits for a slot that nobody will pass on: an owner that stops passes it on first; one that cannot
 *     (USER, asleep) is revoked.
 *  3. A waker touches the counter of a worker that may be running already: counters are never unmapped
 *     (swapco_worker_new keeps those of ended workers).
 *
 * MEMORY ORDERING
 *
 * All atomics here are sequentially consistent. Two pairs need it, both of the form "store mine, then load yours":
 * word and `sleeping` (above), and word and the detector's `awake` (detector.h). The rest would do with acquire and
 * release; at two changes for each handoff of 2 us it is not worth a second argument.
 *
 * REJECTED
 *
 *  - Letting home wait with a timeout instead of a thread that watches: arming a timer costs more than a handoff.
 *  - A state for each call ("running", "done", "detached"): a second word, and the question which of the two counts.
 *  - FutexWord (futex.h) for the sleep: its wake-ups are counted, and one that comes from a monitor is not owed to
 *    anybody.
 */
#ifndef SWAPCO_SLOT_WORD_H
#define SWAPCO_SLOT_WORD_H

#include "futex.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------------------------- the protocol, as data */

#define SWAPCO_SLOT_MODES(X)                                                                                     \
    X(SCHED, "the owner is inside the scheduler, or the slot is on its way to it")                               \
    X(USER, "a worker runs user code, and may block in the kernel")                                              \
    X(REVOKED, "taken from a worker that blocks; home has not noticed yet")

/* name, owner and mode before, owner and mode after, who does it, how, when */
#define SWAPCO_SLOT_TRANSITIONS(X)                                                                               \
    X(grant, "any", SCHED, "any", SCHED, "the owner", "store", "it hands the slot to another worker")            \
    X(leave, "worker", SCHED, "worker", USER, "the worker", "store", "it goes back to user code")                \
    X(enter, "worker", USER, "worker", SCHED, "the worker", "CAS", "it calls swapco, or its function ends")      \
    X(revoke, "worker", USER, "home", REVOKED, "the detector; home, after a signal or for the detector; a worker whose thread dies", "CAS", \
      "the worker has not been heard of for a tick, or has had its turn")                                        \
    X(take_back, "home", REVOKED, "worker", SCHED, "the worker", "CAS", "it calls swapco before home has noticed") \
    X(notice, "home", REVOKED, "home", SCHED, "home", "CAS", "it wakes up: the worker is detached from here on")

#define X(name, meaning) SWAPCO_SLOT_##name,
enum swapco_slot_mode { SWAPCO_SLOT_MODES(X) SWAPCO_SLOT_N_MODES };
#undef X

static const char *const swapco_slot_mode_names[] = {
#define X(name, meaning) #name,
    SWAPCO_SLOT_MODES(X)
#undef X
};

static const char *const swapco_slot_mode_meanings[] = {
#define X(name, meaning) meaning,
    SWAPCO_SLOT_MODES(X)
#undef X
};

typedef struct {
    const char *name, *owner_before, *owner_after, *actor, *how, *cause;
    int mode_before, mode_after;
} swapco_slot_transition;

static const swapco_slot_transition swapco_slot_table[] = {
#define X(name, owner, mode, owner2, mode2, actor, how, cause)                                                   \
    {#name, owner, owner2, actor, how, cause, SWAPCO_SLOT_##mode, SWAPCO_SLOT_##mode2},
    SWAPCO_SLOT_TRANSITIONS(X)
#undef X
};

#define SWAPCO_SLOT_N_TRANSITIONS ((int)(sizeof swapco_slot_table / sizeof *swapco_slot_table))

/* ------------------------------------------------------------------------------------------------- the word */

typedef uint64_t slot_word;

enum {
    SWAPCO_NOBODY = 0, /* the slot is closed, or belongs to the parent of this process */
    SWAPCO_HOME = 1,
    SWAPCO_MAX_WORKER = 0xffff,
};

static inline slot_word slot_word_make(uint64_t generation, int mode, int owner)
{
    return generation << 18 | (slot_word)mode << 16 | (slot_word)owner;
}

static inline uint64_t slot_word_generation(slot_word w) { return w >> 18; }
static inline int slot_word_mode(slot_word w) { return (int)(w >> 16 & 3); }
static inline int slot_word_owner(slot_word w) { return (int)(w & 0xffff); }

/* The next value: the generation goes up with every change. */
static inline slot_word slot_word_next(slot_word w, int mode, int owner)
{
    return slot_word_make(slot_word_generation(w) + 1, mode, owner);
}

/* What a worker that does not own the slot may be told. */
enum { SWAPCO_NO_ORDER, SWAPCO_RUN_DETACHED, SWAPCO_STOP };

struct swapco_slot;

/* A worker's half of the protocol: its event counter, and what it remembers. */
typedef struct swapco_worker {
    alignas(SWAPCO_CACHE_LINE) _Atomic int32_t events;
    _Atomic int32_t sleeping;
    _Atomic int32_t order; /* what else ends its wait: see slot_wait */
    _Atomic int32_t ended; /* its kernel thread is gone */
    _Atomic int32_t displaced; /* the detector has moved it off the slot's CPU, or it was unpinned to start something */
    _Atomic int32_t cpu;       /* the one that it was pinned to last, or -1 */
    _Atomic int32_t tid;
    /* the rest is the worker's own */
    alignas(SWAPCO_CACHE_LINE) struct swapco_slot *slot;
    int id;
    int depth;      /* how many sections it is in: 0 is user code */
    slot_word left; /* what it stored when it left the scheduler */
    struct swapco_worker *next_free;
} swapco_worker;

typedef struct swapco_slot {
    alignas(SWAPCO_CACHE_LINE) _Atomic slot_word word;
    swapco_worker *home;
    _Atomic int32_t references; /* the Slot, and the detector's threads */
    _Atomic int32_t closed;
    _Atomic int32_t cpu; /* the one that the workers share, or -1 */
    /* those that a worker may be moved to; changes only with what the process may use: the detector reads it at any time */
    cpu_set_t allowed;
    /* who was granted the slot last: a hint, never freed (invariant 3) */
    _Atomic(swapco_worker *) granted;
    _Atomic uint64_t taken_back;
    /* how many times the slot was granted, and the number of the grant that has lasted too long */
    _Atomic uint64_t grants, overdue;
    /* the detector's, see there */
    alignas(SWAPCO_CACHE_LINE) _Atomic int32_t monitor_awake;
    _Atomic int32_t sentinel_awake;
    int sentinel_runs;
    int64_t tick_ns, grace_ns;
    _Atomic uint64_t ticks, revoked_by_monitor, revoked_by_sentinel, revoked_by_signal;
    int pins_early; /* home's: see placement.h */
} swapco_slot;

/* Ended workers, for reuse: invariant 3. Guarded by the GIL. */
static swapco_worker *swapco_free_workers;

static swapco_worker *swapco_worker_new(swapco_slot *slot, int id)
{
    swapco_worker *w = swapco_free_workers;
    if (w != NULL)
        swapco_free_workers = w->next_free;
    else if ((w = (swapco_worker *)aligned_alloc(SWAPCO_CACHE_LINE, sizeof *w)) == NULL)
        return NULL;
    else
        memset(w, 0, sizeof *w); /* counters of reused ones go on: a late waker may still add to them */
    atomic_store(&w->order, SWAPCO_NO_ORDER);
    atomic_store(&w->ended, 0);
    atomic_store(&w->displaced, 0);
    atomic_store(&w->cpu, -1);
    atomic_store(&w->tid, 0);
    w->slot = slot;
    w->id = id;
    w->depth = 0;
    w->left = 0;
    return w;
}

static void swapco_worker_free(swapco_worker *w)
{
    w->slot = NULL;
    w->next_free = swapco_free_workers;
    swapco_free_workers = w;
}

static swapco_slot *swapco_slot_new(int64_t tick_ns, int64_t grace_ns)
{
    swapco_slot *s = (swapco_slot *)aligned_alloc(SWAPCO_CACHE_LINE, sizeof *s);
    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof *s);
    atomic_init(&s->word, slot_word_make(1, SWAPCO_SLOT_SCHED, SWAPCO_HOME));
    atomic_init(&s->references, 1);
    atomic_init(&s->overdue, UINT64_MAX);
    atomic_init(&s->cpu, -1);
    s->tick_ns = tick_ns;
    s->grace_ns = grace_ns;
    s->home = swapco_worker_new(s, SWAPCO_HOME);
    if (s->home == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

static void swapco_slot_unref(swapco_slot *s)
{
    if (atomic_fetch_sub(&s->references, 1) == 1)
        free(s);
}

/* -------------------------------------------------------------------------------------------- sleep and wake */

static inline void slot_wake(swapco_worker *w)
{
    atomic_fetch_add(&w->events, 1);
    if (atomic_load(&w->sleeping))
        swapco_futex_wake(&w->events);
}

static inline int slot_names(swapco_slot *s, int who)
{
    return slot_word_owner(atomic_load(&s->word)) == who;
}

/* One sleep at most; returns 0 or what futex(2) says. */
static inline int slot_doze(swapco_slot *s, swapco_worker *w, int64_t deadline_ns)
{
    int failure = 0;
    int32_t seen = atomic_load(&w->events);
    atomic_store(&w->sleeping, 1);
    if (!slot_names(s, w->id) && !atomic_load(&w->order))
        failure = swapco_futex_wait(&w->events, seen, deadline_ns);
    atomic_store(&w->sleeping, 0);
    return failure;
}

/* Until the word names the worker (1), or it got an order (0). Without the GIL. */
static inline int slot_wait(swapco_worker *w)
{
    swapco_slot *s = w->slot;
    while (!slot_names(s, w->id)) {
        if (atomic_load(&w->order))
            return 0;
        slot_doze(s, w, SWAPCO_DEADLINE_NEVER);
    }
    /* one that is told to end gives up its number first: it may be another worker's that the word names */
    return atomic_load(&w->order) != SWAPCO_STOP;
}

static inline void slot_order(swapco_worker *w, int order)
{
    atomic_store(&w->order, order);
    slot_wake(w);
}

/* ------------------------------------------------------------------------------------------- the transitions */

static void slot_corrupt(const char *what)
{
    fprintf(stderr, "swapco: %s by a worker that does not own the slot\n", what);
    abort();
}

static inline void slot_grant(swapco_slot *s, int me, int to)
{
    slot_word w = atomic_load(&s->word);
    if (__builtin_expect(slot_word_owner(w) != me || slot_word_mode(w) != SWAPCO_SLOT_SCHED, 0))
        slot_corrupt("grant");
    /* only counted here, by whoever owns the slot */
    atomic_store_explicit(&s->grants, atomic_load_explicit(&s->grants, memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store(&s->word, slot_word_next(w, SWAPCO_SLOT_SCHED, to));
}

/* A worker whose thread is being unwound at the interpreter's exit leaves a slot that is no longer its own: no error. */
static inline void slot_leave(swapco_worker *w)
{
    slot_word now = atomic_load(&w->slot->word);
    if (slot_word_owner(now) == w->id && slot_word_mode(now) == SWAPCO_SLOT_SCHED) {
        w->left = slot_word_next(now, SWAPCO_SLOT_USER, w->id);
        atomic_store(&w->slot->word, w->left);
    }
}

/* enter, or take back: 1, and the worker owns the slot; 0: it is detached. */
static inline int slot_enter(swapco_worker *w)
{
    swapco_slot *s = w->slot;
    slot_word seen = w->left;
    slot_word revoked = slot_word_next(seen, SWAPCO_SLOT_REVOKED, SWAPCO_HOME);
    if (atomic_compare_exchange_strong(&s->word, &seen, slot_word_next(w->left, SWAPCO_SLOT_SCHED, w->id)))
        return 1;
    if (seen != revoked ||
        !atomic_compare_exchange_strong(&s->word, &seen, slot_word_next(revoked, SWAPCO_SLOT_SCHED, w->id)))
        return 0;
    atomic_fetch_add(&s->taken_back, 1);
    return 1;
}

/* Take the slot from a worker that was seen in user code: 1 if that very word stood there still. */
static inline int slot_revoke(swapco_slot *s, slot_word seen)
{
    return slot_word_mode(seen) == SWAPCO_SLOT_USER &&
           atomic_compare_exchange_strong(&s->word, &seen, slot_word_next(seen, SWAPCO_SLOT_REVOKED, SWAPCO_HOME));
}

/* Has the owner had its turn?  The detector says so; it holds until the next grant. */
static inline int slot_is_overdue(swapco_slot *s) { return atomic_load(&s->overdue) == atomic_load(&s->grants); }

/* By home, which holds the GIL: 1, and whoever had the slot is detached; 0: it has taken the slot back.
 *
 * One that has had its turn, and calls swapco often enough to take the slot back each time before home has the GIL, is
 * revoked here once more: it waits for the GIL now. */
static inline int slot_notice(swapco_slot *s)
{
    if (slot_is_overdue(s) && slot_revoke(s, atomic_load(&s->word)))
        atomic_fetch_add(&s->revoked_by_monitor, 1);
    slot_word seen = atomic_load(&s->word);
    return slot_word_mode(seen) == SWAPCO_SLOT_REVOKED &&
           atomic_compare_exchange_strong(&s->word, &seen, slot_word_next(seen, SWAPCO_SLOT_SCHED, SWAPCO_HOME));
}

/* Nobody may run fibers here any more: the slot is closed, or this is a forked child. */
static void slot_void(swapco_slot *s)
{
    atomic_store(&s->word, slot_word_next(atomic_load(&s->word), SWAPCO_SLOT_SCHED, SWAPCO_NOBODY));
}

static inline int slot_is_void(swapco_slot *s) { return slot_names(s, SWAPCO_NOBODY); }

/* The kernel thread of a worker ends, whatever ended it: if it owned the slot, home gets it. */
static void slot_worker_ends(void *p)
{
    swapco_worker *w = (swapco_worker *)p;
    atomic_store(&w->ended, 1);
    if (slot_revoke(w->slot, w->left))
        slot_wake(w->slot->home);
}

/* ------------------------------------------------------------------------------------------------ home's wait */

enum swapco_lend_end {
    SWAPCO_GIVEN_BACK,
    SWAPCO_REVOKED,
    SWAPCO_INTERRUPTED, /* revoked because a signal came: its handler must run */
};

/* Home has lent the slot: wait until it has it again, in SCHED or REVOKED. Without the GIL.
 *
 * A signal interrupts the wait, and its handler must run in the main thread as soon as possible, so home revokes the
 * slot itself. From a worker that is inside the scheduler it cannot: such a one leaves soon, and home looks again.
 * A signal that came just before the sleep, or whose handler restarts system calls (loop.add_signal_handler), does not
 * interrupt: its handler waits for the slot, for which the detector sees within a tick or two. A timeout would
 * interrupt in all cases; arming it costs as much as the handoff. */
static enum swapco_lend_end slot_wait_home(swapco_slot *s, int handles_signals, int *signalled)
{
    const int64_t again_ns = 200000;
    for (;;) {
        slot_word now = atomic_load(&s->word);
        if (slot_word_owner(now) == SWAPCO_HOME || slot_word_owner(now) == SWAPCO_NOBODY) {
            if (slot_word_mode(now) != SWAPCO_SLOT_REVOKED)
                return SWAPCO_GIVEN_BACK;
            return *signalled ? SWAPCO_INTERRUPTED : SWAPCO_REVOKED;
        }
        if ((*signalled || slot_is_overdue(s)) && slot_word_mode(now) == SWAPCO_SLOT_USER) {
            if (slot_revoke(s, now))
                atomic_fetch_add(*signalled ? &s->revoked_by_signal : &s->revoked_by_monitor, 1);
            continue;
        }
        int64_t until = *signalled ? swapco_monotonic_ns() + again_ns : SWAPCO_DEADLINE_NEVER;
        if (slot_doze(s, s->home, until) == EINTR && handles_signals)
            *signalled = 1;
    }
}

/* ---------------------------------------------------------------------------------------------------- sections */

/* A section: a stretch of code inside the scheduler, in which a worker cannot be revoked. In Cython:
 *
 *      cdef section here = outside()                         # the first statement of the function
 *      me = running_fiber("Lock.acquire", &here.worker)      # enters, in a thread fiber
 *
 * Whatever way the function is left, the section ends with it. In an ordinary fiber `worker` stays NULL. */
typedef struct {
    swapco_worker *worker;
} swapco_section_data;

static inline void swapco_section_end(swapco_section_data *section)
{
    swapco_worker *w = section->worker;
    if (__builtin_expect(w != NULL, 0) && --w->depth == 0)
        slot_leave(w);
}

static inline swapco_section_data swapco_outside(void)
{
    swapco_section_data none = {NULL};
    return none;
}

#define swapco_section __attribute__((cleanup(swapco_section_end))) swapco_section_data

#endif
