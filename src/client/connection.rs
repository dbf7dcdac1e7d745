//! HTTP on the daemon's socket: one connection for each request.

use std::io;
use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::failure::Failure;
use crate::api::exec::PROTOCOL;
use crate::api::{Problem, TOKEN_HEADER, VERSION_HEADER};

/// The longest line of a stream that is read.
const LONGEST: usize = 64 << 20;

/// Where the daemon is asked.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    token: Option<String>,
}

impl Client {
    /// One for the daemon at a socket.
    pub fn new(socket: PathBuf, token: Option<String>) -> Client {
        Client { socket, token }
    }

    /// What there is at a path.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, &()).await
    }

    /// Asks for something, with a body unless it is `()`.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let answer = self.send(method, path, body, false).await?;
        let text = answer.into_body().collect().await;
        let text = text.map_err(|e| self.lost(&e))?.to_bytes();
        serde_json::from_slice(&text).map_err(Failure::strange)
    }

    /// What comes at a path, piece by piece.
    pub async fn stream(&self, path: &str) -> Result<Stream, Failure> {
        let answer = self.send(Method::GET, path, &(), false).await?;
        Ok(Stream {
            body: answer.into_body(),
            rest: Vec::new(),
        })
    }

    /// A connection that speaks frames after its upgrade.
    pub async fn upgrade(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, Failure> {
        let answer = self.send(Method::POST, path, body, true).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::strange(answer.status()));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded.map(TokioIo::new).map_err(|e| self.lost(&e))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        upgrade: bool,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.lost(&e))?;
        // Ends with the request; what goes wrong is told to whoever waits for the answer.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "parheliond")
            .header(VERSION_HEADER, env!("CARGO_PKG_VERSION"));
        if let Some(token) = &self.token {
            request = request.header(TOKEN_HEADER, token);
        }
        if upgrade {
            request = request
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, PROTOCOL);
        }
        let text = serde_json::to_vec(body).map_err(Failure::strange)?;
        let text = match &text[..] {
            b"null" => Vec::new(),
            _ => text,
        };
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(text)))
            .map_err(|e| Failure::new(e.to_string(), "write the name in plain letters"))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|e| self.lost(&e))?;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            return Err(self.refused(answer).await);
        }
        Ok(answer)
    }

    async fn refused(&self, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        match answer.into_body().collect().await {
            Err(error) => self.lost(&error),
            Ok(text) => match serde_json::from_slice::<Problem>(&text.to_bytes()) {
                Ok(problem) => problem.into(),
                Err(_) => Failure::strange(status),
            },
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let socket = &self.socket;
        let told = format!("no daemon answers at {}", socket.display());
        let kind = error.kind();
        if matches!(
            kind,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            return Failure::new(
                told,
                "start it: systemctl start parheliond, or parheliond as root; --socket names another socket",
            );
        }
        if kind == io::ErrorKind::PermissionDenied {
            return Failure::new(
                format!("{} may not be opened by this user", socket.display()),
                "ask as its owner: sudo parctl",
            );
        }
        Failure::new(format!("{told}: {error}"), "give another --socket")
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        Failure::new(
            format!("the daemon has ended the connection: {error}"),
            "see its log (journalctl -u parheliond), and try again: instances run on meanwhile",
        )
    }
}

/// An answer that goes on.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    rest: Vec<u8>,
}

impl Stream {
    /// The next piece of it; None at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let Ok(frame) = frame else {
                return Err(Failure::new(
                    "the daemon has ended the connection",
                    "see its log, and ask again: instances run on meanwhile",
                ));
            };
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    /// The next line as JSON; None at its end.
    pub async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(Failure::strange);
            }
            let Some(piece) = self.piece().await? else {
                return Ok(None);
            };
            if self.rest.len() > LONGEST {
                return Err(Failure::strange("a line without an end"));
            }
            self.rest.extend_from_slice(&piece);
        }
    }
}

/// A part of a path or a query, with what has a meaning there written otherwise.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                quoted.push(byte.into());
            }
            byte => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_has_a_meaning_in_a_path_is_quoted() {
        assert_eq!(super::quoted("web:1.0:ab"), "web:1.0:ab");
        assert_eq!(super::quoted("a/b?c=d e"), "a%2Fb%3Fc%3Dd%20e");
    }
}
