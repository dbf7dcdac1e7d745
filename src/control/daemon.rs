//! The daemon, from its beginning to its end: two threads, one that reads requests in a jail and one that starts
//! programs.
//!
//! TERM and INT end it and leave everything running; USR2 and HUP make it the newer program at its path.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser as _;
use rustix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::upgrade::Successor;
use super::{
    Agent, Control, Options, exec, expiry, faults, halt, inherited, jail, metrics, place, routes,
    server, socket, wanted,
};
use crate::agent::{self, Handle};
use crate::error::{self, Level, Log, LogFormat};
use crate::job::JobId;
use crate::store::embedded::Embedded;
use crate::store::{self, Clock, Store};

/// How long the thread that reads requests may take to answer that it lives.
const ALIVE: Duration = Duration::from_secs(5);

/// How long a lock of the store is waited for.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// How soon it is tried again: `sys::lock` says why there is no event to wait for.
const LOCK_AGAIN: Duration = Duration::from_millis(5);

/// The store's clock: the time since the host has booted, in which sleep counts.
struct Boottime;

impl Clock for Boottime {
    fn now(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}

/// Opens the store. One whose daemon was just killed is locked for a moment yet, where that was starting a program: the
/// other process has a copy of the descriptor up to its execve.
async fn open(place: &Path) -> Result<Embedded, store::Error> {
    let open = || Embedded::open(place, Arc::new(Boottime));
    let unlocked = async {
        loop {
            match open() {
                Err(store::Error::Locked { .. }) => tokio::time::sleep(LOCK_AGAIN).await,
                opened => return opened,
            }
        }
    };
    let in_time = tokio::time::timeout(LOCK_LIMIT, unlocked).await;
    in_time.unwrap_or_else(|_| open())
}

/// Why the loop has ended.
enum End {
    /// It was asked to.
    Stop,
    /// A newer program is to take over.
    Upgrade,
}

/// Runs the daemon by this process' command line; the exit code. Another daemon is asked by `ask`, of the layer beside this one.
#[must_use]
pub fn main(ask: halt::Ask) -> i32 {
    let options = Options::parse();
    error::set_log(Log {
        destination: None,
        format: LogFormat::Text,
        level: match options.debug {
            true => Level::Debug,
            false => Level::Warning,
        },
    });
    match run(&options, ask) {
        Ok(()) => 0,
        Err(problem) => {
            error::report(&problem);
            1
        }
    }
}

fn run(options: &Options, ask: halt::Ask) -> Result<()> {
    let successor = Successor::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().context("the loop")?;
    if let Some(within) = options.halt {
        let within = Duration::from_secs(within.into());
        return runtime.block_on(halt::halt(options, within, ask));
    }
    let (end, listener) = runtime.block_on(serve(options, &successor))?;
    // Waits for nothing: what is still on a thread is no deed of anybody's.
    runtime.shutdown_background();
    match end {
        End::Stop => Ok(()),
        End::Upgrade => successor.exec(&listener).map(|never| match never {}),
    }
}

/// What the main thread waits for besides.
struct Signals {
    stop: [Signal; 2],
    upgrade: [Signal; 2],
}

impl Signals {
    fn new() -> Result<Signals> {
        let of = |kind| signal(kind).context("signals");
        Ok(Signals {
            stop: [of(SignalKind::terminate())?, of(SignalKind::interrupt())?],
            upgrade: [of(SignalKind::user_defined2())?, of(SignalKind::hangup())?],
        })
    }
}

async fn serve(options: &Options, successor: &Successor) -> Result<(End, OwnedFd)> {
    let mut signals = Signals::new()?;
    inherited::adopt();
    let host = options.host()?;
    let program = options.runtime()?;
    place::own(&options.state).context("--state")?;
    let places = faults::Places {
        store: options.state.join("store"),
        agent: options.state.join("agent"),
    };
    let store = open(&places.store).await?;
    if let Some(torn) = store.torn() {
        error::warn(&format!("the store had an unfinished write: {torn:?}"));
    }
    let listener = socket::open(&options.socket)?;
    let agent = agent::start(options.agent()?);
    let agent = agent.await.context("the agent")?;
    let run = options.state.join("terminals");
    if let Err(problem) = place::own(&run) {
        // Only sessions with a terminal need it.
        error::warn(&format!("for exec: {}", error::in_words(&problem)));
    }
    let (door, sessions) = exec::door();
    let (stop, stopped) = watch::channel(false);
    let control = Control {
        store: Arc::new(store) as Arc<dyn Store>,
        agent: Arc::new(agent.clone()) as Arc<dyn Agent>,
        host,
        exec: door,
        sessions: Arc::new(Semaphore::new(exec::SESSIONS)),
        health: wanted::Health::default(),
        accepted: tokio::sync::Notify::new(),
        turn: Arc::new(watch::Sender::default()),
        places: Arc::new(places),
        refused: tokio::sync::Notify::new(),
        counts: metrics::Counts::default(),
        created: tokio::sync::Notify::new(),
        stop: stopped,
    };
    let kept = OwnedFd::from(listener.try_clone().context("the socket")?);
    let mut api = Api::start(control, listener)?;
    let runtime = exec::Runtime {
        program,
        open_files: successor.open_files(),
    };
    tokio::spawn(exec::serve(runtime, run, sessions));
    notify(&[NotifyState::Ready]);
    error::debug(|| format!("ready at {:?}", options.socket));
    let going_down = || agent.snapshots().borrow().halting.is_some();
    let end = live(&mut signals, &mut api, successor, going_down).await?;
    let _ends_with_it = stop.send(true);
    api.join().await?;
    agent.stop().await;
    Ok((end, kept))
}

/// The thread that reads requests.
struct Api {
    pings: mpsc::Sender<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Api {
    fn start(control: Control, listener: UnixListener) -> Result<Api> {
        let (pings, asked) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let body = move || {
            // Nobody is left to be told when the main thread has gone.
            let _told = end.send(api(control, listener, asked));
        };
        let thread = std::thread::Builder::new().name("api".to_owned());
        thread.spawn(body).context("a thread")?;
        Ok(Api { pings, ended })
    }

    /// Whether it still answers.
    async fn lives(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.pings.send(answer).await.ok()?;
            answered.await.ok()
        };
        matches!(tokio::time::timeout(ALIVE, asked).await, Ok(Some(())))
    }

