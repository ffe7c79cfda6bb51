/* The wait record of a fiber: who ends this suspension.
 *
 * Theory.  A suspended fiber may be woken by four parties that know nothing of each other: a resume
 * (from any thread), the primitive that it waits in, a timeout, a cancellation.  Exactly one of them
 * may win, and the losers must learn that they lost, because each carries something: a value, a
 * permit, an item.  So every suspension opens a fresh record in one 64-bit word,
 *
 *      serial : 61 | phase : 3
 *
 * and winning is one compare-and-swap from an OPEN phase of that very serial to a WON phase.  The
 * serial is what makes a stale timer harmless: it remembers the record that it was armed for.
 *
 *      NONE ──open──▶ OPEN_BARE       ──▶ WON_RESUME | WON_TIMEOUT | WON_CANCEL ──close──▶ NONE
 *           ──open──▶ OPEN_PRIMITIVE  ──▶ WON_WAKE   | WON_TIMEOUT | WON_CANCEL ──close──▶ NONE
 *
 * A resume wins bare waits only (law 8, privacy): a fiber inside a lock, queue, sleep or I/O call is
 * not disturbed; the resume leaves it a token instead.
 *
 * Invariants.  Only the fiber itself opens and closes its word, while it owns the slot.  Between a
 * won claim and the close nobody can claim again.  Whoever wins must see to it that the fiber becomes
 * READY: the owner of the slot directly, anyone else through the inbox.
 *
 * Memory ordering.  open is a release store: it publishes the wait queue links and the value cell that
 * were prepared before it; it pairs with the acquire half of a successful claim.  claim is acq_rel:
 * its release half publishes nothing by itself (the value is stored by the winner after the claim, and
 * travels to the fiber through the run queue or the inbox), but orders the winner's earlier stores
 * before the close.  close is a plain load by the owner: the inbox or the run queue ordered it.
 * Under CPython's GIL the claims are ordered anyway; the CAS costs 5 ns and keeps the protocol true
 * for winners that do not hold it.
 *
 * Rejected: one "claim" bit a fiber (cannot tell a stale timer from a current one, nor a primitive's
 * wait from a bare one); an object per suspension (an allocation on the hottest path).
 */
#ifndef SWAPCO_WAIT_H
#define SWAPCO_WAIT_H

#include <stdint.h>

enum swapco_wait_phase {
    WAIT_NONE,
    WAIT_OPEN_BARE,
    WAIT_OPEN_PRIMITIVE,
    WAIT_WON_RESUME,
    WAIT_WON_WAKE,
    WAIT_WON_TIMEOUT,
    WAIT_WON_CANCEL,
};

typedef uint64_t wait_word;

#define WAIT_PHASE_BITS 3
#define WAIT_PHASE_MASK ((wait_word)7)

static inline int wait_phase(const wait_word *w)
{
    return (int)(__atomic_load_n(w, __ATOMIC_ACQUIRE) & WAIT_PHASE_MASK);
}

/* A fresh record in an OPEN phase; returns it, for whoever must name this very suspension later. */
static inline wait_word wait_open(wait_word *w, int phase)
{
    wait_word record = ((*w >> WAIT_PHASE_BITS) + 1) << WAIT_PHASE_BITS | (wait_word)phase;
    __atomic_store_n(w, record, __ATOMIC_RELEASE);
    return record;
}

/* Win `record`, which must still be open. 1: won. 0: somebody else was first, or it is long closed. */
static inline int wait_claim(wait_word *w, wait_word record, int winner)
{
    return __atomic_compare_exchange_n(w, &record, (record & ~WAIT_PHASE_MASK) | (wait_word)winner, 0,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Win whatever record is open now, if its phase is `open`. */
static inline int wait_claim_open(wait_word *w, int open, int winner)
{
    wait_word record = __atomic_load_n(w, __ATOMIC_ACQUIRE);
    return (int)(record & WAIT_PHASE_MASK) == open && wait_claim(w, record, winner);
}

static inline int wait_is_open(const wait_word *w)
{
    int phase = wait_phase(w);
    return phase == WAIT_OPEN_BARE || phase == WAIT_OPEN_PRIMITIVE;
}

/* By the fiber, once it runs again: the winner's phase; the word is NONE from here on. */
static inline int wait_close(wait_word *w)
{
    wait_word record = *w;
    *w = record & ~WAIT_PHASE_MASK;
    return (int)(record & WAIT_PHASE_MASK);
}

#endif
