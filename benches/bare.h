/*
 * What a C program needs to live without a libc: system calls, the first instruction, clone3 on a
 * stack of its own, checks. Part of floor.c, stopwatch.c and stamp.c, which are built like this:
 *
 *   cc -O2 -static -nostdlib -ffreestanding -fno-stack-protector -o floor floor.c
 *
 * No libc, because a static glibc asks the processor for its features at start, and in a virtual
 * machine each of those some eighty CPUID instructions traps: 0.2 to 0.4 ms per execution where
 * measured. WITH_LIBC makes of the same source what any C program is, which has that start:
 *
 *   cc -O2 -static -DWITH_LIBC -o floor-libc floor.c
 */
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { CHILD_ENDED = 17 /* SIGCHLD */ };

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result = number;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
#error "call6, clone3_call and _start: add this architecture"
#endif
}
#define CALL(name, a, b, c, d, e) \
    call6(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

static int command(long count, char **args); /* the program; args[count + 1] on: the environment */

#ifdef WITH_LIBC
int main(int count, char **args)
{
    return command(count, args);
}
#else
__attribute__((used, noreturn)) static void begin(long *stack)
{
    for (int status = command(stack[0], (char **)(stack + 1));;)
        CALL(exit_group, status, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#else
__asm__(".globl _start\n_start: mov x29, xzr\n mov x0, sp\n bl begin\n");
#endif
#endif

/* The child starts in function(argument) on its own stack, as with CLONE_VM it has to. */
__attribute__((unused)) static long clone3_call(struct clone_args *args, void (*function)(void *), void *argument)
{
#if defined(__x86_64__)
    long result = __NR_clone3;
    register void (*fn)(void *) __asm__("r12") = function;
    register void *arg __asm__("r13") = argument;
    __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n xor %%ebp, %%ebp\n mov %%r13, %%rdi\n"
                     "call *%%r12\n hlt\n1:"
                     : "+a"(result) : "D"(args), "S"(sizeof *args), "r"(fn), "r"(arg)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long number __asm__("x8") = __NR_clone3;
    register long result __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof *args;
    register void (*fn)(void *) __asm__("x19") = function;
    register void *arg __asm__("x20") = argument;
    __asm__ volatile("svc #0\n cbnz x0, 1f\n mov x29, xzr\n mov x0, x20\n blr x19\n brk #1\n1:"
                     : "+r"(result) : "r"(number), "r"(size), "r"(fn), "r"(arg)
                     : "x30", "memory");
    return result;
#endif
}

/* The compiler may call it by itself. */
void *memset(void *to, int byte, size_t length)
{
    for (volatile char *at = to; length--; at++)
        *at = byte;
    return to;
}

static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

static inline int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void say(const char *text)
{
    CALL(write, 2, text, length_of(text), 0, 0);
}

static void say_number(long number)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    say(at);
}

static inline long now(void)
{
    long time[2];
    CALL(clock_gettime, 1 /* monotonic */, time, 0, 0, 0);
    return time[0] * 1000000000 + time[1];
}

#ifdef FLOOR_TIMES
static struct { const char *what; long ns; } times[128];
static int times_used;

static inline void note(const char *what)
{
    times[times_used].what = what;
    times[times_used++].ns = now();
}

static inline void say_times(void)
{
    for (int i = 1; i < times_used; i++) {
        say_number(times[i].ns - times[i - 1].ns);
        say(" ");
        say(times[i].what);
        say("\n");
    }
}
#else
static inline void note(const char *what) { (void)what; }
static inline void say_times(void) { }
#endif

static long must(long result, const char *what)
{
    if (result < 0) {
        say("failed: ");
        say(what);
        say(": errno ");
        say_number(-result);
        say("\n");
        CALL(exit_group, 125, 0, 0, 0, 0);
    }
    note(what);
    return result;
}

/* For masked and read-only paths: this kernel need not have all of them. */
static inline int must_if_there(long result, const char *what)
{
    must(result == -ENOENT ? 0 : result, what);
    return result == 0;
}
