/* The register switch alone, without Python: for test_registers.py.
 *
 * Three contexts and the program's own one go round in a ring. Before each switch, a context loads every callee-saved
 * register with a value of its own that no switch before had; afterwards all must be there, and so must its rounding
 * mode. Prints "ok" and the number of switches, or the first thing that is wrong (and exits with 1). */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#include "native_registers.h"

enum { CONTEXTS = 3, STACK = 64 << 10, SPARE = 256 };

/* exchange(in, out, from, to): load the callee-saved registers from `in`, switch, and store what they are then in
 * `out`. start(argument): what a fresh context calls; passes on the stack and the frame pointer that it finds. */
void exchange(const uint64_t *in, uint64_t *out, void **from, void *to) __attribute__((visibility("hidden")));
void start(void *argument) __attribute__((visibility("hidden")));

#if defined(__x86_64__)

enum { REGISTERS = 6, CALLED_WITH = 8 };
static const char *const names[] = {"rbx", "rbp", "r12", "r13", "r14", "r15"};

__asm__(
    ".text\n"
    ".globl exchange\n"
    ".hidden exchange\n"
    ".type exchange,@function\n"
    "exchange:\n"
    ".cfi_startproc\n"
    "  pushq %rbx\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %rbx, 0\n"
    "  pushq %rbp\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %rbp, 0\n"
    "  pushq %r12\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r12, 0\n"
    "  pushq %r13\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r13, 0\n"
    "  pushq %r14\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r14, 0\n"
    "  pushq %r15\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r15, 0\n"
    "  pushq %rsi\n .cfi_adjust_cfa_offset 8\n"
    "  movq 0(%rdi), %rbx\n"
    "  movq 8(%rdi), %rbp\n"
    "  movq 16(%rdi), %r12\n"
    "  movq 24(%rdi), %r13\n"
    "  movq 32(%rdi), %r14\n"
    "  movq 40(%rdi), %r15\n"
    "  movq %rdx, %rdi\n"
    "  movq %rcx, %rsi\n"
    "  callq native_registers_switch\n"
    "  popq %rax\n .cfi_adjust_cfa_offset -8\n"
    "  movq %rbx, 0(%rax)\n"
    "  movq %rbp, 8(%rax)\n"
    "  movq %r12, 16(%rax)\n"
    "  movq %r13, 24(%rax)\n"
    "  movq %r14, 32(%rax)\n"
    "  movq %r15, 40(%rax)\n"
    "  popq %r15\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r15\n"
    "  popq %r14\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r14\n"
    "  popq %r13\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r13\n"
    "  popq %r12\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r12\n"
    "  popq %rbp\n .cfi_adjust_cfa_offset -8\n .cfi_restore %rbp\n"
    "  popq %rbx\n .cfi_adjust_cfa_offset -8\n .cfi_restore %rbx\n"
    "  ret\n"
    ".cfi_endproc\n"
    ".size exchange,.-exchange\n"
    ".globl start\n"
    ".hidden start\n"
    ".type start,@function\n"
    "start:\n"
    ".cfi_startproc\n"
    "  movq %rsp, %rsi\n"
    "  movq %rbp, %rdx\n"
    "  jmp context_main\n"
    ".cfi_endproc\n"
    ".size start,.-start\n");

/* Rounding, flush to zero, precision, masks. */
static void set_modes(int n)
{
    uint32_t mxcsr = 0x1f80 | (uint32_t)(n % 4) << 13 | (n % 2 ? 0x8000 : 0);
    uint16_t x87 = (uint16_t)(0x033f | (3 - n % 4) << 10 | (n % 2 ? 0x0040 : 0));
    __asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(mxcsr), "m"(x87));
}

static uint64_t modes(void)
{
    uint32_t mxcsr;
    uint16_t x87;
    __asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(x87));
    return (mxcsr & 0xffc0) | (uint64_t)x87 << 32;
}

#elif defined(__aarch64__)

enum { REGISTERS = 19, CALLED_WITH = 0 };
static const char *const names[] = {"x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",
                                    "x29", "d8",  "d9",  "d10", "d11", "d12", "d13", "d14", "d15"};

__asm__(
    ".text\n"
    ".globl exchange\n"
    ".hidden exchange\n"
    ".type exchange,%function\n"
    "exchange:\n"
    ".cfi_startproc\n"
    "  hint #34\n"
    "  stp x29, x30, [sp, #-176]!\n .cfi_adjust_cfa_offset 176\n .cfi_rel_offset x29, 0\n .cfi_rel_offset x30, 8\n"
    "  stp x19, x20, [sp, #16]\n"
    "  stp x21, x22, [sp, #32]\n"
    "  stp x23, x24, [sp, #48]\n"
    "  stp x25, x26, [sp, #64]\n"
    "  stp x27, x28, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  str x1, [sp, #160]\n"
    "  mov x9, x0\n"
    "  ldp x19, x20, [x9, #0]\n"
    "  ldp x21, x22, [x9, #16]\n"
    "  ldp x23, x24, [x9, #32]\n"
    "  ldp x25, x26, [x9, #48]\n"
    "  ldp x27, x28, [x9, #64]\n"
    "  ldr x29, [x9, #80]\n"
    "  ldp d8, d9, [x9, #88]\n"
    "  ldp d10, d11, [x9, #104]\n"
    "  ldp d12, d13, [x9, #120]\n"
    "  ldp d14, d15, [x9, #136]\n"
    "  mov x0, x2\n"
    "  mov x1, x3\n"
    "  bl native_registers_switch\n"
    "  ldr x9, [sp, #160]\n"
    "  stp x19, x20, [x9, #0]\n"
    "  stp x21, x22, [x9, #16]\n"
    "  stp x23, x24, [x9, #32]\n"
    "  stp x25, x26, [x9, #48]\n"
    "  stp x27, x28, [x9, #64]\n"
    "  str x29, [x9, #80]\n"
    "  stp d8, d9, [x9, #88]\n"
    "  stp d10, d11, [x9, #104]\n"
    "  stp d12, d13, [x9, #120]\n"
    "  stp d14, d15, [x9, #136]\n"
    "  ldp x19, x20, [sp, #16]\n"
    "  ldp x21, x22, [sp, #32]\n"
    "  ldp x23, x24, [sp, #48]\n"
    "  ldp x25, x26, [sp, #64]\n"
    "  ldp x27, x28, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  ldp x29, x30, [sp], #176\n .cfi_adjust_cfa_offset -176\n"
    "  ret\n"
    ".cfi_endproc\n"
    ".size exchange,.-exchange\n"
    ".globl start\n"
    ".hidden start\n"
    ".type start,%function\n"
    "start:\n"
    ".cfi_startproc\n"
    "  hint #34\n"
    "  mov x1, sp\n"
    "  mov x2, x29\n"
    "  b context_main\n"
    ".cfi_endproc\n"
    ".size start,.-start\n");

