"""The C side of wait.h, for the compiled modules."""

cdef extern from "wait.h" nogil:
    enum:
        WAIT_NONE
        WAIT_OPEN_BARE
        WAIT_OPEN_PRIMITIVE
        WAIT_WON_RESUME
        WAIT_WON_WAKE
        WAIT_WON_TIMEOUT
        WAIT_WON_CANCEL
    ctypedef unsigned long long wait_word
    int wait_phase(const wait_word *w)
    wait_word wait_open(wait_word *w, int phase)
    int wait_claim(wait_word *w, wait_word record, int winner)
    int wait_claim_open(wait_word *w, int open, int winner)
    int wait_is_open(const wait_word *w)
    int wait_close(wait_word *w)
