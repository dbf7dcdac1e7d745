//! HTTP on the socket: how many may ask, how much they may send, and how long they may take.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::caller::Caller;
use super::feed::PATIENCE;
use super::patient::Patient;
use crate::error;

/// How many connections there may be; others wait.
const CONNECTIONS: usize = 512;

/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// How many bytes and fields a head may have.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 64;

/// How long the first request of a connection is waited for when the daemon ends.
const FIRST: Duration = Duration::from_secs(1);

/// How long requests may take to end when the daemon ends.
const LAST: Duration = Duration::from_secs(3);

/// After what time another connection is taken when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` says so, and then until the requests that are there have their answers.
///
/// # Errors
///
/// The socket can not be used.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let listener = UnixListener::from_std(listener).context("the socket")?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (accepted, place) = next => match accepted {
                Ok((stream, _)) => {
                    let (router, stop) = (router.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection(stream, router, stop, PATIENCE).await;
                        drop(place);
                    });
                }
                Err(problem) => {
                    error::warn(&format!("the socket: {problem}"));
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = is_true(&mut stop) => break,
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    // Who has not ended by then is cut off.
    let _cut_off = tokio::time::timeout(LAST, all).await;
    Ok(())
}

/// Serves one connection, whose client may take nothing of an answer for so long.
async fn connection(
    stream: UnixStream,
    router: Router,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) {
    let caller = Caller::of(&stream);
    let (stream, endless) = Patient::new(stream, patience);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let (begin, mut begun) = watch::channel(false);
    let inner = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        begin.send_replace(true);
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        hyper::service::Service::call(&inner, request)
    });
    let serving = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    // Who was let in has one request answered, whatever else is to be done; with a client that says nothing, that is
    // not waited for.
    let ending = async {
        is_true(&mut stop).await;
        drop(tokio::time::timeout(FIRST, is_true(&mut begun)).await);
    };
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = ending => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    // If it goes on, it is an upgraded one.
    endless.store(true, Ordering::Relaxed);
    if let Err(problem) = ended {
        error::debug(|| format!("a connection: {problem}"));
    }
}

/// Waits until it is, or nobody is left who could say so.
async fn is_true(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::feed::Feed;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// An answer without an end.
    fn endless(stop: watch::Receiver<bool>) -> Router {
        let more = move || {
            let (mut feed, answer) = Feed::new("text/plain", stop);
            tokio::spawn(async move { while feed.text(vec![b'x'; 64 << 10]).await.is_ok() {} });
            std::future::ready(answer)
        };
        Router::new().route("/", axum::routing::get(more))
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_loses_its_connection() {
        let (_end, stop) = watch::channel(false);
        let (mut client, stream) = UnixStream::pair().unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let patience = Duration::from_millis(100);
        let served = connection(stream, endless(stop.clone()), stop, patience);
        let ended = tokio::time::timeout(Duration::from_secs(20), served).await;
        assert!(ended.is_ok(), "it waits for ever");
        // What it was told is there, and no more comes.
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 200"));
    }
}
