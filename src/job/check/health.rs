//! Rules of health checks.

use super::{Checker, text};
use crate::job::{Check, Http, Job, Network, Probe, Protocol, Purpose, Task, Time};

const DAY: Time = Time::from_secs(24 * 3600);
/// The longest time that a keeper lets a command take.
const HOUR: Time = Time::from_secs(3600);
const MOST: u32 = 10_000;

pub(super) fn check(job: &Job, task: &Task, checker: &mut Checker) {
    checker.inside("health", |c| {
        for (purpose, check) in task.health.checks() {
            c.inside(purpose.name(), |c| one(job, purpose, check, c));
        }
    });
}

fn one(job: &Job, purpose: Purpose, check: &Check, checker: &mut Checker) {
    match check.probe() {
        None => {
            let is_so = !checker.knows_here(&[]);
            checker.require(is_so, || {
                "must have exactly one of exec, http and tcp".to_owned()
            });
        }
        Some(Probe::Exec(command)) => checker.inside("exec", |c| super::task::command(command, c)),
        Some(Probe::Tcp(tcp)) => checker.inside("tcp", |c| port(job, &tcp.port, c)),
        Some(Probe::Http(request)) => checker.inside("http", |c| http(job, request, c)),
    }
    checker.range("interval", check.interval, Time::from_millis(100), DAY);
    checker.range("timeout", check.timeout, Time::from_millis(10), HOUR);
    let any = u32::from(purpose != Purpose::Startup);
    checker.range("failures", check.failures, any, MOST);
    let most = if purpose == Purpose::Liveness {
        1
    } else {
        MOST
    };
    checker.range("successes", check.successes, 1, most);
}

fn port(job: &Job, name: &str, checker: &mut Checker) {
    checker.inside("port", |c| match job.ports.get(name) {
        None => c.require(!c.knows(&["ports"]), || {
            format!("{name:?} is none of the job's ports")
        }),
        Some(port) if port.protocol != Protocol::Tcp => {
            c.problem(format!("port {name:?} is for udp, where nobody answers"));
        }
        Some(_) => c.require(job.network != Network::None, || {
            "can not be reached: the job's network is \"none\"; exec can".to_owned()
        }),
    });
}

fn http(job: &Job, request: &Http, checker: &mut Checker) {
    port(job, &request.port, checker);
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let path = &request.path;
    checker.inside("path", |c| {
        let fits = path.starts_with('/') && visible(path) && !path.contains('#');
        c.require(fits, || {
            format!("must begin with / and be as in a request, is {path:?}")
        });
    });
    if let Some(host) = &request.host {
        checker.inside("host", |c| c.matches(host, &text::HOST_HEADER));
    }
    checker.inside("status", |c| {
        c.each(&request.status, |status, c| {
            c.require((100..=599).contains(status), || {
                format!("must be from 100 to 599, is {status}")
            });
        });
    });
}
