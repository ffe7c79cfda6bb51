"""What a blocked fiber can wait for: the closed list. See reasons.pyx."""

cdef enum Reason:
    NOTHING
    BLOCK
    SWITCH_TO
    PARK
    SLEEP
    JOIN
    LOCK
    EVENT
    CONDITION
    SEMAPHORE
    QUEUE_GET
    QUEUE_PUT
    QUEUE_JOIN
    FIBERS
    # from here on the wake-up comes from outside the scheduler: such a wait is never part of a deadlock
    READ
    WRITE
    AWAIT
    N_REASONS

cdef inline bint is_external(int reason) noexcept:
    return reason >= READ
