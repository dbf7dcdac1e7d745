/*
 * Executes one program step by step and says which of its instructions it comes to:
 *
 *   steps LOW HIGH PROGRAM [ARG...]
 *
 * A line with its address, hexadecimal, for each instruction between LOW and HIGH (as well) in the
 * order of their first execution; children are not followed. Some thousand times slower than the program.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **args)
{
    int status, signal;
    if (count < 4)
        return fputs("usage: steps LOW HIGH PROGRAM [ARG...]\n", stderr), 125;
    unsigned long low = strtoul(args[1], 0, 16), high = strtoul(args[2], 0, 16);
    char *seen = calloc(high - low, 1);
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(args[3], args + 3);
        _exit(127);
    }
    while (seen && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        struct user_regs_struct at;
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (ptrace(PTRACE_GETREGS, pid, 0, &at) == 0 && at.rip >= low && at.rip < high && !seen[at.rip - low]) {
            seen[at.rip - low] = 1;
            printf("%llx\n", at.rip);
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
    }
    return seen && WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
