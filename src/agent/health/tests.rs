//! Checks against real sockets, and what is told of instances.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI32, AtomicU16, Ordering};

use serde_json::{Value, json};
use tokio::runtime;

use super::*;

/// A program inside that ends with this code, or hangs with a negative one.
struct Program(AtomicI32);

impl Exec for Program {
    fn is_there(&self, _instance: &str) -> bool {
        true
    }

    fn exec<'a>(
        &'a self,
        _instance: &'a str,
        task: Option<&'a str>,
        command: &'a [String],
        _timeout: Duration,
    ) -> ExecAnswer<'a> {
        assert_eq!((task, command[0].as_str()), (None, "true"));
        Box::pin(async {
            match self.0.load(Ordering::SeqCst) {
                0 => Ok(()),
                code @ 1.. => anyhow::bail!("{:?} has ended with {code}", command[0]),
                _ => std::future::pending().await,
            }
        })
    }
}

/// A server that answers every request with the status.
fn server(status: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |mut connection: TcpStream| -> std::io::Result<()> {
        let mut request = [0; 1024];
        let read = connection.read(&mut request)?;
        let text = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
        let status = match status.load(Ordering::SeqCst) {
            0 => return Ok(()), // closes without an answer
            1 => return connection.write_all(b"SSH-2.0-none\r\n"),
            2 => {
                // Never answers: until whoever asked has gone.
                while connection.read(&mut request)? > 0 {}
                return Ok(());
            }
            _ if !text.starts_with("get /up?a=1 http/1.1\r\n") => 400,
            _ if !text.contains("host: web.example\r\n") => 421,
            status => status,
        };
        write!(
            connection,
            "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"
        )
    };
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A client that is gone does not matter.
            let _ = answer(connection);
        }
    });
    port
}

fn target(name: &str, run: &str, health: Value, port: u16) -> Target {
    let job = json!({
        "name": "web", "version": "1", "ports": { "http": {} },
        "tasks": { "app": { "bundle": "/b", "health": health } }
    });
    let job: crate::job::Job = serde_json::from_value(job).unwrap();
    job.check().unwrap();
    Target {
        instance: name.to_owned(),
        job: Arc::new(job),
        ports: BTreeMap::from([("http".to_owned(), port)]),
        address: None,
        run: Some(run.to_owned()),
    }
}

/// What one probe answers.
fn asked(health: Value, port: u16, code: i32) -> Result<(), String> {
    let target = target("web.0", "1", health, port);
    let asked = probe::Asked {
        planned: policy::plan(&target.job)[0].clone(),
        job: target.job,
        ports: Arc::new(target.ports),
        address: target.address,
        instance: target.instance,
        exec: Arc::new(Program(code.into())),
    };
    runtime().block_on(probe::ask(&asked))
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_request_passes_by_its_status_alone() {
    let status = Arc::new(AtomicU16::new(200));
    let port = server(Arc::clone(&status));
    let ask = |code: u16, list: &[u16]| {
        status.store(code, Ordering::SeqCst);
        let http =
            json!({ "port": "http", "path": "/up?a=1", "host": "web.example", "status": list });
        asked(
            json!({ "readiness": { "http": http, "timeout": "500ms" } }),
            port,
            0,
        )
    };
    for (code, list, passes) in [
        (200, &[][..], true),
        (302, &[], true),
        (404, &[], false),
        (503, &[], false),
        (503, &[503, 200], true),
        (204, &[200], false),
    ] {
        let answer = ask(code, list);
        assert_eq!(answer.is_ok(), passes, "{code} {list:?}: {answer:?}");
    }
    let told = ask(503, &[]).unwrap_err();
    assert_eq!(
        told,
        format!("GET http://127.0.0.1:{port}/up?a=1: the answer is 503")
    );
    assert!(ask(0, &[]).is_err(), "closed");
    assert!(ask(1, &[]).is_err(), "another protocol");
    assert_eq!(ask(2, &[]).unwrap_err(), "no answer within 500ms");
}

#[test]
fn a_connection_passes_when_it_is_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let health = json!({ "liveness": { "tcp": { "port": "http" } } });
    assert_eq!(asked(health.clone(), port, 0), Ok(()));
    drop(listener);
    let told = asked(health, port, 0).unwrap_err();
    assert!(
        told.starts_with(&format!("connect 127.0.0.1:{port}: Connection refused")),
        "{told}"
    );
}

