/* The register switch: leave one C stack and continue on another.
 *
 * A C function call may destroy all registers but those that the ABI calls callee-saved. So a switch that looks like
 * a function to the compiler saves exactly these, on the stack that it leaves, and the stack pointer is then all there
 * is to remember: `native_registers_switch(&from, to)` returns on the stack of `to`, where that one once called it.
 * A fresh stack gets a frame that looks as if it had (`native_registers_first_frame`); its "return" goes to a few
 * instructions that call main(argument).
 *
 * Rules:
 * - Rounding and exception masks (MXCSR, x87 control word; FPCR) are callee-saved, too. Loading them is slow, so they
 *   are compared first; the sticky status bits in MXCSR are the thread's and do not count.
 * - `ret` stays `ret`: an indirect jump instead would cost a misprediction a switch. A CPU with shadow stacks would
 *   trap it, so they must be off (native_shadow_stack).
 * - main() finds the stack pointer as after any call: a multiple of 16 before the call.
 * - An unwinder must stop at the first frame, hence `.cfi_undefined` of the return address there; and it looks up the
 *   instruction before the return address, hence the `nop` before the one that is returned to.
 * - aarch64: return addresses on the stack are not signed (PAC): the first frame could not be. The landing pad (BTI)
 *   is there; a `ret` needs none. The platform register x18 belongs to the thread and is not touched.
 *
 * Sources: System V ABI, AMD64 supplement, 3.2; Procedure Call Standard for the Arm 64-bit Architecture, 6. */
#ifndef SWAPCO_NATIVE_REGISTERS_H
#define SWAPCO_NATIVE_REGISTERS_H

#include <stdint.h>
#include <string.h>

#if defined(__linux__) && defined(__x86_64__) && !defined(__ILP32__)
#define NATIVE_REGISTERS "x86-64"
#elif defined(__linux__) && defined(__aarch64__) && !defined(__ILP32__)
#define NATIVE_REGISTERS "aarch64"
#endif

#ifdef NATIVE_REGISTERS

/* Save the caller's registers and stack pointer in *from, and continue where `to` was saved. */
void native_registers_switch(void **from, void *to) __attribute__((visibility("hidden")));
void native_registers_boot(void) __attribute__((visibility("hidden")));

#ifdef __x86_64__

__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl native_registers_switch\n"
    ".hidden native_registers_switch\n"
    ".type native_registers_switch,@function\n"
    "native_registers_switch:\n"
    ".cfi_startproc\n"
    "  pushq %rbp\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %rbp, 0\n"
    "  pushq %rbx\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %rbx, 0\n"
    "  pushq %r12\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r12, 0\n"
    "  pushq %r13\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r13, 0\n"
    "  pushq %r14\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r14, 0\n"
    "  pushq %r15\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset %r15, 0\n"
    "  subq $8, %rsp\n .cfi_adjust_cfa_offset 8\n"
    "  stmxcsr (%rsp)\n"
    "  fnstcw 4(%rsp)\n"
    "  movl (%rsp), %eax\n"
    "  movzwl 4(%rsp), %ecx\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  xorl (%rsp), %eax\n"
    "  testl $0xffc0, %eax\n"
    "  jne 2f\n"
    "  cmpw 4(%rsp), %cx\n"
    "  jne 2f\n"
    "1:\n"
    ".cfi_remember_state\n"
    "  addq $8, %rsp\n .cfi_adjust_cfa_offset -8\n"
    "  popq %r15\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r15\n"
    "  popq %r14\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r14\n"
    "  popq %r13\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r13\n"
    "  popq %r12\n .cfi_adjust_cfa_offset -8\n .cfi_restore %r12\n"
    "  popq %rbx\n .cfi_adjust_cfa_offset -8\n .cfi_restore %rbx\n"
    "  popq %rbp\n .cfi_adjust_cfa_offset -8\n .cfi_restore %rbp\n"
    "  ret\n"
    "2:\n"
    ".cfi_restore_state\n"
    "  ldmxcsr (%rsp)\n"
    "  fldcw 4(%rsp)\n"
    "  jmp 1b\n"
    ".cfi_endproc\n"
    ".size native_registers_switch,.-native_registers_switch\n"

    ".p2align 4\n"
    ".globl native_registers_boot\n"
    ".hidden native_registers_boot\n"
    ".type native_registers_boot,@function\n"
    "native_registers_boot:\n"
    ".cfi_startproc\n"
    ".cfi_undefined %rip\n"
    "  nop\n"
    "  movq %r12, %rdi\n"
    "  callq *%r13\n"
    "  ud2\n"
    ".cfi_endproc\n"
    ".size native_registers_boot,.-native_registers_boot\n");

