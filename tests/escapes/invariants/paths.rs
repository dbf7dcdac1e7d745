//! From the moment on when it is in the container's mount namespace, init opens no path that anybody inside could lead
//! elsewhere.
//!
//! What it looks up is resolved by openat2(2) below a descriptor or inside it, or is one name in an open folder
//! whose links are not followed. [`is_allowed`] has the paths that are left, and why.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::libc;
use serde_json::json;

use super::calls::{Call, Place};
use super::cases;
use super::state::State;
use super::trace::{Stop, Trace, What, Who};
use crate::caller::Running;
use crate::subject::Subject;
use crate::support::{Bundle, tests};

/// The tests of this file.
pub fn all() -> Vec<Trial> {
    tests![
        init_opens_no_path_that_is_not_confined,
        init_opens_no_such_path_in_a_user_namespace,
        init_opens_no_such_path_with_a_terminal,
        init_opens_no_such_path_where_it_does_not_pivot,
        init_opens_no_such_path_in_a_mount_namespace_of_others,
        init_opens_no_such_path_under_landlock,
        a_process_that_joins_opens_no_such_path,
        init_would_open_what_is_at_proc_inside,
        init_would_open_paths_that_are_not_confined,
        init_would_open_places_by_their_name,
        the_terminal_would_be_opened_by_a_path,
        each_kind_of_path_is_seen_for_what_it_is,
    ]
}

/// Paths of the configuration.
struct Named<'a> {
    bundle: &'a str,
    working_directory: &'a str,
    program: &'a str,
    /// What Landlock's rules are about.
    ruled: &'a [&'a str],
}

impl Named<'_> {
    fn of(bundle: &Bundle) -> Named<'_> {
        Named {
            bundle: bundle.path(),
            working_directory: "/tmp",
            program: "/bin/busybox",
            ruled: &[],
        }
    }
}

/// Whether the path may be looked up so, in a process that has `entered` the container's root or has not.
fn is_allowed(place: &Place, entered: bool, named: &Named<'_>) -> bool {
    let path = place.path.as_str();
    if path.is_empty() || place.call.starts_with("execve") {
        return true;
    }
    if place.confined {
        return place.only_place || is_opened_for_use(path);
    }
    let opened = ["open", "openat"].contains(&place.call) && place.only_place;
    if path.starts_with('/') {
        return match (entered, path) {
            // The process' own root: there is no name in it.
            (_, "/") => opened || ["move_mount", "chdir"].contains(&place.call),
            // In the copy of the host's mounts, whose names nobody inside has changed: the container's are mounted
            // in its root, which `/` does not lead to yet. It must be the device 1:3. In a joined mount namespace
            // the names are others', and that is all that is asked of it.
            (false, "/dev/null") => opened,
            // Likewise; where createContainer hooks run (runtime-spec, "POSIX-platform Hooks").
            (false, path) if path == named.bundle => place.call == "chdir",
            // Likewise; --no-pivot takes these away first.
            (false, "/proc" | "/sys") => opened && !place.follows || place.call == "umount2",
            // The container's own, inside its root, where the path can lead to nothing else; what was
            // entered is looked at once more.
            (true, path) if path == named.working_directory => place.call == "chdir",
            // Likewise, as the program's user: only looked at.
            (true, path) if path == named.program => {
                ["newfstatat", "stat", "faccessat2"].contains(&place.call)
            }
            // Likewise: a rule says what of the container's it is about.
            (true, path) if named.ruled.contains(&path) => opened,
            (_, _) => false,
        };
    }
    if place.from_working_directory {
        // The root that was opened, which is the working directory then.
        return path == "." && ["pivot_root", "umount2", "chroot"].contains(&place.call);
    }
    if let Some(number) = path.strip_prefix("self/fd/") {
        // What is open already, through the host's procfs.
        return place.call == "openat" && number.parse::<u32>().is_ok();
    }
    path == "." || !path.contains('/') && path != ".." && !place.follows
}

/// Whether it is a file, in the root or of the host's procfs, that is opened for use at once: a device or a FIFO of the image's
/// would be set off by that. Everything else is a place that is looked at first.
fn is_opened_for_use(path: &str) -> bool {
    // passwd without waiting, and only read when it is a regular file.
    path == "etc/passwd" || path.starts_with("sys/net/") || path.starts_with("thread-self/attr/")
}

/// What of the trace breaks the invariant, and how many paths were looked at.
fn wrong<'a>(stops: impl Iterator<Item = &'a Stop>, named: &Named<'_>) -> (Vec<String>, usize) {
    let mut entered = BTreeSet::new();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for stop in stops.filter(|stop| stop.who == Who::Init && stop.state.own_mounts) {
        let Some(call) = stop.call() else { continue };
        let Some(places) = &call.places else {
            wrong.push(format!("system call {} is in no table", call.number));
            continue;
        };
        for place in places {
            count += 1;
            if !is_allowed(place, entered.contains(&stop.pid), named) {
                wrong.push(format!("{place:?}"));
            }
        }
        if [libc::SYS_pivot_root, libc::SYS_chroot].contains(&call.number) {
            entered.insert(stop.pid);
        }
    }
    (wrong, count)
}

/// It holds, for at least so many paths.
fn holds(trace: &Trace, named: &Named<'_>, least: usize) {
    let (wrong, count) = wrong(trace.stops.iter(), named);
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
    assert!(count >= least, "{count} paths");
}

/// What breaks it in a build without mitigations.
fn without(names: &'static str, trace: impl Fn(&Bundle) -> Trace) -> String {
    let bundle = cases::bundle(Subject::Without(names));
    let trace = trace(&bundle);
    wrong(trace.stops.iter(), &Named::of(&bundle)).0.join("\n")
}