    async fn join(&mut self) -> Result<()> {
        let ended = (&mut self.ended).await;
        ended.context("the thread that reads requests is gone")?
    }
}

fn api(
    control: Control,
    listener: UnixListener,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) -> Result<()> {
    jail::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().context("the loop")?;
    let control = Arc::new(control);
    let stop = control.stop.clone();
    let served = runtime.block_on(async {
        tokio::spawn(wanted::follow(Arc::clone(&control)));
        tokio::spawn(expiry::follow(Arc::clone(&control)));
        tokio::spawn(faults::mend(Arc::clone(&control)));
        tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                // Who has asked may have waited too long.
                let _late = answer.send(());
            }
        });
        server::serve(listener, routes::router(control), stop).await
    });
    // A store that writes is waited for, and closed by whoever has it last.
    runtime.shutdown_timeout(ALIVE);
    served
}

/// Lives until it is to end. The watchdog hears of it as long as both threads answer.
async fn live(
    signals: &mut Signals,
    api: &mut Api,
    successor: &Successor,
    going_down: impl Fn() -> bool,
) -> Result<End> {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut ticks = tokio::time::interval(watchdog.unwrap_or(ALIVE));
    let [term, int] = &mut signals.stop;
    let [usr2, hup] = &mut signals.upgrade;
    loop {
        let upgrade = tokio::select! {
            _ = term.recv() => false,
            _ = int.recv() => false,
            _ = usr2.recv() => true,
            _ = hup.recv() => true,
            _ = ticks.tick(), if watchdog.is_some() => {
                if api.lives().await {
                    notify(&[NotifyState::Watchdog]);
                } else {
                    error::warn("the thread that reads requests does not answer");
                }
                continue;
            }
            ended = &mut api.ended => {
                ended.context("the thread that reads requests is gone")??;
                bail!("the thread that reads requests has ended");
            }
        };
        if !upgrade {
            notify(&[NotifyState::Stopping]);
            return Ok(End::Stop);
        }
        // It would start everything again.
        if going_down() {
            error::warn("no other program takes over: this host is going down");
            continue;
        }
        match successor.check().await {
            Ok(()) => {
                let now = NotifyState::monotonic_usec_now();
                notify(&[NotifyState::Reloading, now.context("the clock")?]);
                return Ok(End::Upgrade);
            }
            Err(problem) => {
                let words = error::in_words(&problem);
                error::warn(&format!("no other program takes over: {words}"));
            }
        }
    }
}

/// Tells systemd, if it started this.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(problem) = sd_notify::notify(state) {
        error::warn(&format!("systemd is not told: {problem}"));
    }
}

impl super::Events for agent::Events {
    fn next(&mut self) -> super::Answer<'_, Option<crate::api::Event>> {
        Box::pin(agent::Events::next(self))
    }
}

impl Agent for Handle {
    fn want(&self, wanted: agent::Wanted) -> super::Answer<'_, Result<()>> {
        Box::pin(Handle::want(self, wanted))
    }

    fn accept(&self, wanted: agent::Wanted) -> super::Answer<'_, Result<()>> {
        Box::pin(Handle::accept(self, wanted))
    }

    fn halt(&self, within: Duration) -> super::Answer<'_, Result<()>> {
        Box::pin(Handle::halt(self, within))
    }

    fn fault(&self) -> Option<String> {
        Handle::fault(self)
    }

    fn turns(&self) -> super::Answer<'_, Result<()>> {
        Box::pin(Handle::turns(self))
    }

    fn snapshots(&self) -> watch::Receiver<Arc<agent::Snapshot>> {
        Handle::snapshots(self)
    }

    fn events(&self, from: u64) -> Box<dyn super::Events> {
        Box::new(Handle::events(self, from))
    }

    fn note(&self, job: &JobId, kind: &'static str, cause: String) {
        Handle::note(self, job, kind, cause);
    }

    fn restart<'a>(&'a self, instance: &'a str, reason: &'a str) -> super::Answer<'a, Result<()>> {
        Box::pin(Handle::restart(self, instance, reason))
    }

    fn log(&self, instance: &str, task: &str) -> Result<std::path::PathBuf> {
        Handle::log(self, instance, task)
    }

    fn container(&self, instance: &str, task: &str) -> Result<(std::path::PathBuf, String)> {
        Handle::container(self, instance, task)
    }
}
