/* One 32-bit word, the kernel threads that meet at it, and the handoff between them.
 *
 * THEORY
 *
 * A word belongs to one kernel thread at a time, the one that waits on it.  Its value says where that
 * thread is, and is the protocol of Google's published FutexDomain:
 *
 *      -1  blocked    the thread sleeps in futex(2), or is on its way into it or out of it
 *       0  running    nobody waits, no wakeup is queued
 *      +1  queued     nobody waits, and the next wait returns at once
 *
 * Three atomic steps change it, and nothing else does.  They are the rows of swapco_word_table below: the
 * code executes the table, Python sees it as futex.TRANSITIONS, and the model in tests/model runs on it.
 *
 *      post       a waker adds one
 *      park       the waiter takes one away
 *      take back  the waiter gives up (timeout, signal): from blocked to running by CAS
 *
 *      wake()   post; if that found the word blocked: FUTEX_WAKE
 *      wait()   park; if that did not take a queued wakeup: FUTEX_WAIT until the word is not blocked
 *      swap(t)  post t; park self; FUTEX_WAKE t if it was blocked; then wait as above
 *
 * Because a post and a park commute, it does not matter whether the wake or the wait comes first: that is
 * the law "block and resume commute" of the coroutine layer, one floor below.
 *
 * The one who moves the word off -1 decides how the wait ends.  A waker did: the wait was woken, whatever
 * else happened to the waiter meanwhile.  The waiter did, by a take back: it was not woken, and a wake that
 * comes later is queued.  So a take back that fails is not an error; it says "the wake won".
 *
 * Timeouts.  The deadline is absolute, on CLOCK_MONOTONIC (FUTEX_WAIT_BITSET): returns in between do not
 * stretch it.
 *
 * Signals.  EINTR takes the word back first and runs Python's handlers then.  While a handler runs the
 * thread is running and the word says so: the handler may raise without leaving a word that claims to be
 * blocked, and a wake that arrives meanwhile is queued, for the park that follows or, after an exception,
 * for the next wait.  If the take back fails, the wake has won: the wait returns normally, handlers not yet
 * run; the interpreter runs them right after the call, as for a signal that came an instant later.  A signal
 * in the instant between the interpreter's last look and the system call does not end the sleep; its handler
 * runs at the next signal or at the end of the wait, as with threading.Lock: futex(2) takes no signal mask.
 *
 * Why it is only fast on one CPU.  FUTEX_SWAP, never merged, saved the trip through the scheduler by waking
 * the target on the waker's CPU: no inter-processor interrupt, no exit from idle.  FUTEX_WAKE puts the
 * target wherever the kernel likes; two threads bound to one CPU leave it no choice.  Measured: 1.6 us a swap
 * on one CPU, 41-60 us on two.  Binding is the business of whoever owns the threads: affinity.py.
 *
 * INVARIANTS
 *
 *  1. The value is -1, 0 or +1.  A step that has nowhere to go (a post on a queued wakeup) is refused and
 *     changes nothing.
 *  2. Wakes accepted = waits woken + wakeups queued + waiters on their way out.
 *  3. At most one thread is between its park and the end of its wait: `waiter` is taken before and given
 *     back after.  The value alone cannot tell: it reads 0 while a woken thread is still on its way out, and
 *     a second waiter that parked in this window would put the first one back to sleep.
 *  4. Whoever moves a word from -1 to 0 by a post also calls FUTEX_WAKE, and does so after the post.
 *  5. The line stays mapped while any thread may still call FUTEX_WAKE on it.  A waker touches the
 *     word's address after the woken thread may already run; the Python object keeps it alive.
 *
 * REJECTED
 *
 *  - FUTEX_SWAP by number.  No mainline kernel has it, and the patch's opcode 13 is FUTEX_LOCK_PI2 today: a
 *    probe would take a priority-inheritance lock on the word.  It is never probed.
 *  - io_uring (wake and wait in one submission): as fast as two futex calls, no faster; refused in many
 *    sandboxes.
 *  - Spinning before the sleep.  The threads that matter here share one CPU: a spinner keeps its waker away
 *    from it.
 *  - A condition variable or pipe for each thread: two or three system calls where the word takes one, and a
 *    wake before the wait needs a flag beside it.
 *  - A counter that takes any number of wakeups.  A thread that was told twice to run has a scheduler that
 *    lost count; a refused post says so where it happens.
 *  - Handlers while the word says "blocked", and a compensating wake if they raise: if another wake was
 *    queued meanwhile, the compensation has no room.
 *
 * FORK
 *
 * The child has its own copy of each word and only the thread that forked.  Words that nobody waited on work
 * as before, apart from the parent's (futexes are private to a process).  A word on which another thread
 * waited keeps that waiter for ever: waits on it are refused.  Make new words in the child.
 *
 * MEMORY ORDERING
 *
 * All atomics go through the seam below; each use names its ordering and its pair.  Everything that a thread
 * did before it posted is visible to the thread that this post woke, and everything that it did before it
 * parked is visible to the waker that found it blocked: a swap carries data both ways.  No step needs
 * sequential consistency: each decision is taken on one word, and single words have one modification order.
 * The one two-variable race (the waiter enters the kernel's queue and compares the word; the waker changes
 * the word and looks at the queue) is closed inside the kernel: the compare happens under the lock of the
 * futex's hash bucket, and FUTEX_WAKE has a full barrier before it looks for waiters.
 */
