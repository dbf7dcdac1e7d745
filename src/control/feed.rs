//! Answers that go on: lines of JSON or text, as long as somebody takes them.
//!
//! One line waits at most. Who does not take it within [`PATIENCE`] is cut off, so that a slow client costs neither
//! memory nor anybody else's time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

/// How long a client may take for a line.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The side that tells.
pub struct Feed {
    lines: mpsc::Sender<Bytes>,
    stop: watch::Receiver<bool>,
}

/// Nobody listens any more, or the daemon ends.
#[derive(Debug)]
pub struct Gone;

/// The side of HTTP.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let line = self.0.poll_recv(context);
        line.map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

impl Feed {
    /// An answer of this type and the side that fills it. It ends when `stop` says so.
    pub fn new(content_type: &'static str, stop: watch::Receiver<bool>) -> (Feed, Response) {
        let (lines, taken) = mpsc::channel(1);
        let headers = [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let answer = (headers, Body::new(Lines(taken))).into_response();
        (Feed { lines, stop }, answer)
    }

    /// The same for lines of JSON.
    pub fn json(stop: watch::Receiver<bool>) -> (Feed, Response) {
        Feed::new("application/x-ndjson", stop)
    }

    /// Tells a piece of text.
    ///
    /// # Errors
    ///
    /// It is not taken.
    pub async fn text(&mut self, text: impl Into<Bytes>) -> Result<(), Gone> {
        let sent = tokio::time::timeout(PATIENCE, self.lines.send(text.into()));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Gone),
            },
            _ = self.stop.wait_for(|stop| *stop) => Err(Gone),
        }
    }

    /// Tells a value as a line of JSON.
    ///
    /// # Errors
    ///
    /// It is not taken.
    pub async fn line<T: Serialize>(&mut self, value: &T) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(value).map_err(|_| Gone)?;
        line.push(b'\n');
        self.text(line).await
    }

    /// Waits until nobody listens any more, or the daemon ends.
    pub async fn gone(&mut self) {
        tokio::select! {
            () = self.lines.closed() => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }
}
