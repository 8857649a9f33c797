//! What has the API server? One list, then a watch from its version on, for
//! ever.
//!
//! [`Reflector::run`] speaks the protocol and hands [`Change`]s on. A list is
//! handed on as a whole or not at all; whatever fails is asked again after a
//! pause, and nothing is withdrawn meanwhile. Versions are opaque texts.
//!
//! kube-rs' own watcher is not used: it asks again for a version that the
//! server refused with status 410, repeats a watch that ends at once without
//! a pause, knows no `Retry-After`, and keeps whole objects until they are
//! trimmed. Connecting, credentials and TLS are kube-rs' and our client's.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::core::Status;
use kube::core::watch::Bookmark;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::backoff::{Backoff, Clock, random};
use super::lines::Lines;
use super::object::{Meta, Object};
use super::scope::Scope;

/// Objects per page of a list.
const PAGE_SIZE: &str = "500";

/// Longest answer to a list. A server that lists from its cache may ignore
/// the page size.
const MAX_LIST_BYTES: usize = 512 << 20;

/// Most objects of one scope.
const MAX_OBJECTS: usize = 1_000_000;

/// How long one watch lasts: this and up to as much again, so that many
/// watches do not end together.
const WATCH_S: u32 = 300;

/// The longest silence of a watch before it is asked for again: its connection
/// may be dead, and servers send a bookmark about every minute.
const WATCH_SILENCE: Duration = Duration::from_secs(150);

/// The longest silence within a streamed list.
const STREAM_SILENCE: Duration = Duration::from_secs(10);

/// A watch that ends sooner without a word has failed.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The longest wait for the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The bookmark with this annotation ends a streamed list.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Why a list or watch failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The server cannot be reached, or the connection broke.
    #[error("{0}")]
    Transport(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("no answer within {} s", HEAD_TIMEOUT.as_secs())]
    Silence,
    /// The server refused.
    #[error("status {}: {}", status.code, status.message)]
    Refused {
        /// What it said.
        status: Box<Status>,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// An answer is not what it should be.
    #[error("the answer cannot be read: {0}")]
    Decode(#[source] serde_json::Error),
    /// An answer or line is too large.
    #[error("an answer has more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// There are too many objects.
    #[error("more than {MAX_OBJECTS} objects")]
    TooMany,
    /// The watch ended before anything came.
    #[error("a watch ended at once")]
    EndedAtOnce,
    /// A streamed list has no end.
    #[error("the streamed list has no end")]
    NoInitialEnd,
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(*status),
            other => Self::Transport(Box::new(other)),
        }
    }
}

impl WatchError {
    fn of_status(status: Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        let retry_after = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
        Self::Refused { status: Box::new(status), retry_after }
    }

    const fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The version that was asked for is too old.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410 || ["Expired", "Gone"].contains(&&*s.reason))
    }

    /// The version that was asked for is newer than what this server has.
    fn is_too_new(&self) -> bool {
        let named = |s: &Status| {
            let causes = s.details.iter().flat_map(|d| &d.causes);
            causes.into_iter().any(|c| c.reason == "ResourceVersionTooLarge")
                || s.message.contains("Too large resource version")
        };
        self.status().is_some_and(named)
    }

    /// The server answers, and says no: a missing right, a missing kind.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|s| (400..500).contains(&s.code) && ![410, 429].contains(&s.code))
    }

    /// The server does not know streamed lists.
    fn is_streaming_refused(&self) -> bool {
        matches!(self, Self::NoInitialEnd)
            || self.status().is_some_and(|s| [400, 415, 422].contains(&s.code))
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What is new.
#[derive(Debug)]
pub enum Change<T> {
    /// These are all objects.
    Replace(Vec<T>),
    /// This object is new or differs.
    Apply(T),
    /// This object is gone.
    Remove(Meta),
}

/// Takes what a reflector finds.
pub trait Sink<T> {
    /// Something is new.
    fn change(&mut self, change: Change<T>);
    /// The server answered as it should.
    fn answered(&mut self);
    /// It did not; it will be asked again.
    fn failed(&mut self, error: &WatchError);
}

/// An API server, and what was learnt about it.
pub struct Server {
    client: kube::Client,
    clock: Clock,
    /// The longest silence within a streamed list: servers that do not know
    /// such lists never end them.
    stream_silence: Duration,
    watch_silence: Duration,
    knows_no_streams: AtomicBool,
}

impl Server {
    /// A server that is reached by this client.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self {
            client,
            clock: Clock::real(),
            stream_silence: STREAM_SILENCE,
            watch_silence: WATCH_SILENCE,
            knows_no_streams: AtomicBool::new(false),
        }
    }

    /// The same with another clock, and other patience with streamed lists and
    /// watches.
    #[must_use]
    pub fn with_clock(
        self,
        clock: Clock,
        stream_silence: Duration,
        watch_silence: Duration,
    ) -> Self {
        Self { clock, stream_silence, watch_silence, ..self }
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Sends a GET; any other status than success is an error.
    async fn get(&self, uri: &str) -> Result<Body, WatchError> {
        let request = http::Request::get(uri)
            // Streams are not worth compressing, and must not be buffered.
            .header(http::header::ACCEPT_ENCODING, "identity")
            .header(http::header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|e| WatchError::from(kube::Error::HttpError(e)))?;
        let answer = timeout(HEAD_TIMEOUT, self.client.send(request)).await;
        let (head, body) = answer.map_err(|_| WatchError::Silence)??.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let text = read(body, 1 << 20).await.unwrap_or_default();
        let reason = head.status.canonical_reason().unwrap_or("");
        let mut status = serde_json::from_slice::<Status>(&text)
            .unwrap_or_else(|_| Status::failure(reason, reason));
        status.code = head.status.as_u16();
        let asked = head.headers.get(http::header::RETRY_AFTER);
        let asked = asked.and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        match WatchError::of_status(status) {
            WatchError::Refused { status, retry_after } => {
                Err(WatchError::Refused { status, retry_after: asked.or(retry_after) })
            }
            other => Err(other),
        }
    }
}

