/*
 * Executes one program and says what it cost:
 *
 *   stopwatch MILLISECONDS PROGRAM [ARG...]
 *
 * The line on standard output: wall ns, user us, system us, peak resident KiB, wait status, and 1
 * when the program had to be killed because it took longer than MILLISECONDS. CPU and memory are
 * those of the program and of the children it has waited for. The program's standard output is
 * this one's standard error.
 *
 * A program of its own because of the peak: a process that executes keeps the peak of the memory
 * it had before, so a runtime started from a larger program would look as large as that.
 */
#include "bare.h"
#include <linux/time_types.h>
#include <poll.h>

enum { KILL = 9 };

struct usage { /* the start of the kernel's struct rusage */
    struct __kernel_old_timeval user, system;
    long peak_kib, rest[13];
};

static void program(void *argument)
{
    char **args = argument;
    char **environment = args;

    while (*environment)
        environment++;
    must(CALL(dup3, 2, 1, 0, 0, 0), "dup3");
    must(CALL(execve, args[0], args, environment + 1, 0, 0), args[0]);
}

static void say_field(long number)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = ' ';
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    CALL(write, 1, at, digits + sizeof digits - at, 0, 0);
}

static int command(long count, char **args)
{
    static char stack[16 * 1024] __attribute__((aligned(16)));
    int pidfd = -1, status = 0, late;
    long limit = 0;
    struct usage usage;

    if (count < 3)
        must(-EINVAL, "usage: stopwatch MILLISECONDS PROGRAM [ARG...]");
    for (const char *at = args[1]; *at >= '0' && *at <= '9'; at++)
        limit = limit * 10 + *at - '0';
    struct clone_args clone = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = CHILD_ENDED,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
    };
    long began = now();
    long pid = must(clone3_call(&clone, program, args + 2), "clone3");
    struct pollfd ended = { .fd = pidfd, .events = POLLIN };
    struct __kernel_timespec timeout = { limit / 1000, limit % 1000 * 1000000 };
    late = must(CALL(ppoll, &ended, 1, &timeout, 0, 0), "ppoll") == 0;
    if (late)
        must(CALL(kill, pid, KILL, 0, 0, 0), "kill");
    must(CALL(wait4, pid, &status, 0, &usage, 0), "wait4");
    say_field(now() - began);
    say_field(usage.user.tv_sec * 1000000 + usage.user.tv_usec);
    say_field(usage.system.tv_sec * 1000000 + usage.system.tv_usec);
    say_field(usage.peak_kib);
    say_field(status);
    say_field(late);
    return 0;
}
