//! HTTP/1.1 over one connection: a request out, an answer in.
//!
//! Our own, as scraping is nothing but this: a body of known length is read
//! from the socket straight into the caller's buffer, an idle connection
//! holds no buffer, and there is no task per connection to wake. Header lines
//! are parsed by httparse, hyper's parser.

use std::cell::Cell;

use bytes::BufMut as _;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::ClientError;

/// Largest head of an answer, in bytes (Go's client: 10 MiB; no exporter needs that).
const HEAD_LIMIT_BYTES: usize = 256 << 10;
/// Most header lines of an answer.
const HEADER_LIMIT: usize = 100;
/// Bytes asked from the socket for a head: what comes behind it is copied.
const HEAD_READ_BYTES: usize = 4 << 10;
/// Bytes asked from the socket at once where the length is not known.
const READ_BYTES: usize = 32 << 10;
/// Longest line that announces a chunk or is a trailer.
const CHUNK_LINE_LIMIT_BYTES: usize = 16 << 10;

thread_local! {
    /// Idle connections hold no buffer, and few are in use at once: the one
    /// that rests leaves its buffer to the next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a connection runs over.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection. Between exchanges nothing is buffered.
pub(super) struct Connection {
    io: Box<dyn Io>,
    /// Read ahead; `position..` is not yet used.
    buffer: Vec<u8>,
    position: usize,
    /// The other side sent more than its answer.
    is_spoiled: bool,
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// Whether the connection may be used again after the body.
    pub(super) keep_alive: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// In a chunk with so many bytes left, its line end not counted.
    Chunk(u64),
    /// A line with the size of the next chunk is next; it follows the line
    /// end of a chunk's data if `after_data`.
    ChunkSize { after_data: bool },
    /// Trailer lines are next.
    Trailers,
    /// Until the connection ends.
    UntilClose,
    /// The body was read.
    Done,
}

impl Connection {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self { io, buffer: Vec::new(), position: 0, is_spoiled: false }
    }

    /// Whether the other side has neither closed nor sent anything since the
    /// last exchange. Does not wait.
    pub(super) fn is_idle(&mut self) -> bool {
        !self.is_spoiled && self.io.read(&mut [0]).now_or_never().is_none()
    }

    /// Gives buffers back before the connection waits for its next use.
    pub(super) fn rest(&mut self) {
        self.is_spoiled |= self.position != self.buffer.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() <= READ_BYTES {
            buffer.clear();
            SPARE.set(buffer);
        }
        self.position = 0;
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] of kind `ConnectionAborted` if the connection
    /// ended before the first byte of an answer: a server may close an idle
    /// connection at any time, so the request may be sent on another one.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        no_body: bool,
    ) -> Result<Head, ClientError> {
        if let Err(e) = self.io.write_all(request).await {
            return Err(ClientError::Io(std::io::Error::new(
                std::io::ErrorKind::ConnectionAborted,
                e,
            )));
        }
        self.io.flush().await?;
        loop {
            if let Some(head) = self.parse_head(no_body)? {
                if head.status.is_informational() {
                    continue;
                }
                return Ok(head);
            }
            if self.buffer.len() - self.position >= HEAD_LIMIT_BYTES {
                return Err(ClientError::Protocol("header is too large"));
            }
            let first = self.buffer.is_empty();
            match self.fill(HEAD_READ_BYTES).await {
                Ok(0) if first => return Err(aborted()),
                Ok(0) => return Err(unexpected_end()),
                Ok(_) => {}
                Err(_) if first => return Err(aborted()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn fill(&mut self, bytes: usize) -> std::io::Result<usize> {
        if self.position == self.buffer.len() {
            self.buffer.clear();
            self.position = 0;
        } else if self.position > 0 {
            self.buffer.drain(..self.position);
            self.position = 0;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
        }
        self.buffer.reserve(bytes);
        self.io.read_buf(&mut self.buffer).await
    }

    /// `None` if the head is not complete yet.
    fn parse_head(&mut self, no_body: bool) -> Result<Option<Head>, ClientError> {
        let mut lines = [httparse::EMPTY_HEADER; HEADER_LIMIT];
        let mut parsed = httparse::Response::new(&mut lines);
        let bytes = &self.buffer[self.position..];
        let used = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(ClientError::Protocol("too many header lines"));
            }
            Err(_) => return Err(ClientError::Protocol("not an HTTP/1 answer")),
        };
        let status = StatusCode::from_u16(parsed.code.unwrap_or(0))
            .map_err(|_| ClientError::Protocol("status code"))?;
        let mut headers = HeaderMap::with_capacity(parsed.headers.len());
        for line in parsed.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes())
                .map_err(|_| ClientError::Protocol("header name"))?;
            let value = HeaderValue::from_bytes(line.value)
                .map_err(|_| ClientError::Protocol("header value"))?;
            headers.append(name, value);
        }
        let http11 = parsed.version == Some(1);
        self.position += used;
        let framing = framing(&headers, status, no_body)?;
        let connection = |word: &str| has_token(&headers, &header::CONNECTION, word);
        let keep_alive = framing != Framing::UntilClose
            && if http11 { !connection("close") } else { connection("keep-alive") };
        Ok(Some(Head { status, headers, framing, keep_alive }))
    }

    /// Appends some bytes of the body to `out`; `false` at its end.
    pub(super) async fn read_body(
        &mut self,
        framing: &mut Framing,
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientError> {
        loop {
            match *framing {
                Framing::Done => return Ok(false),
                Framing::Length(0) => *framing = Framing::Done,
                Framing::Length(left) => {
                    let n = self.read_data(left, out).await?;
                    if n > left {
                        self.is_spoiled = true;
                        out.pop();
                    }
                    *framing = Framing::Length(left - n.min(left));
                    return Ok(true);
                }
                Framing::UntilClose => {
                    if let Err(e) = self.read_data(u64::MAX, out).await {
                        *framing = Framing::Done;
                        return match e {
                            ClientError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                                Ok(false)
                            }
                            e => Err(e),
                        };
                    }
                    return Ok(true);
                }
                Framing::Chunk(0) => *framing = Framing::ChunkSize { after_data: true },
                Framing::Chunk(left) => {
                    // Through the buffer: chunks are small, and a read each would cost a call each.
                    if self.position == self.buffer.len() && self.fill(READ_BYTES).await? == 0 {
                        return Err(unexpected_end());
                    }
                    let n = self.take_buffered(left, out);
                    *framing = Framing::Chunk(left - n);
                    return Ok(true);
                }
                Framing::ChunkSize { after_data } => {
                    let line = self.line().await?;
                    if after_data && line.is_empty() {
                        *framing = Framing::ChunkSize { after_data: false };
                        continue;
                    }
                    if after_data {
                        return Err(ClientError::Protocol("chunk is longer than announced"));
                    }
                    *framing = match chunk_size(&line)? {
                        0 => Framing::Trailers,
                        size => Framing::Chunk(size),
                    };
                }
                Framing::Trailers => {
                    if self.line().await?.is_empty() {
                        *framing = Framing::Done;
                    }
                }
            }
        }
    }

    fn take_buffered(&mut self, most: u64, out: &mut Vec<u8>) -> u64 {
        let buffered = &self.buffer[self.position..];
        let n = buffered.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        out.extend_from_slice(&buffered[..n]);
        self.position += n;
        n as u64
    }

    /// Appends at most `most` bytes to `out`, or one more: if the other side
    /// sent no more than it should, the socket is then known to be empty, and
    /// looking whether it is idle costs no call.
    async fn read_data(&mut self, most: u64, out: &mut Vec<u8>) -> Result<u64, ClientError> {
        if self.position < self.buffer.len() {
            return Ok(self.take_buffered(most, out));
        }
        let want = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
        if out.capacity() == out.len() {
            out.reserve(want.min(8 * READ_BYTES));
        }
        let n = self.io.read_buf(&mut (&mut *out).limit(want)).await?;
        if n == 0 { Err(unexpected_end()) } else { Ok(n as u64) }
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            let rest = &self.buffer[self.position..];
            if let Some(end) = memchr::memchr(b'\n', rest) {
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec();
                self.position += end + 1;
                return Ok(line);
            }
            if rest.len() > CHUNK_LINE_LIMIT_BYTES {
                return Err(ClientError::Protocol("chunk header is too long"));
            }
            if self.fill(READ_BYTES).await? == 0 {
                return Err(unexpected_end());
            }
        }
    }

    /// The bare connection, for TLS inside a tunnel.
    pub(super) fn into_io(self) -> Box<dyn Io> {
        self.io
    }
}

