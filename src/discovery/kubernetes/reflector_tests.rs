//! The protocol against an API server in memory, with everything that goes
//! wrong with real ones. Pauses are simulated: an hour takes milliseconds.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backoff::Clock;
use super::cache::Cache;
use super::fake::{FakeApi, Fault, Streams};
use super::groups::{Attach, groups};
use super::health::Health;
use super::object::{EndpointSlice, Node, Object, Pod};
use super::raw::Raw;
use super::reflector::Server;
use super::scope::{Resource, Scope};
use super::watch::{Store, WatchMetrics, Watched};
use crate::config::KubernetesRole;

const DEADLINE: Duration = Duration::from_secs(30);

const PODS: Resource = Resource { group: "", version: "v1", kind: "Pod", plural: "pods" };

/// What a simulated clock does besides passing.
type Hook = Arc<Mutex<Box<dyn FnMut(Duration) + Send>>>;

/// A server in memory and a clock that passes when somebody sleeps.
struct Setup {
    fake: Arc<FakeApi>,
    watched: Arc<Watched>,
    metrics: WatchMetrics,
    passed_ms: Arc<AtomicU64>,
    hook: Hook,
}

impl Setup {
    fn new() -> Self {
        Self::with(FakeApi::new(), DEADLINE)
    }

    fn with(fake: Arc<FakeApi>, watch_silence: Duration) -> Self {
        let server = Arc::clone(&fake);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (fake, uri) = (Arc::clone(&server), request.uri().to_string());
            async move { Ok::<_, Infallible>(fake.answer("GET", &uri, None).await) }
        });
        let passed_ms = Arc::new(AtomicU64::new(0));
        let hook: Hook = Arc::new(Mutex::new(Box::new(|_| {})));
        let (now, passing, hooked) =
            (Arc::clone(&passed_ms), Arc::clone(&passed_ms), Arc::clone(&hook));
        let clock = Clock {
            now: Arc::new(move || Duration::from_millis(now.load(Ordering::SeqCst))),
            sleep: Arc::new(move |pause| {
                let ms = u64::try_from(pause.as_millis()).expect("short") + 1;
                let passed = passing.fetch_add(ms, Ordering::SeqCst) + ms;
                hooked.lock().expect("not poisoned")(Duration::from_millis(passed));
                Box::pin(tokio::task::yield_now())
            }),
        };
        let client = kube::Client::new(service, "default");
        let server = Server::new(client);
        let server = server.with_clock(clock, Duration::from_millis(200), watch_silence);
        let health = Health::new("test".to_owned());
        let watched = Arc::new(Watched { server, health });
        let metrics = WatchMetrics::unregistered();
        Self { fake, watched, metrics, passed_ms, hook }
    }

    fn follow<T: Object>(&self, scope: Scope) -> Arc<Store<T>> {
        Store::follow(Arc::clone(&self.watched), scope, self.metrics.clone())
    }

    fn pods(&self) -> Arc<Store<Pod>> {
        self.follow(Scope::all(PODS))
    }

    fn put(&self, name: &str, ip: &str) {
        self.fake.put("pods", "shop", name, pod(ip));
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    /// Runs when somebody sleeps, with the time passed.
    fn when_sleeping(&self, hook: impl FnMut(Duration) + Send + 'static) {
        *self.hook.lock().expect("not poisoned") = Box::new(hook);
    }
}

fn pod(ip: &str) -> Value {
    json!({"metadata": {"labels": {"app": "é–web"}}, "spec": {"containers": [{"name": "c"}]},
        "status": {"podIP": ip, "phase": "Running"}})
}

fn ips(store: &Store<Pod>) -> Vec<String> {
    store.snapshot().iter().map(|pod| pod.status.pod_ip.clone()).collect()
}

async fn until(store: &Store<Pod>, reached: impl Fn(&[String]) -> bool) {
    let mut changes: watch::Receiver<u64> = store.changes();
    let waiting = async {
        while !(*changes.borrow_and_update() > 0 && reached(&ips(store))) {
            changes.changed().await.expect("the store is here");
        }
    };
    let done = tokio::time::timeout(DEADLINE, waiting).await.is_ok();
    assert!(done, "not reached: {:?}", ips(store));
}

async fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    let waiting = async {
        while !check() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "waited for {what}");
}