fn init_opens_no_path_that_is_not_confined() {
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::run(&bundle, &[]), &Named::of(&bundle), 70);
}

fn init_opens_no_such_path_in_a_user_namespace() {
    let bundle = cases::bundle(Subject::Real);
    cases::in_user_namespace(&bundle);
    holds(&cases::run(&bundle, &[]), &Named::of(&bundle), 70);
}

fn init_opens_no_such_path_with_a_terminal() {
    let bundle = cases::bundle(Subject::Real);
    holds(&cases::create(&bundle, &[]), &Named::of(&bundle), 70);
}

fn init_opens_no_such_path_where_it_does_not_pivot() {
    let bundle = cases::bundle(Subject::Real);
    holds(
        &cases::run(&bundle, &["--no-pivot"]),
        &Named::of(&bundle),
        70,
    );
}

fn init_opens_no_such_path_in_a_mount_namespace_of_others() {
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", "echo made; exec sleep 100000"]);
    let others = Running::spawn(&mut command, Stdio::null());
    assert_eq!(others.line(), "made");
    let bundle = cases::bundle(Subject::Real);
    bundle.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        let mount = namespaces.iter_mut().find(|one| one["type"] == "mount");
        mount.unwrap()["path"] = json!(format!("/proc/{}/ns/mnt", others.pid()));
    });
    holds(&cases::run(&bundle, &[]), &Named::of(&bundle), 70);
}

fn init_opens_no_such_path_under_landlock() {
    let bundle = cases::bundle(Subject::Real);
    bundle.edit(|config| {
        let rules = json!({"readExecute": ["/bin"], "readWrite": ["/etc"]});
        config["annotations"] = json!({"dev.parhelion.landlock": rules.to_string()});
    });
    let named = Named {
        ruled: &["/bin", "/etc"],
        ..Named::of(&bundle)
    };
    holds(&cases::run(&bundle, &[]), &named, 70);
}

fn a_process_that_joins_opens_no_such_path() {
    for in_user_namespace in [false, true] {
        let bundle = cases::bundle(Subject::Real);
        if in_user_namespace {
            cases::in_user_namespace(&bundle);
        }
        holds(&cases::exec(&bundle, &[]), &Named::of(&bundle), 5);
    }
}

fn init_would_open_what_is_at_proc_inside() {
    let wrong = without("host-proc", |bundle| cases::run(bundle, &[]));
    assert!(wrong.contains("path: \"/proc\""), "{wrong}");
    assert!(
        wrong.contains("path: \"sys/net/ipv4/ip_forward\""),
        "{wrong}"
    );
}

fn init_would_open_paths_that_are_not_confined() {
    let wrong = without("in-root", |bundle| cases::run(bundle, &[]));
    assert!(wrong.contains("path: \"sys/fs/cgroup\""), "{wrong}");
}

fn init_would_open_places_by_their_name() {
    let wrong = without("opened-places", |bundle| cases::run(bundle, &[]));
    assert!(wrong.contains("path: \"/proc/self/fd/"), "{wrong}");
}

fn the_terminal_would_be_opened_by_a_path() {
    let wrong = without("in-root,terminal-peer", |bundle| cases::create(bundle, &[]));
    assert!(wrong.contains("path: \"dev/pts/0\""), "{wrong}");
}

/// A call of a process in the container's mount namespace.
fn looks_up(number: i64, place: Place) -> Stop {
    Stop {
        pid: 1,
        who: Who::Init,
        what: What::Calls(Call::made_up(number, [0; 6], vec![place])),
        state: State {
            own_mounts: true,
            ..State::default()
        },
    }
}

fn place(call: &'static str, path: &str) -> Place {
    Place {
        call,
        from_working_directory: false,
        path: path.to_owned(),
        follows: false,
        confined: false,
        only_place: false,
    }
}

fn each_kind_of_path_is_seen_for_what_it_is() {
    let named = Named {
        bundle: "/bundle",
        working_directory: "/work",
        program: "/bin/program",
        ruled: &[],
    };
    let is_wrong = |stops: &[Stop]| !wrong(stops.iter(), &named).0.is_empty();
    let here = |call, path| Place {
        from_working_directory: true,
        ..place(call, path)
    };
    let follows = Place {
        follows: true,
        ..place("openat", "name")
    };
    let confined = Place {
        confined: true,
        ..place("openat2", "dev/null")
    };
    let seen = [
        confined,
        place("openat", "/etc/passwd"),
        place("mount_setattr", "/"),
        place("openat", ".."),
        place("mkdirat", "a/b"),
        place("move_mount", "dev"),
        here("openat", "name"),
        here("open", "/dev/null"), // not as a place alone
        here("chdir", "/work"),    // the host's
        follows,
    ];
    for place in seen {
        let wrong = is_wrong(&[looks_up(libc::SYS_openat, place.clone())]);
        let fine = place.call == "move_mount"; // one name in an open folder
        assert_eq!(wrong, !fine, "{place:?}");
    }
    let enters = looks_up(libc::SYS_chroot, here("chroot", "."));
    let after = |place| is_wrong(&[enters.clone(), looks_up(libc::SYS_openat, place)]);
    assert!(!after(here("chdir", "/work")));
    assert!(after(here("chdir", "/bundle")));
    let mut null = here("open", "/dev/null");
    null.only_place = true;
    assert!(!is_wrong(&[looks_up(libc::SYS_openat, null.clone())]));
    assert!(after(null));
    let mut unknown = looks_up(9999, place("", ""));
    unknown.what = What::Calls(Call {
        number: 9999,
        args: [0; 6],
        places: None,
    });
    assert!(is_wrong(&[unknown]));
}
