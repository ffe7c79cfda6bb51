/* Pinning: what is done in C, because Python must not run there. The theory is in placement.py.
 *
 * - Home is pinned while it sleeps in a lend, and no longer: by itself, without the GIL.
 * - A worker is moved off the CPU by the detector, and unpinned by the audit hook (inheritance.h).
 *
 * A mask that is neither the one CPU of the slot nor what the slot allows was set by the program, and stays. */
#ifndef SWAPCO_PLACEMENT_H
#define SWAPCO_PLACEMENT_H

#include "slot_word.h"

/* Does a thread (0: the calling one) have exactly this mask?  No, if it cannot be asked. */
static inline int placement_mask_is(pid_t tid, const cpu_set_t *mask)
{
    cpu_set_t now;
    CPU_ZERO(&now);
    return sched_getaffinity(tid, sizeof now, &now) == 0 && CPU_EQUAL(&now, mask);
}

static inline cpu_set_t placement_only(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return one;
}

/* By home, awake: does it run on the slot's CPU, and may it use the CPUs that it might when that one was chosen? */
static inline int placement_stands(swapco_slot *s)
{
    return sched_getcpu() == atomic_load(&s->cpu) && placement_mask_is(0, &s->allowed);
}

/* By home, when the CPU is chosen: is it to pin itself before it wakes the worker?
 *
 * Not under the usual policy, see below.  Under a real-time policy a thread that wakes up pinned pushes one of the same
 * priority that is free to another CPU: the worker would push home. */
static inline void placement_note_policy(swapco_slot *s)
{
    int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
    s->pins_early = policy == SCHED_FIFO || policy == SCHED_RR;
}

/* By home, which has lent the slot and is about to sleep: to wake up on this CPU.  Is it pinned now?
 *
 * Not if it has the slot already: the kernel mostly lets the worker run as soon as home wakes it, and a short call is
 * over before home is back from that system call. */
static inline int placement_pin_home(swapco_slot *s)
{
    int cpu = atomic_load(&s->cpu);
    if (cpu < 0 || slot_names(s, SWAPCO_HOME))
        return 0;
    cpu_set_t one = placement_only(cpu);
    atomic_store(&s->home->cpu, cpu);
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

/* By home, which has slept pinned. */
static inline void placement_free_home(swapco_slot *s)
{
    cpu_set_t one = placement_only(atomic_load(&s->home->cpu)), allowed = s->allowed;
    if (placement_mask_is(0, &one))
        sched_setaffinity(0, sizeof allowed, &allowed);
}

/* By the thread of a worker, which is about to start something that would inherit its mask. */
static inline void placement_free_worker(swapco_worker *w)
{
    int cpu = atomic_load(&w->cpu);
    if (cpu >= 0) {
        cpu_set_t one = placement_only(cpu), allowed = w->slot->allowed;
        if (placement_mask_is(0, &one) && sched_setaffinity(0, sizeof allowed, &allowed) == 0)
            atomic_store(&w->displaced, 1);
    }
}

/* By the detector: home is to have its CPU, also if a worker computes there and the kernel would let it go on. */
static inline void placement_displace(swapco_slot *s, swapco_worker *w, pid_t tid)
{
    int cpu = atomic_load(&s->cpu), its = atomic_load(&w->cpu);
    if (cpu < 0 || its < 0)
        return;
    cpu_set_t one = placement_only(its), allowed = s->allowed, others = allowed;
    CPU_CLR(cpu, &others);
    if (!placement_mask_is(tid, &one) && !placement_mask_is(tid, &allowed))
        return;
    atomic_store(&w->displaced, 1);
    sched_setaffinity(tid, sizeof others, &others);
    sched_setaffinity(tid, sizeof allowed, &allowed);
}

#endif