#[tokio::test]
async fn a_server_without_streamed_lists_is_asked_page_by_page_and_only_once_for_them() {
    let setup = Setup::new();
    for i in 0..1200 {
        setup.put(&format!("p{i:04}"), "127.0.0.1");
    }
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1200).await;
    let fake = &setup.fake;
    assert_eq!(fake.count(&["sendInitialEvents=true"]), 1);
    assert_eq!(fake.count(&["limit=500"]), 3);
    assert_eq!(fake.count(&["limit=500", "resourceVersion=0"]), 1);
    setup.put("late", "127.0.0.2");
    until(&store, |ips| ips.len() == 1201).await;
    let mut scope = Scope::all(PODS);
    scope.namespace = Some("shop".to_owned());
    let other: Arc<Store<Pod>> = setup.follow(scope);
    until(&other, |ips| ips.len() == 1201).await;
    assert_eq!(fake.count(&["sendInitialEvents=true"]), 1);
    assert_eq!(setup.metrics.watches.get(), 2.0);
}

#[tokio::test]
async fn a_streamed_list_needs_no_other_request() {
    let setup = Setup::new();
    setup.fake.set_streams(Streams::Served);
    setup.put("a", "127.0.0.1");
    setup.put("b", "127.0.0.2");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 2).await;
    setup.put("a", "127.0.0.9");
    setup.fake.delete("pods", "shop", "b");
    until(&store, |ips| ips == ["127.0.0.9"]).await;
    assert_eq!(setup.fake.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_know_streamed_lists_is_not_waited_for_again() {
    let setup = Setup::new();
    setup.fake.set_streams(Streams::Ignored);
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    assert_eq!(setup.fake.count(&["limit=500"]), 1);
    setup.fake.expire_watches();
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
    assert_eq!(setup.fake.count(&["sendInitialEvents=true"]), 1);
}

#[tokio::test]
async fn a_watch_that_ends_or_breaks_goes_on_from_its_last_version() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    for (i, cleanly) in [true, false, true].into_iter().enumerate() {
        until_true("a watch", || setup.fake.open_watches() == 1).await;
        let name = format!("n{i}");
        setup.put(&name, "127.0.0.7");
        until(&store, |ips| ips.len() == i + 2).await;
        setup.fake.end_watches(cleanly);
        setup.put("a", &format!("127.0.0.{}", i + 10));
        until(&store, |ips| ips[0] == format!("127.0.0.{}", i + 10)).await;
    }
    assert_eq!(setup.fake.count(&["limit=500"]), 1, "it is listed once");
}

#[tokio::test]
async fn a_bookmark_moves_the_version_so_that_nothing_is_listed_again() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    until_true("a watch", || setup.fake.open_watches() == 1).await;
    // All that was before the bookmark is too old afterwards.
    setup.fake.expire();
    setup.fake.send_bookmarks();
    setup.fake.end_watches(true);
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
    assert_eq!(setup.fake.count(&["limit=500"]), 1);
}

#[tokio::test]
async fn an_expired_version_is_listed_again_and_compared() {
    for as_status in [false, true] {
        let setup = Setup::new();
        if as_status {
            setup.fake.set_gone_as_status();
        }
        for (name, ip) in [("a", "127.0.0.1"), ("b", "127.0.0.2"), ("c", "127.0.0.3")] {
            setup.put(name, ip);
        }
        let store = setup.pods();
        until(&store, |ips| ips.len() == 3).await;
        let kept = Arc::clone(store.snapshot().get("shop", "a").expect("there"));
        // While nobody listens, and too long ago to be told of it.
        setup.fake.fault("watch=true", Fault::Status(500), 1);
        setup.fake.end_watches(true);
        setup.fake.delete("pods", "shop", "b");
        setup.put("c", "127.0.0.33");
        setup.fake.expire();
        until(&store, |ips| ips == ["127.0.0.1", "127.0.0.33"]).await;
        let now = store.snapshot();
        assert!(Arc::ptr_eq(&kept, now.get("shop", "a").expect("there")), "unchanged is the same");
        let asked = setup.fake.requests();
        let relist = asked.iter().rfind(|r| r.contains("limit=500")).expect("listed");
        assert!(relist.contains("resourceVersionMatch=NotOlderThan"), "{relist}");
        assert!(!relist.contains("resourceVersion=0"), "{relist}");
    }
}

