//! An API server of Kubernetes for tests, in memory or on loopback: lists in
//! pages, watches with bookmarks, streamed lists, versions that expire, and
//! everything that goes wrong with a real one.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The operator's group.
pub const OPERATOR: &str = "/apis/monitoring.coreos.com/";

/// How a request for a streamed list is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// With 422, as servers do that know of them and have them off.
    #[default]
    Refused,
    /// With all objects and the bookmark that ends them.
    Served,
    /// As an ordinary watch, as servers do that know nothing of them.
    Ignored,
}

/// What happens to the next requests.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answered with this status.
    Status(u16),
    /// With this status and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Answered after this time.
    Delay(Duration),
    /// The connection breaks after the head and these bytes.
    Cut(&'static str),
    /// Answered with 200 and these bytes.
    Body(Bytes),
}

/// Faults for paths that contain a text, so many times.
#[derive(Debug, Clone)]
struct Rule {
    part: String,
    fault: Fault,
    times: usize,
}

/// Where an object is: plural, namespace, name.
type Place = (String, String, String);

/// A change as watches tell it.
#[derive(Clone)]
struct Change {
    version: u64,
    plural: String,
    namespace: String,
    old_labels: Option<BTreeMap<String, String>>,
    object: Value,
    is_delete: bool,
}

enum Said {
    Bytes(Bytes),
    Cut,
}

struct Watcher {
    plural: String,
    namespace: Option<String>,
    selector: Selector,
    sender: mpsc::UnboundedSender<Said>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Versions below this are too old.
    oldest: u64,
    objects: BTreeMap<Place, Value>,
    log: Vec<Change>,
    watchers: Vec<Watcher>,
    rules: Vec<Rule>,
    pages: HashMap<String, (u64, Vec<Value>)>,
    requests: Vec<String>,
    streams: Streams,
    /// The only bearer token that is let in.
    token: Option<String>,
    /// Answers to an old version with status 410 instead of an event.
    gone_as_status: bool,
    /// Lines are sent in pieces of so many bytes.
    piece_bytes: usize,
    /// Plurals of the operator's kinds that are installed.
    kinds: BTreeSet<&'static str>,
}

/// The server.
pub struct FakeApi(Mutex<State>);

/// Equality and set terms of a label selector.
#[derive(Default, Clone)]
struct Selector(Vec<String>);

impl Selector {
    fn parse(text: Option<&String>) -> Self {
        let text = text.map(String::as_str).unwrap_or_default();
        Self(text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect())
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(term),
        })
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default()
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

fn bookmark(version: u64, ends: bool) -> Bytes {
    let notes = if ends { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": notes});
    line("BOOKMARK", &json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata}))
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code})
}

impl Change {
    /// The event for a watcher, if it is meant.
    fn event(&self, watcher: &Watcher) -> Option<Bytes> {
        if self.plural != watcher.plural
            || watcher.namespace.as_ref().is_some_and(|n| *n != self.namespace)
        {
            return None;
        }
        let was = self.old_labels.as_ref().is_some_and(|l| watcher.selector.matches(l));
        let is = !self.is_delete && watcher.selector.matches(&labels(&self.object));
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(line("ADDED", &self.object)),
            (true, true) => Some(line("MODIFIED", &self.object)),
            (true, false) => Some(line("DELETED", &self.object)),
        }
    }
}

impl FakeApi {
    /// A server without objects; the operator's kinds are installed.
    pub fn new() -> Arc<Self> {
        let kinds =
            ["servicemonitors", "podmonitors", "probes", "scrapeconfigs", "prometheusrules"];
        let state = State { version: 100, kinds: kinds.into(), ..State::default() };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the lock")
    }

