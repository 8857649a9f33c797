//! A discovery against an API server of ours on loopback: pages, watches,
//! expired versions, refusals, outages.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::provider::{Clusters, start};
use super::watch::WatchMetrics;
use crate::config::{HttpClientConfig, KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroups;
use crate::metrics::{Counter, Family};

/// Pods, by name, and what is going on.
#[derive(Default)]
struct Fake {
    pods: Mutex<BTreeMap<String, Value>>,
    version: AtomicUsize,
    watchers: Mutex<Vec<mpsc::UnboundedSender<String>>>,
    /// What happened, by version: a watch begins where its list ended.
    log: Mutex<Vec<(usize, String)>>,
    lists: AtomicUsize,
    watches: AtomicUsize,
    /// Answers with this status instead, while it is set.
    refuse: Mutex<Option<StatusCode>>,
}

impl Fake {
    fn next_version(&self) -> String {
        (self.version.fetch_add(1, Ordering::SeqCst) + 1).to_string()
    }

    fn put(&self, name: &str, ip: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": self.next_version()},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
            "status": {"podIP": ip, "phase": "Running"}});
        let known = self.pods.lock().unwrap().insert(name.to_owned(), pod.clone());
        self.happen(if known.is_some() { "MODIFIED" } else { "ADDED" }, &pod);
    }

    /// Tells watchers now, and those that ask for an older version later.
    fn happen(&self, kind: &str, object: &Value) {
        let mut log = self.log.lock().unwrap();
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
        log.push((version.expect("a version"), line(kind, object)));
        self.tell(kind, object);
    }

    /// A watch from a version on.
    fn watch(&self, from: usize) -> mpsc::UnboundedReceiver<String> {
        let log = self.log.lock().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        for (_, line) in log.iter().filter(|(version, _)| *version > from) {
            sender.send(line.clone()).expect("the receiver is here");
        }
        self.watchers.lock().unwrap().push(sender);
        receiver
    }

    fn delete(&self, name: &str) {
        let mut pod = self.pods.lock().unwrap().remove(name).expect("it is there");
        pod["metadata"]["resourceVersion"] = json!(self.next_version());
        self.happen("DELETED", &pod);
    }

    fn tell(&self, kind: &str, object: &Value) {
        let line = line(kind, object);
        self.watchers.lock().unwrap().retain(|w| w.send(line.clone()).is_ok());
    }

    fn end_watches(&self) {
        self.watchers.lock().unwrap().clear();
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn json(value: &Value) -> impl IntoResponse + use<> {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], value.to_string())
}

async fn pods(
    State(fake): State<Arc<Fake>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(status) = *fake.refuse.lock().unwrap() {
        let body = json!({"kind": "Status", "status": "Failure", "code": status.as_u16(), "message": "no", "reason": "no"});
        return (status, json(&body)).into_response();
    }
    if query.contains_key("watch") {
        fake.watches.fetch_add(1, Ordering::SeqCst);
        let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut receiver = fake.watch(from);
        let lines = futures::stream::poll_fn(move |cx| {
            receiver
                .poll_recv(cx)
                .map(|line| line.map(|l| Ok::<_, std::convert::Infallible>(Bytes::from(l))))
        });
        return Body::from_stream(lines).into_response();
    }
    fake.lists.fetch_add(1, Ordering::SeqCst);
    // Two pages, whatever limit was asked for.
    let all: Vec<Value> = fake.pods.lock().unwrap().values().cloned().collect();
    let half = all.len().div_ceil(2);
    let version = fake.version.load(Ordering::SeqCst).to_string();
    let page = if query.contains_key("continue") {
        json!({"metadata": {"resourceVersion": version}, "items": all[half..]})
    } else {
        json!({"metadata": {"resourceVersion": version, "continue": "more"}, "items": all[..half]})
    };
    json(&page).into_response()
}

async fn serve(fake: &Arc<Fake>) -> String {
    let router = Router::new().route("/api/v1/pods", get(pods)).with_state(Arc::clone(fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn config(url: &str) -> KubernetesSdConfig {
    KubernetesSdConfig {
        role: KubernetesRole::Pod,
        api_server: Some(url.to_owned()),
        kubeconfig_file: None,
        http: HttpClientConfig::default(),
        namespaces: Vec::new(),
        own_namespace: false,
        selectors: Vec::new(),
        attach_node: false,
        attach_namespace: false,
        attach_deployment: false,
        attach_job: false,
        attach_cronjob: false,
    }
}

fn metrics() -> WatchMetrics {
    WatchMetrics {
        failures: Counter::default(),
        events: Family::new(&["role", "event"], Counter::default),
    }
}

fn addresses(groups: &Option<TargetGroups>) -> Vec<String> {
    let groups = groups.iter().flat_map(|g| g.iter());
    groups.flat_map(|g| &g.targets).map(|t| t["__address__"].clone()).collect()
}

async fn until(receiver: &mut tokio::sync::watch::Receiver<Option<TargetGroups>>, wanted: &[&str]) {
    let reached = receiver.wait_for(|groups| addresses(groups) == wanted);
    let reached = tokio::time::timeout(Duration::from_secs(30), reached).await.is_ok();
    assert!(reached, "wanted {wanted:?}, have {:?}", addresses(&receiver.borrow()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_change_and_go() {
    let fake = Arc::new(Fake::default());
    for (name, ip) in [("a", "127.0.1.1"), ("b", "127.0.1.2"), ("c", "127.0.1.3")] {
        fake.put(name, ip);
    }
    let url = serve(&fake).await;
    let (clusters, cancel) = (Clusters::default(), CancellationToken::new());
    let _end = cancel.clone().drop_guard();
    let mut first = start(config(&url), &clusters, metrics(), cancel.clone());
    let mut second = start(config(&url), &clusters, metrics(), cancel.clone());
    until(&mut first, &["127.0.1.1:80", "127.0.1.2:80", "127.0.1.3:80"]).await;
    fake.put("d", "127.0.1.4");
    fake.put("a", "127.0.1.9");
    fake.delete("b");
    let changed = ["127.0.1.9:80", "127.0.1.3:80", "127.0.1.4:80"];
    until(&mut first, &changed).await;
    until(&mut second, &changed).await;
    assert_eq!(fake.watches.load(Ordering::SeqCst), 1, "two discoveries share one watch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_version_lists_again_and_an_outage_changes_nothing() {
    let fake = Arc::new(Fake::default());
    fake.put("a", "127.0.1.1");
    let url = serve(&fake).await;
    let (clusters, cancel) = (Clusters::default(), CancellationToken::new());
    let _end = cancel.clone().drop_guard();
    let mut groups = start(config(&url), &clusters, metrics(), cancel);
    until(&mut groups, &["127.0.1.1:80"]).await;

    // While the server refuses, what is known stays.
    *fake.refuse.lock().unwrap() = Some(StatusCode::SERVICE_UNAVAILABLE);
    fake.end_watches();
    fake.pods.lock().unwrap().clear();
    fake.put("b", "127.0.1.2");
    assert_eq!(addresses(&groups.borrow()), ["127.0.1.1:80"]);

    // Back again, the old version has expired: a list tells what changed.
    *fake.refuse.lock().unwrap() = None;
    let told = async {
        loop {
            let gone =
                json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
            if !fake.watchers.lock().unwrap().is_empty() {
                fake.tell("ERROR", &gone);
                fake.end_watches();
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("it watches again");
    until(&mut groups, &["127.0.1.2:80"]).await;
    assert!(fake.lists.load(Ordering::SeqCst) >= 4, "two lists of two pages");
}
