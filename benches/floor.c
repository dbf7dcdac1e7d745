/*
 * The kernel floor: what a container costs when nobody writes a runtime.
 *
 *   floor run    ROOTFS CGROUP ARG0 [ARG...]   make the container, execute, wait, remove the cgroup
 *   floor create ROOTFS CGROUP ARG0 [ARG...]   make the container and leave it waiting at its gate
 *   floor start  CGROUP                        open the gate
 *   floor delete CGROUP                        remove the cgroup of a container that has ended
 *   floor true                                 do nothing: a program for tiny containers
 *
 * It makes what the default bundle of side_by_side.rs asks for: the same six namespaces (pid, net
 * with loopback up, ipc, uts, mount, cgroup), the cgroup, mounts with their options, device nodes,
 * links, masked and read-only paths, host name, pivot_root, read-only root. It leaves out what the
 * bundle asks for but costs a few microseconds at most (capabilities, rlimits, no_new_privs), and
 * the device filter (an eBPF program: the runtimes load one, this does not). It parses nothing,
 * records nothing (the cgroup is the state, cgroup.procs the pid file) and protects nothing: paths
 * are trusted, so there is no openat2, and what sets up is this program, not a sealed copy.
 *
 * Every result is checked and the first failure is loud: a yardstick that skips work is worthless.
 * Where the kernel offers several ways, the fastest one measured is used; the comments name the
 * losers. The figures are from one virtual machine with two processors; only their order matters.
 * Compile with -DFLOOR_TIMES to see the nanoseconds of every step on standard error.
 */
#include "bare.h"
#include <linux/futex.h>
#include <linux/if.h>
#include <linux/mount.h>
#include <stdatomic.h>

/* From headers that belong to a libc or do not go together with those above. */
enum { SOCKET_UNIX = 1, SOCKET_DGRAM = 2, SET_INTERFACE_FLAGS = 0x8914, DETACH = 2 };
enum { GATE_SIGNAL = 10, SIGNALS_BLOCK = 0, SIGNALS_UNBLOCK = 1 };
enum { CHARACTER_DEVICE = 0020000, CLONE_TREE = 1, WHOLE_TREE = 0x8000, EMPTY_PATH = 0x1000 };

struct container {
    const char *rootfs;
    const char *cgroup;
    char **args;
    int tree;               /* the root: a detached, read-only copy of rootfs's mount */
    int gated;              /* create: wait for start before execve */
    _Atomic uint32_t ready; /* create: set by the child when only execve is left */
};

static void bring_loopback_up(void)
{
    /* Any socket takes interface ioctls; a unix one is the cheapest to make (62 us with the ioctl,
     * inet 82). A loopback born a moment ago has no flags that would need reading first. */
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK };
    int fd = must(CALL(socket, SOCKET_UNIX, SOCKET_DGRAM | O_CLOEXEC, 0, 0, 0), "socket");
    must(CALL(ioctl, fd, SET_INTERFACE_FLAGS, &request, 0, 0), "loopback up");
}

