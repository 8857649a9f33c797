//! The section `operator` against an API server of ours on loopback.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;

use super::*;
use crate::metrics::{Counter, Family};

const DEADLINE: Duration = Duration::from_secs(30);

/// Objects by path; lists are made of what lies under a path.
#[derive(Default)]
struct Fake {
    objects: Mutex<BTreeMap<String, Value>>,
    watchers: Mutex<Vec<(String, mpsc::UnboundedSender<String>)>>,
    version: Mutex<u64>,
}

impl Fake {
    fn put(&self, list: &str, namespace: &str, name: &str, mut object: Value) {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let path = format!("{list}/{namespace}/{name}");
        self.objects.lock().unwrap().insert(path, object.clone());
        let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
        self.watchers.lock().unwrap().retain(|(l, w)| l != list || w.send(line.clone()).is_ok());
    }

    fn answer(&self, path: &str, query: &HashMap<String, String>) -> Option<Response> {
        let json = |value: &Value| {
            let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
            Some((kind, value.to_string()).into_response())
        };
        if let Some(version) = path.strip_prefix("/apis/monitoring.coreos.com/") {
            let kinds = KINDS.iter().filter(|k| k.version == version && k.plural != "probes");
            let resources: Vec<Value> = kinds
                .map(|k| json!({"name": k.plural, "singularName": "", "namespaced": true, "kind": k.kind, "verbs": ["list"]}))
                .collect();
            if !version.contains('/') {
                return json(
                    &json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources}),
                );
            }
        }
        if let Some(rest) = path.strip_prefix("/api/v1/namespaces/") {
            let (namespace, rest) = rest.split_once('/')?;
            let (list, name) = rest.split_once('/')?;
            let objects = self.objects.lock().unwrap();
            return objects.get(&format!("{list}/{namespace}/{name}")).and_then(json);
        }
        let list = path.rsplit('/').next()?;
        // Registered under the lock of the version: nothing is missed between.
        let version = self.version.lock().unwrap();
        let objects = self.objects.lock().unwrap();
        let prefix = format!("{list}/");
        let items: Vec<Value> = objects
            .iter()
            .filter(|(p, _)| p.starts_with(&prefix))
            .map(|(_, o)| o.clone())
            .collect();
        if !query.contains_key("watch") {
            return json(
                &json!({"metadata": {"resourceVersion": version.to_string()}, "items": items}),
            );
        }
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for item in items {
            let at: u64 = item["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
            if at > from {
                let _ = sender.send(format!("{}\n", json!({"type": "MODIFIED", "object": item})));
            }
        }
        self.watchers.lock().unwrap().push((list.to_owned(), sender));
        let lines = futures::stream::poll_fn(move |cx| {
            let line = receiver.poll_recv(cx);
            line.map(|l| l.map(|l: String| Ok::<_, std::convert::Infallible>(Bytes::from(l))))
        });
        Some(Body::from_stream(lines).into_response())
    }
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let missing = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"});
    let found = fake.answer(uri.path(), &query);
    found.unwrap_or_else(|| (StatusCode::NOT_FOUND, missing.to_string()).into_response())
}

async fn start(fake: &Arc<Fake>, yaml: &str) -> watch::Receiver<Option<Arc<Wanted>>> {
    let router = Router::new().fallback(answer).with_state(Arc::clone(fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let text = format!("operator:\n  api_server: {url}\n{yaml}");
    let config = config::parse(&text, Path::new(""), "t", &GlobalConfig::default()).expect("valid");
    let metrics = WatchMetrics {
        failures: Counter::default(),
        events: Family::new(&["role", "event"], Counter::default),
    };
    let timing = Timing {
        gather: Duration::from_millis(20),
        look_again: Duration::from_millis(200),
        connect_pause: Duration::from_millis(50),
    };
    let config = config.operator.expect("given");
    follow(config, GlobalConfig::default(), metrics, timing, CancellationToken::new())
}

async fn until(
    receiver: &mut watch::Receiver<Option<Arc<Wanted>>>,
    reached: impl Fn(&Wanted) -> bool,
) -> Arc<Wanted> {
    let waiting = receiver.wait_for(|w| w.as_ref().is_some_and(|w| reached(w)));
    let result =
        tokio::time::timeout(DEADLINE, waiting).await.map(|r| r.ok().and_then(|w| w.clone()));
    result.ok().flatten().unwrap_or_else(|| panic!("not reached: {:?}", receiver.borrow()))
}

fn pools(wanted: &Wanted) -> Vec<&str> {
    wanted.scrape_configs.iter().map(|c| c.job_name.as_str()).collect()
}

fn monitor(labels: &Value, endpoint: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "status": {"n": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "endpoints": [endpoint]}})
}