#[tokio::test]
async fn a_version_that_the_list_refuses_is_not_asked_for_again() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    let too_new = json!({"kind": "Status", "status": "Failure", "code": 504, "reason": "Timeout",
        "message": "Too large resource version: 5, current: 4", "metadata": {},
        "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "too large"}]}});
    setup.fake.fault("limit=500", Fault::Status(410), 1);
    setup.fake.expire_watches();
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
    let lists: Vec<String> =
        setup.fake.requests().into_iter().filter(|r| r.contains("limit=500")).collect();
    assert_eq!(lists.len(), 3);
    assert!(lists[1].contains("resourceVersion=") && !lists[2].contains("resourceVersion="));
    // As an event of a watch.
    until_true("a watch", || setup.fake.open_watches() == 1).await;
    let event = format!("{}\n", json!({"type": "ERROR", "object": too_new}));
    setup.fake.fault("watch=true", Fault::Body(Bytes::from(event)), 1);
    setup.fake.end_watches(true);
    setup.put("c", "127.0.0.3");
    until(&store, |ips| ips.len() == 3).await;
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let setup = Setup::new();
    for i in 0..700 {
        setup.put(&format!("p{i:03}"), "127.0.0.1");
    }
    // The second page fails, then has expired, then comes all at once.
    setup.fake.fault("continue=", Fault::Status(500), 1);
    setup.fake.fault("continue=", Fault::Status(410), 1);
    let store = setup.pods();
    let mut seen = store.changes();
    tokio::time::timeout(DEADLINE, seen.changed()).await.expect("in time").expect("here");
    assert_eq!(store.snapshot().len(), 700, "the first that is seen is complete");
    let mut lists = setup.fake.requests().into_iter().filter(|r| !r.contains("watch=true"));
    let last = lists.next_back().expect("listed");
    assert!(!last.contains("limit="), "{last}");
}

#[tokio::test]
async fn refusals_are_asked_again_for_ever_and_told_once() {
    for code in [401, 403, 404, 429, 500, 503] {
        let setup = Setup::new();
        setup.put("a", "127.0.0.1");
        setup.fake.fault("pods", Fault::Status(code), 20);
        let texts = Arc::new(Mutex::new(Vec::new()));
        let (notices, heard) = (setup.metrics.notices.clone(), Arc::clone(&texts));
        setup.when_sleeping(move |_| {
            heard.lock().unwrap().extend(notices.list().into_iter().map(|n| n.text));
        });
        let store = setup.pods();
        until(&store, |ips| ips.len() == 1).await;
        assert_eq!(setup.metrics.failures.get(), 20, "{code}");
        assert_eq!(setup.metrics.failing.get(), 0.0);
        assert!(setup.metrics.notices.list().is_empty());
        let mut heard = texts.lock().unwrap().clone();
        heard.dedup();
        assert_eq!(heard.len(), 1, "{heard:?}");
        let verb = if [429, 500, 503].contains(&code) { "does not answer" } else { "refuses pods" };
        assert!(heard[0].contains(verb), "{heard:?}");
    }
}

#[tokio::test]
async fn what_the_server_asks_for_is_waited() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    setup.fake.fault("pods", Fault::RetryAfter(429, 40), 2);
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    assert!(setup.passed() >= Duration::from_secs(80), "{:?}", setup.passed());
    assert!(setup.passed() < Duration::from_secs(90), "{:?}", setup.passed());
}

