/* A native stack's continuation, and the switch: registers and thread state together.
 *
 * The parts: native_registers.h (the CPU's half), native_thread.h (CPython's half), native_stacks.h (memory),
 * native_overflow.h (what a user sees when a stack is used up). On a machine without the first, NATIVE_REGISTERS is
 * not defined, nothing here works, and native_refusal says so. */
#ifndef SWAPCO_NATIVE_SWITCH_H
#define SWAPCO_NATIVE_SWITCH_H

#include "native_registers.h"
#include "native_thread.h"
#include "native_stacks.h"
#include "native_overflow.h"

#include <sys/syscall.h>

typedef struct {
    void *sp;
    native_thread_state thread;
} native_continuation;

/* Why this build, or this process, cannot switch natively; NULL: it can. */
static const char *native_refusal(void)
{
#ifndef NATIVE_REGISTERS
    return "there is no register switch for this processor";
#elif defined(Py_GIL_DISABLED)
    return "this CPython has no GIL";
#elif defined(Py_DEBUG)
    return "this CPython is a debug build";
#else
#ifdef __x86_64__
    /* arch_prctl(ARCH_SHSTK_STATUS): a `ret` to another stack would be trapped */
    unsigned long features = 0;
    if (syscall(SYS_arch_prctl, 0x5005, &features) == 0 && features & 1)
        return "shadow stacks are on in this process";
#endif
    return NULL;
#endif
}

/* The same, as to memory: asked once, when there are no stacks yet. */
static const char *native_space_refusal(void)
{
#if PY_VERSION_HEX < 0x030C0000
    if (native_address_space_is_scarce())
        return "address space is limited, and CPython 3.11 does not count C calls: each stack must be 8 MiB";
#endif
    return NULL;
}

#ifdef NATIVE_REGISTERS

static inline void native_switch(native_continuation *from, native_continuation *to)
{
    PyThreadState *thread = native_this_thread;
    native_thread_save(thread, &from->thread);
    native_thread_restore(thread, &to->thread);
    native_registers_switch(&from->sp, to->sp);
}

/* The last switch from a stack: never comes back. */
static void native_leave(native_continuation *from, native_continuation *to)
{
    native_switch(from, to);
    Py_FatalError("a native stack was continued after its end");
}

static void native_begin(native_continuation *c, native_stack *s, void (*main)(void *), void *argument)
{
    native_thread_fresh(&c->thread, &s->thread, s->frames, FRAMES_BYTES, native_c_calls(s->size));
    c->sp = native_registers_first_frame(s, main, argument);
}

#else

static void native_switch(native_continuation *from, native_continuation *to) { (void)from; (void)to; }
static void native_leave(native_continuation *from, native_continuation *to) { (void)from; (void)to; }
static void native_begin(native_continuation *c, native_stack *s, void (*main)(void *), void *argument)
{
    (void)c; (void)s; (void)main; (void)argument;
}

#endif

/* The innermost Python frame of a parked stack: a new reference or NULL. */
static PyObject *native_stack_frame(native_continuation *c)
{
    return native_thread_frame(&c->thread);
}

#endif