fn framing(headers: &HeaderMap, status: StatusCode, no_body: bool) -> Result<Framing, ClientError> {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if no_body || bodiless || status.is_informational() {
        return Ok(Framing::Done);
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if has_token(headers, &header::TRANSFER_ENCODING, "chunked") {
            return Ok(Framing::ChunkSize { after_data: false });
        }
        return Err(ClientError::Protocol("unsupported transfer encoding"));
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(Framing::UntilClose) };
    if lengths.any(|other| other != first) {
        return Err(ClientError::Protocol("several content lengths"));
    }
    let digits = first.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ClientError::Protocol("bad Content-Length"));
    }
    first
        .to_str()
        .ok()
        .and_then(|s| s.parse().ok())
        .map(Framing::Length)
        .ok_or(ClientError::Protocol("bad Content-Length"))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(word))
}

fn chunk_size(line: &[u8]) -> Result<u64, ClientError> {
    let digits = line.split(|b| *b == b';').next().unwrap_or(line).trim_ascii();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(ClientError::Protocol("chunk size"));
    }
    let text = std::str::from_utf8(digits).map_err(|_| ClientError::Protocol("chunk size"))?;
    u64::from_str_radix(text, 16).map_err(|_| ClientError::Protocol("chunk size"))
}

fn aborted() -> ClientError {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "EOF").into()
}

fn unexpected_end() -> ClientError {
    std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()
}