#ifndef SWAPCO_FUTEX_H
#define SWAPCO_FUTEX_H

#ifndef __linux__
#error "swapco's futex layer needs Linux: it is built on futex(2)"
#endif
#ifndef __LP64__
#error "swapco's futex layer needs a 64-bit Linux: it passes 64-bit timespecs to futex(2)"
#endif

#include <errno.h>
#include <linux/futex.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------- the seam of the atomics */

#define swapco_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define swapco_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define swapco_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
/* on failure *expected holds what was seen */
#define swapco_cas_acq_rel(p, expected, v) \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define swapco_cas_acquire(p, expected, v) \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acquire, memory_order_relaxed)

/* ------------------------------------------------------------------------------------------- system calls */

/* Points in time are nanoseconds of CLOCK_MONOTONIC. */
#define SWAPCO_DEADLINE_NEVER INT64_MAX
#define SWAPCO_DEADLINE_PAST INT64_C(0)

static inline int64_t swapco_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sleep while *word == expected, until the deadline.  Returns 0 (woken, or spuriously) or an errno. */
static inline int swapco_futex_wait(_Atomic int32_t *word, int32_t expected, int64_t deadline_ns)
{
    struct timespec deadline = {deadline_ns / 1000000000, deadline_ns % 1000000000};
    const struct timespec *until = deadline_ns == SWAPCO_DEADLINE_NEVER ? NULL : &deadline;
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, (uint32_t)expected, until,
                          NULL, FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 0 : errno;
}