async fn read(body: Body, limit_bytes: usize) -> Result<bytes::Bytes, WatchError> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(match error.downcast::<kube::Error>() {
            Ok(error) => WatchError::Transport(error),
            Err(_) => WatchError::TooLarge { limit_bytes },
        }),
    }
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// One line of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What the next list may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Nothing yet: what the server has at hand is good enough.
    Nothing,
    /// This version; nothing older will do.
    Version(String),
    /// The version was refused: the newest.
    Lost,
}

/// Follows one scope.
pub struct Reflector<'a> {
    server: &'a Server,
    scope: &'a Scope,
    known: Known,
    is_listed: bool,
    /// Pages are asked for; not after one expired while it was waited for.
    in_pages: bool,
}

impl<'a> Reflector<'a> {
    /// A reflector that knows nothing.
    #[must_use]
    pub const fn new(server: &'a Server, scope: &'a Scope) -> Self {
        Self { server, scope, known: Known::Nothing, is_listed: false, in_pages: true }
    }

    /// Lists and watches for ever.
    pub async fn run<T: Object>(mut self, sink: &mut impl Sink<T>) {
        let mut backoff = Backoff::default();
        loop {
            let outcome =
                if self.is_listed { self.watch(sink).await } else { self.list(sink).await };
            let Err(error) = outcome else { continue };
            sink.failed(&error);
            let clock = &self.server.clock;
            let pause = backoff.pause((clock.now)(), error.retry_after());
            (clock.sleep)(pause).await;
        }
    }

    async fn list<T: Object>(&mut self, sink: &mut impl Sink<T>) -> Result<(), WatchError> {
        if !self.server.knows_no_streams.load(Ordering::Relaxed) {
            match self.stream(sink).await {
                Err(error) if error.is_streaming_refused() => {
                    self.server.knows_no_streams.store(true, Ordering::Relaxed);
                }
                outcome => {
                    self.note_version(outcome.as_ref().err());
                    return outcome;
                }
            }
        }
        let outcome = self.pages(sink).await;
        self.note_version(outcome.as_ref().err());
        outcome
    }

    /// A version that the server refuses is not asked for again.
    fn note_version(&mut self, error: Option<&WatchError>) {
        if !self.is_listed && error.is_some_and(|e| e.is_expired() || e.is_too_new()) {
            self.known = Known::Lost;
        }
    }

    /// Lists page by page.
    async fn pages<T: Object>(&mut self, sink: &mut impl Sink<T>) -> Result<(), WatchError> {
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        let version = loop {
            let mut parameters = Vec::new();
            if self.in_pages {
                parameters.push(("limit", PAGE_SIZE));
            }
            // A page after the first is of the list's own version.
            let from = match (&next, &self.known) {
                (Some(_), _) | (None, Known::Lost) => None,
                (None, Known::Nothing) => Some("0"),
                (None, Known::Version(version)) => Some(version.as_str()),
            };
            if let Some(token) = &next {
                parameters.push(("continue", token));
            }
            if let Some(from) = from {
                let at_least =
                    [("resourceVersion", from), ("resourceVersionMatch", "NotOlderThan")];
                parameters.extend(at_least);
            }
            let answer = self.server.get(&self.scope.uri(&parameters)).await;
            if next.is_some() && answer.as_ref().is_err_and(WatchError::is_expired) {
                self.in_pages = false;
            }
            let text = read(answer?, MAX_LIST_BYTES).await?;
            let page: Page<'_> = serde_json::from_slice(&text).map_err(WatchError::Decode)?;
            let found = page.items.iter().flatten().filter_map(|item| self.understood(item));
            objects.extend(found.map(|mut object: T| {
                object.take_version();
                object
            }));
            if objects.len() > MAX_OBJECTS {
                return Err(WatchError::TooMany);
            }
            match page.metadata.next.filter(|token| !token.is_empty()) {
                Some(token) => next = Some(token),
                None => break page.metadata.resource_version,
            }
        };
        self.listed(version);
        sink.answered();
        sink.change(Change::Replace(objects));
        Ok(())
    }

    fn listed(&mut self, version: String) {
        self.known = Known::Version(version);
        self.is_listed = true;
        self.in_pages = true;
    }

