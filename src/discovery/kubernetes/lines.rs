//! The lines of a watch: JSON objects, cut anywhere on their way.

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::reflector::WatchError;

/// Longest line. The servers' own limit for an object is 1.5 MiB before it
/// becomes JSON.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Reads a body line by line.
pub struct Lines {
    body: Body,
    buffer: BytesMut,
    /// No line ends before this.
    searched: usize,
}

impl Lines {
    /// The lines of a body.
    pub fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line with something in it; `None` at the end. What stands
    /// behind the last line end was cut, and is no line.
    ///
    /// # Errors
    ///
    /// [`WatchError::TooLarge`], and what broke the connection.
    pub async fn next(&mut self) -> Option<Result<BytesMut, WatchError>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Some(Ok(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                return Some(Err(WatchError::TooLarge { limit_bytes: MAX_LINE_BYTES }));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(error) => return Some(Err(WatchError::from(error))),
            }
        }
    }
}