    /// Stores an object and tells all watches.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let meta = &mut object["metadata"];
        meta["name"] = json!(name);
        if !namespace.is_empty() {
            meta["namespace"] = json!(namespace);
        }
        meta["resourceVersion"] = json!(state.version.to_string());
        let place = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let old = state.objects.insert(place, object.clone());
        state.tell(plural, namespace, old.as_ref(), object, false);
    }

    /// Deletes an object and tells all watches.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let place = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = state.objects.remove(&place).expect("it is there");
        let old = object.clone();
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(plural, namespace, Some(&old), object, true);
    }

    /// Loads the items of a List.
    pub fn load(&self, items: &Value) {
        for item in items.as_array().into_iter().flatten() {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let plural = plural_of(item["kind"].as_str().unwrap_or_default());
            let meta = &item["metadata"];
            self.put(&plural, &text(&meta["namespace"]), &text(&meta["name"]), item.clone());
        }
    }

    /// Sends a bookmark to all watches.
    pub fn send_bookmarks(&self) {
        let mut state = self.state();
        state.version += 1;
        let bytes = bookmark(state.version, false);
        state.watchers.retain(|w| w.sender.send(Said::Bytes(bytes.clone())).is_ok());
    }

    /// Ends all watches, cleanly or by breaking their connections.
    pub fn end_watches(&self, cleanly: bool) {
        for watcher in std::mem::take(&mut self.state().watchers) {
            if !cleanly {
                let _ = watcher.sender.send(Said::Cut);
            }
        }
    }

    /// All versions so far are too old from now on.
    pub fn expire(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.log.clear();
        state.pages.clear();
    }

    /// Tells all watches that their version is too old, and ends them.
    pub fn expire_watches(&self) {
        self.expire();
        let bytes = line("ERROR", &failure(410, "Expired"));
        for watcher in std::mem::take(&mut self.state().watchers) {
            let _ = watcher.sender.send(Said::Bytes(bytes.clone()));
        }
    }

    /// Requests whose path and query contain `part` meet a fault.
    pub fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.state().rules.push(Rule { part: part.to_owned(), fault, times });
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state().rules.clear();
    }

    pub fn set_streams(&self, streams: Streams) {
        self.state().streams = streams;
    }

    pub fn set_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    pub fn set_gone_as_status(&self) {
        self.state().gone_as_status = true;
    }

    pub fn set_piece_bytes(&self, bytes: usize) {
        self.state().piece_bytes = bytes;
    }

    pub fn uninstall(&self, plural: &'static str) {
        self.state().kinds.remove(plural);
    }

    pub fn install(&self, plural: &'static str) {
        self.state().kinds.insert(plural);
    }

    /// Path and query of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// How many requests contain all of these texts.
    pub fn count(&self, parts: &[&str]) -> usize {
        let state = self.state();
        state.requests.iter().filter(|r| parts.iter().all(|p| r.contains(p))).count()
    }

    /// How many watches are open now.
    pub fn open_watches(&self) -> usize {
        self.state().watchers.iter().filter(|w| !w.sender.is_closed()).count()
    }

    /// Answers one request.
    pub async fn answer(
        self: Arc<Self>,
        method: &str,
        path_and_query: &str,
        authorization: Option<&str>,
    ) -> Response<Body> {
        let fault = {
            let mut state = self.state();
            state.requests.push(path_and_query.to_owned());
            let wanted = state.token.as_ref().map(|t| format!("Bearer {t}"));
            if wanted.is_some() && wanted.as_deref() != authorization {
                return status(401, None);
            }
            state.fault(path_and_query)
        };
        match fault {
            Some(Fault::Status(code)) => return status(code, None),
            Some(Fault::RetryAfter(code, seconds)) => return status(code, Some(seconds)),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Body(bytes)) => return answer(200, Body::from(bytes)),
            Some(Fault::Cut(text)) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                let _ = sender.send(Said::Bytes(Bytes::from_static(text.as_bytes())));
                let _ = sender.send(Said::Cut);
                return answer(200, stream(receiver, 0));
            }
            None => {}
        }
        if method != "GET" {
            return status(405, None);
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        self.state().look_up(path, &query).unwrap_or_else(|| status(404, None))
    }
}

impl State {
    fn tell(
        &mut self,
        plural: &str,
        namespace: &str,
        old: Option<&Value>,
        object: Value,
        is_delete: bool,
    ) {
        let change = Change {
            version: self.version,
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            old_labels: old.map(labels),
            object,
            is_delete,
        };
        self.watchers.retain(|watcher| match change.event(watcher) {
            Some(bytes) => watcher.sender.send(Said::Bytes(bytes)).is_ok(),
            None => true,
        });
        self.log.push(change);
    }

