/* The states of a fiber, and every legal transition between them.
 *
 * Theory.  A fiber is in exactly one state.  Who holds it there:
 *
 *   state     who refers to it                     its stack
 *   NEW       run queue (Policy)                   none yet
 *   READY     run queue                            parked, holds its frames
 *   RUNNING   Scheduler.current                    is the one that executes
 *   BLOCKED   its wait record, maybe a wait queue  parked, holds its frames
 *   DETACHED  its kernel thread, without the slot  its thread's own
 *   DONE      whoever still wants the result       given back to the pool
 *
 * Invariants.  At most one fiber of a slot is RUNNING.  A fiber is in the run queue if and only if it
 * is NEW or READY (a fiber taken from it becomes RUNNING in the same scheduler section).  Only the
 * owner of the slot changes a state; a foreign thread wins the fiber's wait record instead (wait.h)
 * and posts the fiber to the slot's inbox.
 *
 * The two lists below are the only definition: the enum, the legality masks, the names and table that
 * Python sees (states.pyx), the diagram in docs/ and the tests are made from them.  An illegal
 * transition is a broken scheduler; it ends the process at once, because every later step would be
 * built on the lie.
 */
#ifndef SWAPCO_STATES_H
#define SWAPCO_STATES_H

#include <Python.h>

#define SWAPCO_STATES(X) X(NEW) X(READY) X(RUNNING) X(BLOCKED) X(DETACHED) X(DONE)

/* from, to, name of the transition, cause */
#define SWAPCO_TRANSITIONS(X)                                                                     \
    X(NEW, RUNNING, start, "a stack takes it for the first time")                                 \
    X(READY, RUNNING, run, "it is taken from the run queue, or switch_to hands it the slot")      \
    X(RUNNING, READY, yield, "sleep(0), or a forced yield: to the tail of the run queue")         \
    X(RUNNING, BLOCKED, block, "it opens a wait record and gives the slot away")                  \
    X(BLOCKED, READY, wake, "its wait was won: by a resume, a wake, the timeout or a cancel")     \
    X(RUNNING, DONE, finish, "its function returned or raised")                                   \
    X(RUNNING, DETACHED, detach, "its kernel thread blocked, and the slot was revoked")           \
    X(DETACHED, READY, reattach, "its kernel thread came back and waits for the slot")            \
    X(DETACHED, DONE, finish_detached, "its function ended without the slot")

#define X(name) SWAPCO_##name,
enum swapco_state { SWAPCO_STATES(X) SWAPCO_N_STATES };
#undef X

static const char *const swapco_state_names[] = {
#define X(name) #name,
    SWAPCO_STATES(X)
#undef X
};

typedef struct {
    int from, to;
    const char *name, *cause;
} swapco_transition_t;

static const swapco_transition_t swapco_transition_table[] = {
#define X(from, to, name, cause) {SWAPCO_##from, SWAPCO_##to, #name, cause},
    SWAPCO_TRANSITIONS(X)
#undef X
};

#define SWAPCO_N_TRANSITIONS ((int)(sizeof swapco_transition_table / sizeof *swapco_transition_table))

static void swapco_illegal_transition(int from, const char *name)
{
    PySys_WriteStderr("swapco: illegal transition %s of a fiber that is %s\n", name,
                      from >= 0 && from < SWAPCO_N_STATES ? swapco_state_names[from] : "?");
    Py_FatalError("swapco: the scheduler's state is corrupt");
}

/* transition_<name>(&state): one function for each row. */
#define X(from_, to_, name, cause)                                                                \
    static inline void transition_##name(signed char *state)                                      \
    {                                                                                             \
        if (__builtin_expect(*state != SWAPCO_##from_, 0))                                        \
            swapco_illegal_transition(*state, #name);                                             \
        *state = SWAPCO_##to_;                                                                    \
    }
SWAPCO_TRANSITIONS(X)
#undef X

#endif
