//! Asks once: by a connection, a request, or a program inside.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustix::io::ioctl_fionbio;
use tokio::net::TcpStream;

use crate::job::{Http, Job, Probe};
use crate::keeper::client;
use crate::keeper::door::Command;
use crate::keeper::policy::Exit;

/// What an [`Exec`] answers with.
pub type ExecAnswer<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Runs a program inside a container.
pub trait Exec: Send + Sync {
    /// Runs it with these words in the container of a task, None for an instance's only one, and kills it after
    /// `timeout`. Well when it ends with code 0; else the error says how it has ended, or why it could not be run.
    fn exec<'a>(
        &'a self,
        instance: &'a str,
        task: Option<&'a str>,
        command: &'a [String],
        timeout: Duration,
    ) -> ExecAnswer<'a>;

    /// Whether there is an instance of this name, whether it runs or not.
    fn is_there(&self, instance: &str) -> bool;
}

/// The keepers of the instances in a directory.
#[derive(Debug)]
pub struct Keepers(pub PathBuf);

impl Exec for Keepers {
    fn is_there(&self, instance: &str) -> bool {
        self.0.join(instance).is_dir()
    }

    fn exec<'a>(
        &'a self,
        instance: &'a str,
        task: Option<&'a str>,
        command: &'a [String],
        timeout: Duration,
    ) -> ExecAnswer<'a> {
        Box::pin(async move {
            let directory = self.0.join(instance);
            let asked = Command {
                task: task.map(str::to_owned),
                args: command.to_vec(),
                timeout_ms: timeout.as_millis() as u64,
            };
            // It blocks where many wait for a keeper that is stuck.
            let asked = tokio::task::spawn_blocking(move || client::check(&directory, asked));
            let asked = asked.await.context("ask a keeper")??;
            // Its packets are not read here: a datagram socket is what tokio waits for without unsafe code.
            let socket = UnixDatagram::from(asked.as_fd().try_clone_to_owned()?);
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UnixDatagram::from_std(socket)?;
            socket.readable().await?;
            ioctl_fionbio(asked.as_fd(), false)?;
            let ran = asked.end()?;
            if ran.timed_out {
                bail!("no answer within {timeout:?}");
            }
            let how = match ran.exit {
                Exit::Code(0) => return Ok(()),
                Exit::Code(code) => format!("code {code}"),
                Exit::Signal(signal) => format!("signal {signal}"),
                Exit::Unknown => "nothing that is known".to_owned(),
            };
            // The last line says most.
            let line = ran.output.trim_end().lines().last().unwrap_or_default();
            let line: String = line.chars().take(200).collect();
            bail!("{:?} has ended with {how}: {line}", command[0])
        })
    }
}

/// A check that is made now.
pub(super) struct Asked {
    pub job: Arc<Job>,
    pub ports: Arc<std::collections::BTreeMap<String, u16>>,
    pub address: Option<Ipv4Addr>,
    pub instance: String,
    pub planned: super::policy::Planned,
    pub exec: Arc<dyn Exec>,
}

/// Its answer: well, or why not.
pub(super) async fn ask(asked: &Asked) -> Result<(), String> {
    let timeout = asked.planned.rhythm.timeout.duration();
    match tokio::time::timeout(timeout, once(asked, timeout)).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn once(asked: &Asked, timeout: Duration) -> Result<()> {
    let Asked {
        job,
        instance,
        planned,
        exec,
        ..
    } = asked;
    let task = job
        .tasks
        .get(&planned.task)
        .context("there is no such task")?;
    let check = task.health.get(planned.purpose);
    match check
        .and_then(|check| check.probe())
        .context("there is no such check")?
    {
        Probe::Exec(command) => {
            let name = Some(planned.task.as_str()).filter(|_| job.tasks.len() > 1);
            // It is ended by whoever runs it; a moment later nobody waits for it any more.
            exec.exec(instance, name, command, timeout).await
        }
        Probe::Tcp(tcp) => connect(place(asked, &tcp.port)?).await.map(drop),
        Probe::Http(http) => request(place(asked, &http.port)?, http).await,
    }
}

/// Where a port is asked. A program that listens everywhere listens at the loopback address too.
fn place(asked: &Asked, port: &str) -> Result<SocketAddr> {
    let number = asked.ports.get(port);
    let number = number.with_context(|| format!("port {port:?} has no number"))?;
    let said = asked.job.ports.get(port);
    if let (Some(own), Some(said)) = (asked.address, said) {
        // In the instance's own network, whatever is published.
        return Ok(SocketAddr::from((own, said.inside(*number))));
    }
    let address = said.and_then(|port| port.address);
    let address = match address {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(IpAddr::V4(all)) if all.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(IpAddr::V6(all)) if all.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(address) => address,
    };
    Ok(SocketAddr::new(address, *number))
}

async fn connect(place: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect(place).await;
    connection.with_context(|| format!("connect {place}"))
}

async fn request(place: SocketAddr, http: &Http) -> Result<()> {
    let context = || format!("GET http://{place}{}", http.path);
    let connection = connect(place).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
        .await
        .with_context(context)?;
    let host = http.host.clone().unwrap_or_else(|| place.to_string());
    let request = hyper::Request::get(&http.path)
        .header(hyper::header::HOST, host)
        .header(hyper::header::USER_AGENT, "parhelion")
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .with_context(context)?;
    // Both halves here: what is not read any more ends with this function.
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Its last act may have been the answer.
        _ended = &mut connection => answer.await,
    };
    let answer = answer.with_context(context)?;
    let status = answer.status().as_u16();
    let passes = match http.status.as_slice() {
        [] => (200..400).contains(&status),
        list => list.contains(&status),
    };
    if !passes {
        bail!("{}: the answer is {status}", context());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };

    use super::*;

    #[test]
    fn a_keeper_that_takes_no_connections_holds_up_nothing_else() {
        let folder = std::env::temp_dir().join(format!("probe-stuck-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("web")).unwrap();
        let address = SocketAddrUnix::new(folder.join("web/control")).unwrap();
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        };
        let stuck = socket();
        bind(&stuck, &address).unwrap();
        listen(&stuck, 0).unwrap();
        // Until nobody else can wait.
        let mut waiting = Vec::new();
        while let others = socket()
            && connect(&others, &address).is_ok()
        {
            waiting.push(others);
        }
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let keepers = Keepers(folder.clone());
        let limit = Duration::from_millis(100);
        let answer = runtime.block_on(async {
            let command = ["true".to_owned()];
            let asked = keepers.exec("web", None, &command, limit);
            tokio::time::timeout(limit, asked).await
        });
        assert!(answer.is_err(), "the daemon's loop waits for a connection");
        // Nor is a thread lost for ever: the runtime's end waits for it, and would never come.
        drop(runtime);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
