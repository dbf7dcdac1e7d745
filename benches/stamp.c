/*
 * The program that managers of services are measured with: it says when it was executed, and stays.
 *
 *   stamp SOCKET [LINES]
 *
 * Its first act is to look at CLOCK_MONOTONIC, before it has even found its arguments; what it sees is sent to the
 * datagram socket SOCKET as three numbers of 64 bits: that moment in nanoseconds, and two zeros. Who has sent it the
 * kernel says (SCM_CREDENTIALS), in the reader's own pid namespace.
 *
 * With LINES it first prints so many lines of 100 bytes on standard output, as fast as they are taken: their numbers
 * from 0 on, filled up to that length. The message then has the moments of the first and the last write(2) instead:
 * executed, first line, all lines taken.
 *
 * Without a libc, as stopwatch.c: the start of one takes longer than what is to be seen here.
 */
#include "bare.h"
#include <linux/un.h>

enum { LINE = 100, DIGITS = 12, AT_ONCE = 655 /* lines: what fits into 64 KiB */, UNIX = 1, DATAGRAM = 2 };

static void fill(char *line, long number)
{
    for (int at = DIGITS - 1; at >= 0; at--, number /= 10)
        line[at] = '0' + number % 10;
}

static void print_lines(long count)
{
    static char lines[AT_ONCE * LINE];

    for (int at = 0; at < (int)sizeof lines; at++)
        lines[at] = at % LINE == LINE - 1 ? '\n' : '.';
    for (long first = 0; first < count; first += AT_ONCE) {
        long some = count - first < AT_ONCE ? count - first : AT_ONCE;
        for (long at = 0; at < some; at++)
            fill(lines + at * LINE, first + at);
        for (long done = 0; done < some * LINE;)
            done += must(CALL(write, 1, lines + done, some * LINE - done, 0, 0), "write");
    }
}

static int command(long count, char **args)
{
    long told[3] = { now() };
    struct sockaddr_un address = { .sun_family = UNIX };
    long lines = 0;

    if (count < 2 || length_of(args[1]) >= sizeof address.sun_path)
        must(-EINVAL, "usage: stamp SOCKET [LINES]");
    for (size_t at = 0; at < length_of(args[1]); at++)
        address.sun_path[at] = args[1][at];
    if (count > 2) {
        for (const char *at = args[2]; *at >= '0' && *at <= '9'; at++)
            lines = lines * 10 + *at - '0';
        told[1] = now();
        print_lines(lines);
        told[2] = now();
    }
    long to = must(CALL(socket, UNIX, DATAGRAM, 0, 0, 0), "socket");
    must(call6(__NR_sendto, to, (long)told, sizeof told, 0, (long)&address, sizeof address), args[1]);
    CALL(close, to, 0, 0, 0, 0);
    for (;;)
        CALL(ppoll, 0, 0, 0, 0, 0);
    return 0;
}