/* Wake one thread that sleeps on the word.  It cannot fail on a mapped, aligned, private word. */
static inline void swapco_futex_wake(_Atomic int32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* --------------------------------------------------------------------------------- the protocol, as data */

enum swapco_word_value { SWAPCO_WORD_BLOCKED = -1, SWAPCO_WORD_RUNNING = 0, SWAPCO_WORD_QUEUED = 1 };

#define SWAPCO_WORD_STEPS(X) X(POST, post) X(PARK, park) X(TAKE_BACK, take_back)

#define SWAPCO_WORD_OUTCOMES(X)                                                                              \
    X(WOKE, woke)             /* post: a waiter was blocked, and must now get a FUTEX_WAKE */                \
    X(KEPT, kept)             /* post: nobody was blocked, the wakeup is queued */                           \
    X(PARKED, parked)         /* park: the caller is blocked, and must now sleep */                          \
    X(TOOK, took)             /* park: a queued wakeup was taken, the caller goes on */                      \
    X(TAKEN_BACK, taken_back) /* take back: the caller is running again, nobody woke it */                   \
    X(WAKE_WON, wake_won)     /* take back: too late, a post has woken the caller */                         \
    X(REFUSED, refused)       /* a misuse: nothing changed */

#define X(NAME, name) SWAPCO_WORD_##NAME,
enum swapco_word_step { SWAPCO_WORD_STEPS(X) SWAPCO_WORD_N_STEPS };
enum swapco_word_outcome { SWAPCO_WORD_OUTCOMES(X) SWAPCO_WORD_N_OUTCOMES };
#undef X

#define X(NAME, name) #name,
static const char *const swapco_word_step_names[] = {SWAPCO_WORD_STEPS(X)};
static const char *const swapco_word_outcome_names[] = {SWAPCO_WORD_OUTCOMES(X)};
#undef X

typedef struct {
    int8_t after;
    uint8_t outcome;
} swapco_word_transition;

/* [step][value + 1] */
#define X(after, OUTCOME) {after, SWAPCO_WORD_##OUTCOME}
static const swapco_word_transition swapco_word_table[SWAPCO_WORD_N_STEPS][3] = {
    /*                        blocked (-1)      running (0)     queued (+1) */
    [SWAPCO_WORD_POST]      = {X(0, WOKE),       X(1, KEPT),     X(1, REFUSED)},
    [SWAPCO_WORD_PARK]      = {X(-1, REFUSED),   X(-1, PARKED),  X(0, TOOK)},
    [SWAPCO_WORD_TAKE_BACK] = {X(0, TAKEN_BACK), X(0, WAKE_WON), X(1, WAKE_WON)},
};
#undef X

/* ----------------------------------------------------------------------------------------------- the word */

#define SWAPCO_CACHE_LINE 64

typedef struct {
    alignas(SWAPCO_CACHE_LINE) _Atomic int32_t value;
    /* thread ident of the thread between its park and the end of its wait, or 0 */
    _Atomic uint64_t waiter;
} swapco_word;

_Static_assert(sizeof(_Atomic int32_t) == 4 && ATOMIC_INT_LOCK_FREE == 2, "futex(2) needs a plain word");
_Static_assert(sizeof(swapco_word) == SWAPCO_CACHE_LINE, "a word has its cache line to itself");

/* A running word on a cache line of its own, or NULL.  Give it back with free(). */
static inline swapco_word *swapco_word_new(void)
{
    swapco_word *word = (swapco_word *)aligned_alloc(SWAPCO_CACHE_LINE, sizeof(swapco_word));
    if (word != NULL) {
        atomic_init(&word->value, SWAPCO_WORD_RUNNING);
        atomic_init(&word->waiter, 0);
    }
    return word;
}

/* Become the word's waiter (invariant 3).  0: another thread is.
 * Ordering: acquire; pairs with the release in swapco_word_leave, so that the new waiter's park comes after
 * whatever the previous one did to the word. */
static inline int swapco_word_enter(swapco_word *word, uint64_t waiter)
{
    uint64_t nobody = 0;
    return swapco_cas_acquire(&word->waiter, &nobody, waiter);
}

/* Ordering: release; pairs with the acquire in swapco_word_enter. */
static inline void swapco_word_leave(swapco_word *word)
{
    swapco_store_release(&word->waiter, (uint64_t)0);
}

/* For people: a snapshot that may be old when it arrives.  Ordering: relaxed, nothing is decided on it. */
static inline int32_t swapco_word_value_now(swapco_word *word)
{
    return swapco_load_relaxed(&word->value);
}

static inline uint64_t swapco_word_waiter_now(swapco_word *word)
{
    return swapco_load_relaxed(&word->waiter);
}

/* One atomic step.  Returns its outcome.
 *
 * Ordering, by step, each with its pair:
 *   post       acq_rel.  Release: what the waker did before is visible to the woken thread; pairs with the
 *              acquire of the park that takes the wakeup, of the load in swapco_word_sleep, and of a take
 *              back that lost.  Acquire: pairs with the release of the park that it found blocked.
 *   park       acq_rel.  Release: pairs with the acquire of the post that wakes it.  Acquire (a queued wakeup
 *              was taken): pairs with the release of the post that queued it.
 *   take back  acq_rel when it wins (only its place in the word's order matters); when it loses, the
 *              acquire of the load, or of the failed CAS, pairs with the release of the post that won.
 * A step that leaves the value as it is happens at its load: acquire, pairs as said for its step. */
static inline enum swapco_word_outcome swapco_word_apply(swapco_word *word, enum swapco_word_step step)
{
    int32_t value = swapco_load_acquire(&word->value);
    for (;;) {
        swapco_word_transition to = swapco_word_table[step][value + 1];
        if (to.after == value || swapco_cas_acq_rel(&word->value, &value, to.after))
            return (enum swapco_word_outcome)to.outcome;
    }
}

/* How a wait ended.  In all but the first the word was taken back: nobody woke the caller. */
enum swapco_wait_end {
    SWAPCO_WAIT_WOKEN,
    SWAPCO_WAIT_TIMED_OUT,
    SWAPCO_WAIT_INTERRUPTED, /* EINTR: run the handlers, then park and sleep again */
    SWAPCO_WAIT_FAILED,      /* futex(2) failed; *error says how */
};

/* After a park that parked: sleep until the word is not blocked any more.  Without the GIL.
 *
 * FUTEX_WAIT may return for no reason, late, or for a FUTEX_WAKE that was meant for an earlier wait: only the
 * word says whether the caller was woken.
 * Ordering of the load: acquire; pairs with the release of the post that moved the word off -1. */
static inline enum swapco_wait_end swapco_word_sleep(swapco_word *word, int64_t deadline_ns, int *error)
{
    for (;;) {
        int failure = deadline_ns == SWAPCO_DEADLINE_PAST
                          ? ETIMEDOUT
                          : swapco_futex_wait(&word->value, SWAPCO_WORD_BLOCKED, deadline_ns);
        if (swapco_load_acquire(&word->value) != SWAPCO_WORD_BLOCKED)
            return SWAPCO_WAIT_WOKEN;
        if (failure == 0 || failure == EAGAIN)
            continue;
        if (swapco_word_apply(word, SWAPCO_WORD_TAKE_BACK) == SWAPCO_WORD_WAKE_WON)
            return SWAPCO_WAIT_WOKEN;
        if (failure == ETIMEDOUT)
            return SWAPCO_WAIT_TIMED_OUT;
        if (failure == EINTR)
            return SWAPCO_WAIT_INTERRUPTED;
        *error = failure;
        return SWAPCO_WAIT_FAILED;
    }
}

/* The FUTEX_WAKE that invariant 4 owes after a post that woke. */
static inline void swapco_word_rouse(swapco_word *word)
{
    swapco_futex_wake(&word->value);
}

/* The first half of a swap: wake the target and park self; self must sleep next if that is parked.
 * Without the GIL, so that the target finds it free.  0: the post was refused, and nothing changed.
 *
 * Both words change before the first system call: a target that runs at once, on this CPU, may swap back and
 * must find this thread's word as it will stay. */
static inline int swapco_word_hand_over(swapco_word *self, swapco_word *target,
                                        enum swapco_word_outcome *parked)
{
    enum swapco_word_outcome posted = swapco_word_apply(target, SWAPCO_WORD_POST);
    if (posted == SWAPCO_WORD_REFUSED)
        return 0;
    *parked = swapco_word_apply(self, SWAPCO_WORD_PARK);
    if (posted == SWAPCO_WORD_WOKE)
        swapco_word_rouse(target);
    return 1;
}

#endif
