"""The C side of states.h, for the compiled modules."""

cdef extern from "states.h" nogil:
    enum State "swapco_state":
        NEW "SWAPCO_NEW"
        READY "SWAPCO_READY"
        RUNNING "SWAPCO_RUNNING"
        BLOCKED "SWAPCO_BLOCKED"
        DETACHED "SWAPCO_DETACHED"
        DONE "SWAPCO_DONE"
        N_STATES "SWAPCO_N_STATES"
    const char *swapco_state_names[]
    ctypedef struct swapco_transition_t:
        # "from" is a keyword of Python: hence the other name on this side
        int source "from"
        int to
        const char *name
        const char *cause
    const swapco_transition_t swapco_transition_table[]
    int SWAPCO_N_TRANSITIONS

    void transition_start(signed char *state)
    void transition_run(signed char *state)
    void transition_yield(signed char *state)
    void transition_block(signed char *state)
    void transition_wake(signed char *state)
    void transition_finish(signed char *state)
    void transition_detach(signed char *state)
    void transition_reattach(signed char *state)
    void transition_finish_detached(signed char *state)