/* Rounding, flush to zero, default NaN. */
static void set_modes(int n)
{
    uint64_t fpcr = (uint64_t)(n % 4) << 22 | (uint64_t)(n % 2) << 24 | (uint64_t)(n / 2 % 2) << 25;
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}

static uint64_t modes(void)
{
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}

#endif

typedef struct {
    int number;
    void *sp;
    uint64_t born_with;
    long turns;
} context;

static context ring[CONTEXTS + 1]; /* the last one: the program's own stack */
static long rounds, switches, frames_seen;
static void *last_function;

static void fail(const char *what, int number, uint64_t found, uint64_t expected)
{
    set_modes(0);
    printf("%s in context %d: found %#llx, not %#llx\n", what, number, (unsigned long long)found,
           (unsigned long long)expected);
    exit(1);
}

static void turn(context *c)
{
    uint64_t in[REGISTERS], out[REGISTERS];
    context *next = &ring[(c->number + 1) % (CONTEXTS + 1)];
    uint64_t mode = modes();
    for (int r = 0; r < REGISTERS; r++)
        in[r] = 0x9e3779b97f4a7c15u * (uint64_t)(switches * 31 + c->number * 97 + r + 1);
    memset(out, 0, sizeof out);
    switches++;
    c->turns++;
    exchange(in, out, &c->sp, next->sp);
    for (int r = 0; r < REGISTERS; r++)
        if (out[r] != in[r])
            fail(names[r], c->number, out[r], in[r]);
    if (modes() != mode)
        fail("rounding and masks", c->number, modes(), mode);
}

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *frame, void *unused)
{
    (void)unused;
    frames_seen++;
    if (_Unwind_GetIP(frame) != 0)
        last_function = _Unwind_FindEnclosingFunction((void *)(_Unwind_GetIP(frame) - 1));
    return frames_seen < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

/* An unwinder that walks up from a fresh stack finds the end. */
static __attribute__((noinline)) void walk(context *c)
{
    frames_seen = 0;
    last_function = NULL;
    _Unwind_Reason_Code code = _Unwind_Backtrace(count_frame, NULL);
    if (code != _URC_END_OF_STACK)
        fail("the unwinder's result", c->number, (uint64_t)code, _URC_END_OF_STACK);
    if (last_function != (void *)native_registers_boot)
        fail("the outermost function", c->number, (uint64_t)(uintptr_t)last_function,
             (uint64_t)(uintptr_t)native_registers_boot);
    if (frames_seen > 5)
        fail("the number of frames", c->number, (uint64_t)frames_seen, 5);
}

__attribute__((used)) void context_main(void *argument, uintptr_t sp, uintptr_t frame_pointer)
{
    context *c = argument;
    if (c < ring || c >= ring + CONTEXTS || c != &ring[c->number])
        fail("the argument", -1, (uintptr_t)argument, (uintptr_t)ring);
    if ((sp + CALLED_WITH) % 16 != 0)
        fail("the alignment of the stack at the start", c->number, sp, 16);
    if (frame_pointer != 0)
        fail("the frame pointer at the start", c->number, frame_pointer, 0);
    if (modes() != c->born_with)
        fail("rounding and masks at the start", c->number, modes(), c->born_with);
    set_modes(c->number + 2);
    walk(c);
    for (;;)
        turn(c);
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? atol(argv[1]) : 1;
    context *own = &ring[CONTEXTS];
    for (int n = 0; n <= CONTEXTS; n++)
        ring[n].number = n;
    for (int n = 0; n < CONTEXTS; n++) {
        char *stack = malloc(STACK + SPARE);
        if (stack == NULL)
            return 2;
        memset(stack, 0xa5, STACK + SPARE);
        set_modes(n + 1);
        ring[n].born_with = modes();
        /* also from an end that is not aligned; above it, what no unwinder likes */
        ring[n].sp = native_registers_first_frame(stack + STACK - 5 * n, start, &ring[n]);
    }
    set_modes(0);
    uint64_t before = modes();
    for (long n = 0; n < rounds; n++)
        turn(own);
    if (modes() != before)
        fail("rounding and masks at the end", CONTEXTS, modes(), before);
    for (int n = 0; n < CONTEXTS; n++)
        if (ring[n].turns != rounds)
            fail("turns", n, (uint64_t)ring[n].turns, (uint64_t)rounds);
    set_modes(0);
    printf("ok %ld\n", switches);
    return 0;
}