    fn fault(&mut self, request: &str) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|r| r.times > 0 && request.contains(&r.part))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    fn look_up(&mut self, path: &str, query: &HashMap<String, String>) -> Option<Response<Body>> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match segments.as_slice() {
            ["api", _, rest @ ..] => rest,
            ["apis", "monitoring.coreos.com", version] => return Some(self.kinds(version)),
            ["apis", _, _, rest @ ..] => rest,
            _ => return None,
        };
        let (namespace, plural) = match rest {
            [plural] => (None, *plural),
            ["namespaces", namespace, plural] => (Some((*namespace).to_owned()), *plural),
            ["namespaces", namespace, plural, name] => {
                let place = ((*plural).to_owned(), (*namespace).to_owned(), (*name).to_owned());
                let found = self.objects.get(&place)?;
                return Some(answer(200, Body::from(found.to_string())));
            }
            _ => return None,
        };
        if path.starts_with(OPERATOR) && !self.kinds.contains(plural) {
            return None;
        }
        let selector = Selector::parse(query.get("labelSelector"));
        Some(if query.contains_key("watch") {
            self.watch(plural, namespace, selector, query)
        } else {
            self.list(plural, namespace.as_deref(), &selector, query)
        })
    }

    /// The kinds of the operator that are installed.
    fn kinds(&self, version: &str) -> Response<Body> {
        let resources: Vec<Value> = self
            .kinds
            .iter()
            .filter(|plural| (**plural == "scrapeconfigs") == (version == "v1alpha1"))
            .map(|plural| {
                json!({"name": plural, "singularName": "", "namespaced": true,
                    "kind": plural, "verbs": ["get", "list", "watch"]})
            })
            .collect();
        let group = format!("monitoring.coreos.com/{version}");
        let list =
            json!({"kind": "APIResourceList", "groupVersion": group, "resources": resources});
        answer(200, Body::from(list.to_string()))
    }

    fn items(&self, plural: &str, namespace: Option<&str>, selector: &Selector) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((p, n, _), object)| {
                p == plural
                    && namespace.is_none_or(|wanted| wanted == n)
                    && selector.matches(&labels(object))
            })
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn list(
        &mut self,
        plural: &str,
        namespace: Option<&str>,
        selector: &Selector,
        query: &HashMap<String, String>,
    ) -> Response<Body> {
        let (version, mut items) = match query.get("continue") {
            None => (self.version, self.items(plural, namespace, selector)),
            Some(token) => match self.pages.remove(token) {
                Some(page) => page,
                None => return status(410, None),
            },
        };
        let limit = query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if items.len() > limit {
            let rest = items.split_off(limit);
            let token = format!("{plural}-{}-{}", self.requests.len(), rest.len());
            metadata["continue"] = json!(token);
            self.pages.insert(token, (version, rest));
        }
        let list = json!({"kind": "List", "metadata": metadata, "items": items});
        answer(200, Body::from(list.to_string()))
    }

    fn watch(
        &mut self,
        plural: &str,
        namespace: Option<String>,
        selector: Selector,
        query: &HashMap<String, String>,
    ) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let say = |bytes: Bytes| {
            let _ = sender.send(Said::Bytes(bytes));
        };
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let streams = query.contains_key("sendInitialEvents");
        if streams && self.streams == Streams::Refused {
            return status(422, None);
        }
        if !streams && from > 0 && from < self.oldest {
            if self.gone_as_status {
                return status(410, None);
            }
            say(line("ERROR", &failure(410, "Expired")));
            drop(sender);
            return answer(200, stream(receiver, self.piece_bytes));
        }
        if streams || from == 0 {
            for item in self.items(plural, namespace.as_deref(), &selector) {
                say(line("ADDED", &item));
            }
            if streams && self.streams == Streams::Served {
                say(bookmark(self.version, true));
            }
        }
        let watcher = Watcher { plural: plural.to_owned(), namespace, selector, sender };
        if !streams && from > 0 {
            let missed = self.log.iter().filter(|change| change.version > from);
            for bytes in missed.filter_map(|change| change.event(&watcher)) {
                let _ = watcher.sender.send(Said::Bytes(bytes));
            }
        }
        self.watchers.push(watcher);
        answer(200, stream(receiver, self.piece_bytes))
    }
}

fn plural_of(kind: &str) -> String {
    match kind {
        "Endpoints" => "endpoints".to_owned(),
        "Ingress" => "ingresses".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    }
}

fn answer(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn status(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let reason = StatusCode::from_u16(code).expect("a status").canonical_reason();
    let body = failure(code, reason.unwrap_or("Unknown"));
    let mut response = answer(code, Body::from(body.to_string()));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// What is said, as a body; in pieces if they have a size.
fn stream(mut receiver: mpsc::UnboundedReceiver<Said>, piece_bytes: usize) -> Body {
    let mut rest = Bytes::new();
    Body::from_stream(futures::stream::poll_fn(move |cx| {
        use std::task::Poll;
        if rest.is_empty() {
            match receiver.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Said::Cut)) => {
                    return Poll::Ready(Some(Err(std::io::Error::other("cut"))));
                }
                Poll::Ready(Some(Said::Bytes(bytes))) => rest = bytes,
            }
        }
        let size = if piece_bytes == 0 { rest.len() } else { piece_bytes.min(rest.len()) };
        Poll::Ready(Some(Ok(rest.split_to(size))))
    }))
}

/// A server configuration that can be replaced while it is in use.
pub type Tls = Arc<Mutex<Arc<rustls::ServerConfig>>>;

struct TlsListener {
    listener: TcpListener,
    tls: Tls,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            let tls = Arc::clone(&self.tls.lock().expect("not poisoned"));
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl FakeApi {
    fn router(self: &Arc<Self>) -> axum::Router {
        let fake = Arc::clone(self);
        axum::Router::new().fallback(move |request: Request<Body>| {
            let fake = Arc::clone(&fake);
            async move {
                let uri = request.uri().to_string();
                let given = request.headers().get(header::AUTHORIZATION);
                let given = given.and_then(|v| v.to_str().ok()).map(str::to_owned);
                fake.answer(request.method().as_str(), &uri, given.as_deref()).await
            }
        })
    }

    /// Serves on a free port of loopback; the address.
    pub async fn serve(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// The same over TLS.
    pub async fn serve_tls(self: &Arc<Self>, tls: Tls) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = self.router();
        let listener = TlsListener { listener, tls };
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Serves from a thread of its own, for tests that block.
    pub fn serve_blocking(self: &Arc<Self>) -> SocketAddr {
        let (sender, receiver) = std::sync::mpsc::channel();
        let fake = Arc::clone(self);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                sender.send(fake.serve().await).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("it serves")
    }
}