#[tokio::test]
async fn a_server_that_is_away_for_an_hour_changes_nothing() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    setup.put("b", "127.0.0.2");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 2).await;
    let before = store.snapshot();
    let version = *store.changes().borrow();
    until_true("a watch", || setup.fake.open_watches() == 1).await;

    let hour = setup.passed() + Duration::from_secs(3600);
    let (fake, store_then, metrics) =
        (Arc::clone(&setup.fake), Arc::clone(&store), setup.metrics.clone());
    let during = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&during);
    setup.when_sleeping(move |passed| {
        let mut noted = noted.lock().unwrap();
        if passed >= hour && noted.is_none() {
            let seen = *store_then.changes().borrow();
            *noted =
                Some((seen, metrics.notices.list(), metrics.failing.get(), fake.requests().len()));
            fake.heal();
        }
    });
    let asked = setup.fake.requests().len();
    setup.fake.fault("", Fault::Status(503), usize::MAX);
    setup.fake.end_watches(false);
    setup.fake.delete("pods", "shop", "b");
    setup.put("c", "127.0.0.3");
    setup.fake.expire();
    until(&store, |ips| ips == ["127.0.0.1", "127.0.0.3"]).await;

    let (seen, notices, failing, requests) = during.lock().unwrap().take().expect("an hour passed");
    assert_eq!(seen, version, "nothing changed while the server was away");
    assert_eq!(failing, 1.0);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].text.contains("does not answer"), "{notices:?}");
    let requests = requests - asked;
    assert!((60..1000).contains(&requests), "{requests} requests in an hour");
    assert!(setup.metrics.failures.get() >= 60);
    let now = store.snapshot();
    let same =
        |name| Arc::ptr_eq(before.get("shop", name).unwrap(), now.get("shop", name).unwrap());
    assert!(same("a"));
    assert!(setup.metrics.notices.list().is_empty());
    println!("{requests} requests and one notice in an hour");
}

#[tokio::test]
async fn a_watch_that_ends_at_once_is_not_repeated_without_a_pause() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    setup.fake.fault("watch=true", Fault::Body(Bytes::new()), 40);
    setup.fake.end_watches(true);
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
    assert!(setup.passed() > Duration::from_secs(60), "{:?}", setup.passed());
}

#[tokio::test]
async fn a_watch_that_is_silent_is_asked_for_again_and_nothing_else_happens() {
    let setup = Setup::with(FakeApi::new(), Duration::from_millis(20));
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    let version = *store.changes().borrow();
    until_true("watches", || setup.fake.count(&["watch=true", "resourceVersion="]) >= 4).await;
    assert_eq!(setup.fake.count(&["limit=500"]), 1);
    assert_eq!((*store.changes().borrow(), setup.metrics.failures.get()), (version, 0));
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
}

#[tokio::test]
async fn lines_are_cut_anywhere_and_nonsense_is_survived() {
    let setup = Setup::new();
    setup.fake.set_piece_bytes(3);
    setup.fake.set_streams(Streams::Served);
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    assert_eq!(store.snapshot().get("shop", "a").expect("there").metadata.labels["app"], "é–web");
    // An object that is none of its kind does not hide the others.
    let mut odd = pod("127.0.0.6");
    odd["spec"]["containers"] = json!("none");
    setup.fake.put("pods", "shop", "odd", odd);
    setup.put("b", "127.0.0.2");
    until(&store, |ips| ips.len() == 2).await;
    for nonsense in
        ["{\"type\":\"ADDED\"", "\n\nnot json\n", "[]\n", "{\"kind\":\"Status\",\"code\":500}\n"]
    {
        until_true("a watch", || setup.fake.open_watches() == 1).await;
        setup.fake.fault("watch=true", Fault::Body(Bytes::from_static(nonsense.as_bytes())), 1);
        setup.fake.fault("watch=true", Fault::Cut("{\"type\":"), 1);
        setup.fake.end_watches(true);
        let count = ips(&store).len();
        setup.put(&format!("n{count}"), "127.0.0.7");
        until(&store, |ips| ips.len() == count + 1).await;
    }
}

#[tokio::test]
async fn what_is_written_again_without_a_difference_wakes_nobody() {
    let setup = Setup::new();
    setup.put("a", "127.0.0.1");
    let store = setup.pods();
    until(&store, |ips| ips.len() == 1).await;
    until_true("a watch", || setup.fake.open_watches() == 1).await;
    let version = *store.changes().borrow();
    for _ in 0..10 {
        setup.put("a", "127.0.0.1");
    }
    let events = setup.metrics.events.with(&["pod", "update"]);
    until_true("the events", || events.get() == 10).await;
    assert_eq!(*store.changes().borrow(), version);
}