#[test]
fn a_program_inside_passes_with_code_0() {
    let health = json!({ "liveness": { "exec": ["true"], "timeout": "100ms" } });
    assert_eq!(asked(health.clone(), 1, 0), Ok(()));
    assert_eq!(
        asked(health.clone(), 1, 7),
        Err("\"true\" has ended with 7".to_owned())
    );
    assert_eq!(
        asked(health, 1, -1),
        Err("no answer within 100ms".to_owned())
    );
}

/// What comes of asking a keeper that answers with this.
fn asked_of_keeper(name: &str, answer: Value) -> anyhow::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let all = std::env::temp_dir().join(format!("keepers-{name}-{}", std::process::id()));
    let directory = all.join("web.0");
    let _ = std::fs::remove_dir_all(&all); // of a run that was interrupted
    std::fs::create_dir_all(&directory).unwrap();
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
    let address = SocketAddrUnix::new(directory.join("control")).unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let keeper = std::thread::spawn(move || {
        let connection = rustix::net::accept(&listener).unwrap();
        let mut request = [0; 1024];
        let read = rustix::io::read(&connection, &mut request).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        rustix::io::write(&connection, answer.to_string().as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&request[..read]).unwrap()
    });
    let command = ["true".to_owned(), "-x".to_owned()];
    let second = Duration::from_secs(1);
    let keepers = Keepers(all.clone());
    let answer = runtime().block_on(keepers.exec("web.0", Some("app"), &command, second));
    let request = keeper.join().unwrap();
    assert_eq!(request["args"], json!(command), "{request}");
    assert_eq!(
        (&request["task"], &request["timeoutMs"]),
        (&json!("app"), &json!(1000))
    );
    std::fs::remove_dir_all(&all).unwrap();
    answer
}

#[test]
fn a_keeper_says_how_a_program_inside_has_ended() {
    use crate::keeper::door::Ran;
    use crate::keeper::policy::Exit;
    let ran = |exit, timed_out| {
        let ran = Ran {
            exit,
            timed_out,
            output: "up\nno database\n".to_owned(),
            duration_us: 5,
        };
        json!({ "exec": ran })
    };
    assert!(asked_of_keeper("well", ran(Exit::Code(0), false)).is_ok());
    let told = |name, answer| asked_of_keeper(name, answer).unwrap_err().to_string();
    let failed = told("code", ran(Exit::Code(3), false));
    assert_eq!(failed, "\"true\" has ended with code 3: no database");
    let late = told("late", ran(Exit::Signal(9), true));
    assert_eq!(late, "no answer within 1s");
}

/// The loop, what it tells, and what its checks ask.
struct World {
    checks: Checks,
    told: mpsc::UnboundedReceiver<Told>,
    memory: PathBuf,
}

impl World {
    fn new(memory: PathBuf, exec: &Arc<Program>) -> World {
        let (sender, told) = mpsc::unbounded_channel();
        let tell: Teller = Box::new(move |one| sender.send(one).unwrap_or_default());
        let checks = Checks::start(Arc::clone(exec) as Arc<dyn Exec>, memory.clone(), tell);
        World {
            checks,
            told,
            memory,
        }
    }

    async fn next(&mut self) -> (String, Health, String) {
        let told = tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await;
        let told = told.expect("nothing was told for 20 seconds").unwrap();
        (told.instance, told.health, told.reason)
    }

