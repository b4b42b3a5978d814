/* How image.c begins and how it calls the kernel, without a libc: what differs between architectures. See syscall(2). */
#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tand $-16,%rsp\n\tcall run\n\thlt\n");
static long
call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    long result;
    register u64 r10 __asm__("r10") = d;
    register u64 r8 __asm__("r8") = e;
    register u64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29,xzr\n\tmov x30,xzr\n\tbl run\n\tbrk #1\n");
static long
call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 x8 __asm__("x8") = (u64)nr;
    register u64 x0 __asm__("x0") = a;
    register u64 x1 __asm__("x1") = b;
    register u64 x2 __asm__("x2") = c;
    register u64 x3 __asm__("x3") = d;
    register u64 x4 __asm__("x4") = e;
    register u64 x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return (long)x0;
}
#elif defined(__riscv) && __riscv_xlen == 64
__asm__(".globl _start\n_start:\n\t.option push\n\t.option norelax\n\tmv s0,zero\n\t.option pop\n\tcall run\n\tebreak\n");
static long
call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 a7 __asm__("a7") = (u64)nr;
    register u64 a0 __asm__("a0") = a;
    register u64 a1 __asm__("a1") = b;
    register u64 a2 __asm__("a2") = c;
    register u64 a3 __asm__("a3") = d;
    register u64 a4 __asm__("a4") = e;
    register u64 a5 __asm__("a5") = f;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return (long)a0;
}
#else
#error "the waiting image has no system call for this architecture yet"
#endif

#define CALL0(name) call(__NR_##name, 0, 0, 0, 0, 0, 0)
#define CALL1(name, a) call(__NR_##name, (u64)(a), 0, 0, 0, 0, 0)
#define CALL2(name, a, b) call(__NR_##name, (u64)(a), (u64)(b), 0, 0, 0, 0)
#define CALL3(name, a, b, c) call(__NR_##name, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)
#define CALL4(name, a, b, c, d) call(__NR_##name, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)
#define CALL5(name, a, b, c, d, e) call(__NR_##name, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), 0)