/// Recorded streams, where they are at hand: what is known after each.
#[tokio::test]
async fn recorded_streams_give_the_documented_groups() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["..", "../.."].map(|up| root.join(up).join("shared/kubernetes/fixtures"));
    let Some(fixtures) = found.iter().find(|path| path.is_dir()) else {
        println!("skipped: the recorded streams are not at hand");
        return;
    };
    let read = |name: &str| -> Bytes {
        Bytes::from(std::fs::read(fixtures.join(name)).expect("recorded"))
    };
    let nodes = Resource { group: "", version: "v1", kind: "Node", plural: "nodes" };
    let slices = Resource {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
    };
    let monitors = Resource {
        group: "monitoring.coreos.com",
        version: "v1",
        kind: "ServiceMonitor",
        plural: "servicemonitors",
    };
    let pods = groups_after::<Pod>(PODS, read("watch_pod_lifecycle.jsonl"), |cache, kind| {
        cache.pods = kind;
        KubernetesRole::Pod
    });
    assert_eq!(pods.await, [0, 1, 1, 0], "no address, running, finished, deleted");
    let nodes = groups_after::<Node>(nodes, read("watch_node.jsonl"), |cache, kind| {
        cache.nodes = kind;
        KubernetesRole::Node
    });
    assert_eq!(nodes.await.last(), Some(&0), "the node is removed");
    let drained = groups_after::<EndpointSlice>(
        slices,
        read("watch_endpointslice_drain.jsonl"),
        |c, kind| {
            c.slices = kind;
            KubernetesRole::EndpointSlice
        },
    );
    assert_eq!(drained.await, [2, 2, 0, 0], "ready, terminating, empty, deleted");
    // A label changes: without a selector the object stays, with one it goes.
    let relabelled = read("watch_servicemonitor.jsonl");
    let text = String::from_utf8(relabelled.to_vec()).expect("UTF-8");
    let modified: Vec<&str> = text.lines().filter(|l| !l.contains("\"DELETED\"")).collect();
    let modified = Bytes::from(format!("{}\n", modified.join("\n")));
    for (stream, expected) in
        [(modified, 1), (relabelled, 0), (read("watch_servicemonitor_label_selector.jsonl"), 0)]
    {
        let (_setup, store) = replay::<Raw>(monitors, &stream).await;
        assert_eq!(store.snapshot().len(), expected);
    }
    for stream in ["watch_expired.jsonl", "watch_expired_midway.jsonl"] {
        let (setup, _store) = replay::<Pod>(PODS, &read(stream)).await;
        until_true("a second list", || setup.fake.count(&["limit=500"]) == 2).await;
    }
    let (setup, _store) = replay::<Pod>(PODS, &read("watch_internal_error.jsonl")).await;
    until_true("a watch", || setup.fake.open_watches() == 1).await;
    assert_eq!(setup.fake.count(&["limit=500"]), 1, "it watches again without a list");
    // A streamed list.
    let setup = Setup::new();
    let stream = read("watch_list_pods.jsonl");
    setup.fake.fault("sendInitialEvents", Fault::Body(stream), 1);
    let store = setup.pods();
    until(&store, |ips| !ips.is_empty()).await;
    assert_eq!(setup.fake.count(&["limit=500"]), 0);
}

/// Lists nothing, then watches these bytes, and waits until they were read.
async fn replay<T: Object>(resource: Resource, stream: &Bytes) -> (Setup, Arc<Store<T>>) {
    let setup = Setup::new();
    let watch = format!("{}?resourceVersion", resource.plural);
    setup.fake.fault(&watch, Fault::Body(stream.clone()), 1);
    let store = setup.follow::<T>(Scope::all(resource));
    let watches = || setup.fake.count(&[resource.plural, "watch=true"]);
    until_true("the next watch", || watches() >= 3).await;
    (setup, store)
}

/// How many targets there are after each event of a stream.
async fn groups_after<T: Object>(
    resource: Resource,
    stream: Bytes,
    put: impl Fn(&mut Cache, super::cache::Kind<T>) -> KubernetesRole,
) -> Vec<usize> {
    let text = String::from_utf8(stream.to_vec()).expect("UTF-8");
    let lines: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
    let mut counts = Vec::new();
    for end in 1..=lines.len() {
        if lines[end - 1].contains("\"BOOKMARK\"") {
            continue;
        }
        let part = Bytes::from(format!("{}\n", lines[..end].join("\n")));
        let (_setup, store) = replay::<T>(resource, &part).await;
        let mut cache = Cache::default();
        let role = put(&mut cache, store.snapshot());
        counts.push(groups(role, &cache, Attach::default()).iter().map(|g| g.targets.len()).sum());
    }
    counts
}
