//! What the HTTP library refuses by itself, because it can read no request, in the shape of all other errors.
//!
//! Such an answer comes from below every layer: a status, no body, none of the headers. Nothing tells the layers of
//! it, so it is seen where it leaves, and replaced. Contract: `production.md` §6 (every response), `auth-users.md` §1.2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use crate::security_headers::SECURITY_HEADERS;

/// How an answer of the library itself goes on after its first line (to HTTP/1.0 without the connection's end). Ours
/// have a request id and other headers there.
const BARE: [&[u8]; 2] = [b"connection: close\r\ncontent-length: 0\r\n", b"content-length: 0\r\ndate: "];

/// A connection that replaces the library's own refusals.
pub(crate) struct Refusals<S> {
    stream: S,
    /// What is written instead, as far as it is not yet.
    instead: Vec<u8>,
    /// Bytes that it stands for.
    claimed: usize,
}

impl<S> Refusals<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, instead: Vec::new(), claimed: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusals<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Refusals<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.claimed == 0 {
            let Some(instead) = in_our_shape(buf) else {
                return Pin::new(&mut self.stream).poll_write(cx, buf);
            };
            (self.instead, self.claimed) = (instead, buf.len());
        }
        while !self.instead.is_empty() {
            let this = &mut *self;
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.instead.drain(..written);
        }
        Poll::Ready(Ok(std::mem::take(&mut self.claimed)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs.iter().find(|buf| !buf.is_empty()) {
            Some(first) if self.claimed > 0 || is_bare(first) => self.poll_write(cx, first),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether the library begins an answer of its own here. One comparison for everything that is no error.
fn is_bare(buf: &[u8]) -> bool {
    let is_refusal = buf.len() > 12 && buf.starts_with(b"HTTP/1.") && buf[8..10] == *b" 4";
    is_refusal && rest_of(buf).is_some_and(|rest| BARE.iter().any(|bare| rest.starts_with(bare)))
}

/// What comes after the first line.
fn rest_of(buf: &[u8]) -> Option<&[u8]> {
    buf.windows(2).position(|two| two == b"\r\n").map(|end| &buf[end + 2..])
}

fn in_our_shape(buf: &[u8]) -> Option<Vec<u8>> {
    if !is_bare(buf) {
        return None;
    }
    let head = std::str::from_utf8(buf).ok()?;
    let (first, rest) = head.split_once("\r\n")?;
    let request_id = Uuid::new_v4();
    let body = format!(r#"{{"detail":"Bad request","code":"VALIDATION_ERROR","request_id":"{request_id}"}}"#);
    let mut answer = format!(
        "{first}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\nvary: origin\r\n\
         x-request-id: {request_id}\r\n",
        body.len()
    );
    let date = rest.lines().find(|line| line.starts_with("date: "));
    let secured = SECURITY_HEADERS.into_iter().map(|(name, value)| format!("{name}: {value}"));
    for line in date.map(str::to_owned).into_iter().chain(secured) {
        answer.push_str(&line);
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    Some(answer.into_bytes())
}