/* The first frame of a stack that ends at `top`: what to continue in order to call main(argument), which must not
 * return. */
static inline void *native_registers_first_frame(void *top, void (*main)(void *), void *argument)
{
    uintptr_t *frame = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15) - 8;
    uint32_t mxcsr;
    uint16_t x87;
    __asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(x87));
    frame[0] = mxcsr | (uintptr_t)x87 << 32;
    frame[1] = 0;                   /* r15 */
    frame[2] = 0;                   /* r14 */
    frame[3] = (uintptr_t)main;     /* r13 */
    frame[4] = (uintptr_t)argument; /* r12 */
    frame[5] = 0;                   /* rbx */
    frame[6] = 0;                   /* rbp */
    frame[7] = (uintptr_t)native_registers_boot + 1;
    return frame;
}

#else /* aarch64 */

__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl native_registers_switch\n"
    ".hidden native_registers_switch\n"
    ".type native_registers_switch,%function\n"
    "native_registers_switch:\n"
    ".cfi_startproc\n"
    "  hint #34\n" /* bti c */
    "  sub sp, sp, #176\n .cfi_adjust_cfa_offset 176\n"
    "  stp x19, x20, [sp, #0]\n .cfi_rel_offset x19, 0\n .cfi_rel_offset x20, 8\n"
    "  stp x21, x22, [sp, #16]\n .cfi_rel_offset x21, 16\n .cfi_rel_offset x22, 24\n"
    "  stp x23, x24, [sp, #32]\n .cfi_rel_offset x23, 32\n .cfi_rel_offset x24, 40\n"
    "  stp x25, x26, [sp, #48]\n .cfi_rel_offset x25, 48\n .cfi_rel_offset x26, 56\n"
    "  stp x27, x28, [sp, #64]\n .cfi_rel_offset x27, 64\n .cfi_rel_offset x28, 72\n"
    "  stp x29, x30, [sp, #80]\n .cfi_rel_offset x29, 80\n .cfi_rel_offset x30, 88\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mrs x3, fpcr\n"
    "  str x3, [sp, #160]\n"
    "  mov x2, sp\n"
    "  str x2, [x0]\n"
    "  mov sp, x1\n"
    "  ldr x4, [sp, #160]\n"
    "  cmp x3, x4\n"
    "  b.eq 1f\n"
    "  msr fpcr, x4\n"
    "1:\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #176\n .cfi_adjust_cfa_offset -176\n"
    "  ret\n"
    ".cfi_endproc\n"
    ".size native_registers_switch,.-native_registers_switch\n"

    ".p2align 4\n"
    ".globl native_registers_boot\n"
    ".hidden native_registers_boot\n"
    ".type native_registers_boot,%function\n"
    "native_registers_boot:\n"
    ".cfi_startproc\n"
    ".cfi_undefined x30\n"
    "  nop\n"
    "  mov x0, x19\n"
    "  blr x20\n"
    "  brk #0\n"
    ".cfi_endproc\n"
    ".size native_registers_boot,.-native_registers_boot\n");

static inline void *native_registers_first_frame(void *top, void (*main)(void *), void *argument)
{
    uintptr_t *frame = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15) - 22;
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    memset(frame, 0, 176);
    frame[0] = (uintptr_t)argument;               /* x19 */
    frame[1] = (uintptr_t)main;                   /* x20 */
    frame[11] = (uintptr_t)native_registers_boot + 4; /* x30 */
    frame[20] = fpcr;
    return frame;
}

#endif
#endif /* NATIVE_REGISTERS */
#endif