static void enter_root(int tree)
{
    /* A tree cloned by the parent and moved over "/": 45 us up to pivot_root, against 77 for bind
     * mount, chdir and remount in here. The umount waits for an RCU grace period (about 65 us):
     * nothing found avoids that, and leaving the old root in place would be no container. */
    must(CALL(mount, 0, "/", 0, MS_SLAVE | MS_REC, 0), "make / a slave");
    must(CALL(move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "move root over /");
    must(CALL(fchdir, tree, 0, 0, 0, 0), "fchdir root");
    must(CALL(pivot_root, ".", ".", 0, 0, 0), "pivot_root");
    must(CALL(umount2, ".", DETACH, 0, 0, 0), "umount old root");
}

static void mount_all(void)
{
    /* mount(2), one call each: 140 us for the lot, against 165 with fsopen, fsconfig, fsmount and
     * move_mount. */
    static const struct { const char *target, *type, *data; unsigned long flags; } mounts[] = {
        { "dev", "tmpfs", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME },
        { "dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC },
        { "dev/shm", "tmpfs", "mode=1777,size=65536k", MS_NOSUID | MS_NOEXEC | MS_NODEV },
        { "dev/mqueue", "mqueue", 0, MS_NOSUID | MS_NOEXEC | MS_NODEV },
        { "proc", "proc", 0, 0 },
        { "sys", "sysfs", 0, MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY },
        { "sys/fs/cgroup", "cgroup2", 0,
          MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY },
    };
    for (size_t i = 0; i < LENGTH(mounts); i++) {
        if (i >= 1 && i <= 3) /* inside the tmpfs that was empty a moment ago */
            must(CALL(mkdirat, AT_FDCWD, mounts[i].target, 0755, 0, 0), mounts[i].target);
        must(CALL(mount, mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags,
                  mounts[i].data), mounts[i].target);
    }
}

static void fill_dev(void)
{
    static const struct { const char *path; int device; } nodes[] = {
        { "dev/null", 1 << 8 | 3 }, { "dev/zero", 1 << 8 | 5 }, { "dev/full", 1 << 8 | 7 },
        { "dev/random", 1 << 8 | 8 }, { "dev/urandom", 1 << 8 | 9 }, { "dev/tty", 5 << 8 },
    };
    static const struct { const char *path, *to; } links[] = {
        { "dev/ptmx", "pts/ptmx" }, { "dev/fd", "/proc/self/fd" },
        { "dev/stdin", "/proc/self/fd/0" }, { "dev/stdout", "/proc/self/fd/1" },
        { "dev/stderr", "/proc/self/fd/2" }, { "dev/core", "/proc/kcore" },
    };
    for (size_t i = 0; i < LENGTH(nodes); i++)
        must(CALL(mknodat, AT_FDCWD, nodes[i].path, CHARACTER_DEVICE | 0666, nodes[i].device, 0),
             nodes[i].path);
    for (size_t i = 0; i < LENGTH(links); i++)
        must(CALL(symlinkat, links[i].to, AT_FDCWD, links[i].path, 0, 0), links[i].path);
}

static void mask_paths(void)
{
    static const char *const files[] = { "proc/kcore", "proc/keys", "proc/latency_stats",
                                         "proc/timer_list", "proc/timer_stats", "proc/sched_debug" };
    static const char *const folders[] = { "proc/acpi", "proc/asound", "sys/firmware", "proc/scsi" };
    static const char *const readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys",
                                            "proc/sysrq-trigger" };
    const char *empty = 0; /* the first masked folder: one tmpfs serves all (10 us, a new one 16) */

    for (size_t i = 0; i < LENGTH(files); i++)
        must_if_there(CALL(mount, "dev/null", files[i], 0, MS_BIND, 0), files[i]);
    for (size_t i = 0; i < LENGTH(folders); i++) {
        int there = must_if_there(empty ? CALL(mount, empty, folders[i], 0, MS_BIND, 0)
                                        : CALL(mount, "tmpfs", folders[i], "tmpfs", MS_RDONLY, 0),
                                  folders[i]);
        if (there && !empty)
            empty = folders[i];
    }
    /* Bind and remount: 10 us per path, against 12 with open_tree_attr and move_mount. */
    for (size_t i = 0; i < LENGTH(readonly); i++)
        if (must_if_there(CALL(mount, readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0), readonly[i]))
            must(CALL(mount, 0, readonly[i], 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), readonly[i]);
}

/* The cheapest gate: a blocked signal needs no file and no descriptor (a fifo costs 45 us more to
 * make and remove). Blocked before `ready` is told, so that start can never come too early. */
static void wait_at_gate(struct container *container)
{
    uint64_t gate = 1UL << (GATE_SIGNAL - 1);

    must(CALL(rt_sigprocmask, SIGNALS_BLOCK, &gate, 0, sizeof gate, 0), "block the gate's signal");
    atomic_store(&container->ready, 1);
    must(CALL(futex, &container->ready, FUTEX_WAKE, 1, 0, 0), "tell the parent");
    must(CALL(rt_sigtimedwait, &gate, 0, 0, sizeof gate, 0), "wait at the gate");
    must(CALL(rt_sigprocmask, SIGNALS_UNBLOCK, &gate, 0, sizeof gate, 0), "unblock the signal");
}

static void child(void *argument)
{
    struct container *container = argument;
    static char *const environment[] = { "PATH=/bin", 0 };

    note("clone3 to child");
    CALL(umask, 0, 0, 0, 0, 0); /* never fails; modes of nodes are exact then, without chmod */
    bring_loopback_up();
    must(CALL(sethostname, "floor", 5, 0, 0, 0), "sethostname");
    enter_root(container->tree);
    mount_all();
    fill_dev();
    mask_paths();
    CALL(umask, 022, 0, 0, 0, 0);
    if (container->gated)
        wait_at_gate(container);
    must(CALL(execve, container->args[0], container->args, environment, 0, 0), "execve");
}

static long clone_child(struct container *container)
{
    static char stack[16 * 1024] __attribute__((aligned(16)));
    struct mount_attr readonly = { .attr_set = MOUNT_ATTR_RDONLY };

    must(CALL(mkdirat, AT_FDCWD, container->cgroup, 0755, 0, 0), "make cgroup");
    int cgroup = must(CALL(openat, AT_FDCWD, container->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           0, 0), "open cgroup");
    container->tree = must(CALL(open_tree, AT_FDCWD, container->rootfs,
                                CLONE_TREE | WHOLE_TREE | O_CLOEXEC, 0, 0), "copy rootfs's mount");
    must(CALL(mount_setattr, container->tree, "", EMPTY_PATH, &readonly, sizeof readonly),
         "make the copy read-only");
    /* Sharing memory saves copying page tables (70 us). run has nothing to do until execve
     * (vfork); create hears of readiness before execve, by a futex in the shared memory. */
    struct clone_args args = {
        .flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS |
                 CLONE_NEWCGROUP | CLONE_INTO_CGROUP | CLONE_VM |
                 (container->gated ? 0 : CLONE_VFORK),
        .exit_signal = CHILD_ENDED,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
        .cgroup = cgroup,
    };
    return must(clone3_call(&args, child, container), "execve until the parent goes on");
}

static int run(struct container *container)
{
    long pid = clone_child(container);
    int status;

    must(CALL(wait4, pid, &status, 0, 0, 0), "the program and its end");
    must(CALL(unlinkat, AT_FDCWD, container->cgroup, AT_REMOVEDIR, 0, 0), "remove cgroup");
    say_times();
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

static int create(struct container *container)
{
    container->gated = 1;
    long pid = clone_child(container);
    long tenth[2] = { 0, 100000000 }; /* how soon a child that failed is noticed */

    while (!atomic_load(&container->ready)) {
        CALL(futex, &container->ready, FUTEX_WAIT, 0, tenth, 0); /* any return: look again */
        if (CALL(wait4, pid, 0, 1 /* WNOHANG */, 0, 0) == pid)
            return 125; /* the child has said why */
    }
    return 0;
}

static int start(const char *cgroup)
{
    char text[32] = "";
    long pid = 0;

    must(CALL(chdir, cgroup, 0, 0, 0, 0), "enter cgroup");
    int fd = must(CALL(openat, AT_FDCWD, "cgroup.procs", O_RDONLY, 0, 0), "open cgroup.procs");
    must(CALL(read, fd, text, sizeof text - 1, 0, 0), "read cgroup.procs");
    for (const char *at = text; *at >= '0' && *at <= '9'; at++)
        pid = pid * 10 + *at - '0';
    must(pid ? CALL(kill, pid, GATE_SIGNAL, 0, 0, 0) : -ESRCH, "open the gate");
    return 0;
}

static int command(long count, char **args)
{
    note("begin");
    if (count > 4 && (same(args[1], "run") || same(args[1], "create"))) {
        struct container container = { .rootfs = args[2], .cgroup = args[3], .args = args + 4 };
        return same(args[1], "run") ? run(&container) : create(&container);
    }
    if (count == 2 && same(args[1], "true"))
        return 0;
    if (count == 3 && same(args[1], "start"))
        return start(args[2]);
    if (count == 3 && same(args[1], "delete"))
        return must(CALL(unlinkat, AT_FDCWD, args[2], AT_REMOVEDIR, 0, 0), "remove cgroup");
    say("usage: floor run|create ROOTFS CGROUP ARG0 [ARG...] | start|delete CGROUP\n");
    return 125;
}
