//! Connections between requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;

use super::h1::Connection;

/// An unused connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60 + 30);
/// Expired connections of any host are looked for this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Most unused connections to one host: a gateway or a host of many exporters
/// may be asked for many pages at once.
const IDLE_PER_HOST: usize = 64;

/// Where a connection leads: scheme, host and port, and the Unix socket if it
/// goes through one.
pub(super) type Destination = Arc<str>;

/// Open connections by destination.
#[derive(Default)]
pub(super) struct Pool(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    idle: HashMap<Destination, Vec<Idle>>,
    http2: HashMap<Destination, (SendRequest<Full<Bytes>>, u64)>,
    swept: Option<Instant>,
}

struct Idle {
    connection: Connection,
    absolute_form: bool,
    generation: u64,
    since: Instant,
}

impl Pool {
    /// An idle connection that was made with the same certificates.
    pub(super) fn take(&self, to: &str, generation: u64) -> Option<(Connection, bool)> {
        let mut inner = self.lock();
        let idle = inner.idle.get_mut(to)?;
        while let Some(mut found) = idle.pop() {
            if found.generation == generation
                && found.since.elapsed() < IDLE_TIMEOUT
                && found.connection.is_idle()
            {
                return Some((found.connection, found.absolute_form));
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read completely.
    pub(super) fn put(
        &self,
        to: Destination,
        mut connection: Connection,
        absolute_form: bool,
        generation: u64,
    ) {
        connection.rest();
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.swept.is_none_or(|t| now.duration_since(t) >= SWEEP_EVERY) {
            inner.swept = Some(now);
            inner.idle.retain(|_, idle| {
                idle.retain(|i| now.duration_since(i.since) < IDLE_TIMEOUT);
                !idle.is_empty()
            });
            inner.http2.retain(|_, (sender, _)| !sender.is_closed());
        }
        let idle = inner.idle.entry(to).or_default();
        if idle.len() < IDLE_PER_HOST {
            idle.push(Idle { connection, absolute_form, generation, since: now });
        }
    }

    /// The shared HTTP/2 connection.
    pub(super) fn http2(&self, to: &str, generation: u64) -> Option<SendRequest<Full<Bytes>>> {
        let mut inner = self.lock();
        let (sender, made) = inner.http2.get(to)?;
        if *made == generation && !sender.is_closed() {
            return Some(sender.clone());
        }
        inner.http2.remove(to);
        None
    }

    pub(super) fn put_http2(
        &self,
        to: Destination,
        sender: SendRequest<Full<Bytes>>,
        generation: u64,
    ) {
        self.lock().http2.insert(to, (sender, generation));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
