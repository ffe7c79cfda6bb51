"""The C side of futex.h, for the compiled modules; what each function does is said there."""

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint64_t


cdef extern from "futex.h" nogil:
    const int64_t SWAPCO_DEADLINE_NEVER
    const int64_t SWAPCO_DEADLINE_PAST

    enum:
        SWAPCO_WORD_BLOCKED
        SWAPCO_WORD_RUNNING
        SWAPCO_WORD_QUEUED

    enum swapco_word_step:
        SWAPCO_WORD_POST
        SWAPCO_WORD_PARK
        SWAPCO_WORD_TAKE_BACK
        SWAPCO_WORD_N_STEPS

    enum swapco_word_outcome:
        SWAPCO_WORD_WOKE
        SWAPCO_WORD_KEPT
        SWAPCO_WORD_PARKED
        SWAPCO_WORD_TOOK
        SWAPCO_WORD_TAKEN_BACK
        SWAPCO_WORD_WAKE_WON
        SWAPCO_WORD_REFUSED

    enum swapco_wait_end:
        SWAPCO_WAIT_WOKEN
        SWAPCO_WAIT_TIMED_OUT
        SWAPCO_WAIT_INTERRUPTED
        SWAPCO_WAIT_FAILED

    ctypedef struct swapco_word_transition:
        int8_t after
        uint8_t outcome

    const char *swapco_word_step_names[]
    const char *swapco_word_outcome_names[]
    const swapco_word_transition swapco_word_table[][3]

    ctypedef struct swapco_word:
        pass

    int64_t swapco_monotonic_ns()
    swapco_word *swapco_word_new()
    int32_t swapco_word_value_now(swapco_word *word)
    uint64_t swapco_word_waiter_now(swapco_word *word)
    bint swapco_word_enter(swapco_word *word, uint64_t waiter)
    void swapco_word_leave(swapco_word *word)
    swapco_word_outcome swapco_word_apply(swapco_word *word, swapco_word_step step)
    swapco_wait_end swapco_word_sleep(swapco_word *word, int64_t deadline_ns, int *error)
    void swapco_word_rouse(swapco_word *word)
    bint swapco_word_hand_over(swapco_word *self, swapco_word *target, swapco_word_outcome *parked)


@cython.final
cdef class FutexWord:
    cdef swapco_word *line
    cdef object __weakref__
    cdef int _enter(self) except -1
    cdef swapco_wait_end _park(self, int64_t deadline_ns, int *error) noexcept
    cdef int _finish(self, swapco_wait_end end, int error, int64_t deadline_ns, object timeout) except -1