    /// What is kept of an object; one that is not understood is left out.
    fn understood<T: Object>(&self, item: &RawValue) -> Option<T> {
        serde_json::from_str::<T>(item.get())
            .inspect_err(|error| {
                let what = self.scope.resource.kind;
                tracing::warn!(%error, what, "Kubernetes object not understood");
            })
            .ok()
    }

    /// Lists by a watch that begins with all objects, and watches on.
    async fn stream<T: Object>(&mut self, sink: &mut impl Sink<T>) -> Result<(), WatchError> {
        let mut parameters =
            vec![("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")];
        let known = self.known.clone();
        if let Known::Version(version) = &known {
            parameters.push(("resourceVersion", version));
        }
        self.events(parameters, Some(Vec::new()), sink).await
    }

    async fn watch<T: Object>(&mut self, sink: &mut impl Sink<T>) -> Result<(), WatchError> {
        let version = match &self.known {
            Known::Version(version) => version.clone(),
            Known::Nothing | Known::Lost => String::new(),
        };
        let outcome = self.events(vec![("resourceVersion", &version)], None, sink).await;
        if outcome.as_ref().is_err_and(|e| e.is_expired() || e.is_too_new()) {
            // The next list asks for nothing older than what was seen.
            self.is_listed = false;
        }
        outcome
    }

    /// Reads one watch to its end. `initial` gathers a streamed list.
    async fn events<T: Object>(
        &mut self,
        first: Vec<(&str, &str)>,
        mut initial: Option<Vec<T>>,
        sink: &mut impl Sink<T>,
    ) -> Result<(), WatchError> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "300 to 600")]
        let seconds = WATCH_S + (f64::from(WATCH_S) * random()) as u32;
        let lasts = seconds.to_string();
        let mut parameters = first;
        parameters.extend([
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", &lasts),
        ]);
        let started = Instant::now();
        let body = self.server.get(&self.scope.uri(&parameters)).await?;
        if initial.is_none() {
            sink.answered();
        }
        let mut lines = Lines::new(body);
        let mut was_silent = true;
        loop {
            let patience = match &initial {
                Some(_) => self.server.stream_silence,
                None => self.server.watch_silence,
            };
            let line = match timeout(patience, lines.next()).await {
                Ok(Some(line)) => line?,
                Err(_) if initial.is_some() => return Err(WatchError::NoInitialEnd),
                Err(_) => return Ok(()),
                Ok(None) => break,
            };
            was_silent = false;
            match serde_json::from_slice::<Event<'_>>(&line) {
                Ok(event) => self.event(&event, &mut initial, sink)?,
                // Some servers write a bare Status instead of an event.
                Err(error) => match serde_json::from_slice::<Status>(&line) {
                    Ok(status) if status.code != 0 => return Err(WatchError::of_status(status)),
                    _ => return Err(WatchError::Decode(error)),
                },
            }
        }
        if initial.is_some() || (was_silent && started.elapsed() < AT_ONCE) {
            return Err(WatchError::EndedAtOnce);
        }
        Ok(())
    }

    fn event<T: Object>(
        &mut self,
        event: &Event<'_>,
        initial: &mut Option<Vec<T>>,
        sink: &mut impl Sink<T>,
    ) -> Result<(), WatchError> {
        let is_gone = match &*event.kind {
            "ADDED" | "MODIFIED" => false,
            "DELETED" => true,
            "BOOKMARK" => return self.bookmark(event.object, initial, sink),
            "ERROR" => {
                let status = serde_json::from_str(event.object.get());
                return Err(status.map_or_else(WatchError::Decode, WatchError::of_status));
            }
            other => {
                tracing::debug!(kind = other, "Kubernetes event not known");
                return Ok(());
            }
        };
        let Some(mut object) = self.understood::<T>(event.object) else { return Ok(()) };
        let version = object.take_version();
        if let Some(objects) = initial {
            if objects.len() >= MAX_OBJECTS {
                return Err(WatchError::TooMany);
            }
            if !is_gone {
                objects.push(object);
            }
            return Ok(());
        }
        if !version.is_empty() {
            self.known = Known::Version(version);
        }
        let change =
            if is_gone { Change::Remove(object.meta().clone()) } else { Change::Apply(object) };
        sink.change(change);
        Ok(())
    }
    /// A new version without a change, or the end of a streamed list.
    fn bookmark<T: Object>(
        &mut self,
        object: &RawValue,
        initial: &mut Option<Vec<T>>,
        sink: &mut impl Sink<T>,
    ) -> Result<(), WatchError> {
        let bookmark: Bookmark = serde_json::from_str(object.get()).map_err(WatchError::Decode)?;
        let version = bookmark.metadata.resource_version;
        match initial.take() {
            None if !version.is_empty() => self.known = Known::Version(version),
            None => {}
            Some(objects) if bookmark.metadata.annotations.contains_key(INITIAL_END) => {
                self.listed(version);
                sink.answered();
                sink.change(Change::Replace(objects));
            }
            unfinished => *initial = unfinished,
        }
        Ok(())
    }
}