    async fn expect(&mut self, instance: &str, health: Health) -> String {
        let (name, found, reason) = self.next().await;
        assert_eq!((name.as_str(), found), (instance, health), "{reason}");
        reason
    }
}

fn memory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("health-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path); // of a run that was interrupted
    path
}

#[test]
fn an_instance_starts_is_ready_falls_ill_and_is_restarted() {
    let program = Arc::new(Program(1.into()));
    let health = json!({
        "startup": { "exec": ["true"], "interval": "100ms" },
        "liveness": { "exec": ["true"], "interval": "100ms", "failures": 2 }
    });
    runtime().block_on(async {
        let mut world = World::new(memory("life"), &program);
        world
            .checks
            .set(vec![target("web.0", "1", health.clone(), 1)]);
        world.expect("web.0", Health::Starting).await;
        program.0.store(0, Ordering::SeqCst);
        world.expect("web.0", Health::Ready).await;
        program.0.store(3, Ordering::SeqCst);
        let reason = world.expect("web.0", Health::NotReady).await;
        assert_eq!(
            reason,
            "liveness of app has failed 2 times: \"true\" has ended with 3"
        );
        assert_eq!(world.expect("web.0", Health::Unhealthy).await, reason);
        // It was restarted, and begins anew.
        world.checks.set(vec![target("web.0", "2", health, 1)]);
        world.expect("web.0", Health::Starting).await;
        let _ = std::fs::remove_file(&world.memory);
    });
}

#[test]
fn a_restart_of_the_daemon_changes_no_verdict() {
    let program = Arc::new(Program(0.into()));
    let check = json!({ "exec": ["true"], "interval": "100ms", "failures": 2 });
    let health = json!({ "startup": check, "readiness": check });
    let all = || {
        let one = |name: &str| target(name, "1", health.clone(), 1);
        vec![one("web.0"), one("web.1")]
    };
    runtime().block_on(async {
        let path = memory("daemon");
        let mut world = World::new(path.clone(), &program);
        world.checks.set(all());
        let mut ready = 0;
        while ready < 2 {
            ready += usize::from(world.next().await.1 == Health::Ready);
        }
        while memory::load(&path, |_| true)
            .values()
            .filter(|one| one.health == Health::Ready)
            .count()
            < 2
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(world);
        // Nothing answers now: what was true stays, until checks have failed.
        program.0.store(1, Ordering::SeqCst);
        let mut world = World::new(path.clone(), &program);
        world.checks.set(all());
        for name in ["web.0", "web.1"] {
            assert_eq!(world.expect(name, Health::Ready).await, "as before");
        }
        assert_eq!(world.next().await.1, Health::NotReady);
        // Of another run nothing is known.
        world
            .checks
            .set(vec![target("web.0", "2", health.clone(), 1)]);
        let mut told = world.next().await;
        while told.2 != "it has begun" {
            told = world.next().await;
        }
        assert_eq!((told.0.as_str(), told.1), ("web.0", Health::Starting));
        let _ = std::fs::remove_file(&world.memory);
    });
}

#[test]
fn an_instance_without_checks_is_unknown_and_a_thousand_begin_apart() {
    let program = Arc::new(Program(0.into()));
    runtime().block_on(async {
        let mut world = World::new(memory("none"), &program);
        world.checks.set(vec![target("web.0", "1", json!({}), 1)]);
        world.expect("web.0", Health::Unknown).await;
    });
    let target = target("web.0", "1", json!({ "liveness": { "exec": ["true"] } }), 1);
    let plan = policy::plan(&target.job);
    let first = |i: u32| {
        let state = State::new(plan.clone(), None, f64::from(i) / 1000.0, Duration::ZERO);
        state.wake_at().unwrap().as_secs()
    };
    let mut seconds = [0; 10];
    (0..1000).for_each(|i| seconds[first(i) as usize] += 1);
    assert_eq!(seconds, [100; 10]);
}