const MONITORS: &str = "servicemonitors";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_selected_counts_and_a_bad_neighbour_harms_nobody() {
    let fake = Arc::new(Fake::default());
    let good = json!({"port": "http"});
    let slow = json!({"port": "http", "interval": "30s", "scrapeTimeout": "60s"});
    let kps = json!({"release": "kps"});
    fake.put(MONITORS, "shop", "a", monitor(&kps, &good));
    fake.put(MONITORS, "shop", "b", monitor(&json!({}), &good));
    fake.put(MONITORS, "shop", "c", monitor(&kps, &slow));
    fake.put(
        "prometheusrules",
        "shop",
        "r",
        json!({"metadata": {"uid": "u"}, "spec": {"groups": [
        {"name": "g", "rules": [{"record": "x", "expr": 42}]}]}}),
    );
    let yaml = "  service_monitor_selector: {matchLabels: {release: kps}}\n";
    let mut wanted = start(&fake, yaml).await;
    let first = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    assert_eq!(pools(&first), ["serviceMonitor/shop/a/0"]);
    assert_eq!(first.scrape_configs[0].origin.as_deref(), Some("serviceMonitor/shop/a/0"));
    let sd = &first.scrape_configs[0].discovery.kubernetes[0];
    assert!(sd.api_server.as_deref().is_some_and(|u| u.starts_with("http://127.0.0.1:")));
    assert_eq!(first.rejected.len(), 1, "{:?}", first.rejected);
    assert_eq!(first.rejected[0].object, "ServiceMonitor shop/c");
    assert_eq!(first.rule_files[0].0, "shop-r-u.yaml");
    // The label is added: the pool appears.
    fake.put(MONITORS, "shop", "b", monitor(&kps, &good));
    let both = until(&mut wanted, |w| w.scrape_configs.len() == 2).await;
    assert_eq!(pools(&both), ["serviceMonitor/shop/a/0", "serviceMonitor/shop/b/0"]);
    assert_eq!(both.scrape_configs[0], first.scrape_configs[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_appears_later_is_found_without_a_touch_of_the_monitor() {
    let fake = Arc::new(Fake::default());
    let endpoint = json!({"port": "http", "basicAuth": {
        "username": {"name": "web-auth", "key": "user"}, "password": {"name": "web-auth", "key": "pass"}}});
    fake.put(MONITORS, "shop", "a", monitor(&json!({}), &endpoint));
    let mut wanted = start(&fake, "").await;
    let before = until(&mut wanted, |w| !w.rejected.is_empty()).await;
    assert!(
        before.rejected[0].reason.contains("Secret shop/web-auth does not exist"),
        "{before:?}"
    );
    assert!(before.scrape_configs.is_empty());
    // "u" and "p"
    fake.put("secrets", "shop", "web-auth", json!({"data": {"user": "dQ==", "pass": "cA=="}}));
    let after = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    let password = |w: &Wanted| {
        let basic = w.scrape_configs[0].http.basic_auth.clone().expect("given");
        match basic.password {
            Some(config::SecretSource::Inline(secret)) => secret.expose().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(password(&after), "p");
    // It is rotated.
    fake.put("secrets", "shop", "web-auth", json!({"data": {"user": "dQ==", "pass": "cQ=="}}));
    until(&mut wanted, |w| password(w) == "q").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_selected_by_their_labels() {
    let fake = Arc::new(Fake::default());
    for namespace in ["one", "two"] {
        fake.put(MONITORS, namespace, "a", monitor(&json!({}), &json!({"port": "m"})));
    }
    fake.put("namespaces", "", "one", json!({"metadata": {"labels": {"watch": "yes"}}}));
    fake.put("namespaces", "", "two", json!({"metadata": {}}));
    let yaml = "  service_monitor_namespace_selector: {matchLabels: {watch: 'yes'}}\n";
    let mut wanted = start(&fake, yaml).await;
    let first = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    assert_eq!(pools(&first), ["serviceMonitor/one/a/0"]);
    fake.put("namespaces", "", "two", json!({"metadata": {"labels": {"watch": "yes"}}}));
    until(&mut wanted, |w| w.scrape_configs.len() == 2).await;
}
