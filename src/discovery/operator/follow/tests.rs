//! The section `operator` against an API server of ours on loopback.

use super::*;
use crate::discovery::kubernetes::fake::FakeApi;

const DEADLINE: Duration = Duration::from_secs(30);

async fn start(fake: &Arc<FakeApi>, yaml: &str) -> watch::Receiver<Option<Arc<Wanted>>> {
    let url = format!("http://{}", fake.serve().await);
    let text = format!("operator:\n  api_server: {url}\n{yaml}");
    let config = config::parse(&text, Path::new(""), "t", &GlobalConfig::default()).expect("valid");
    let timing = Timing {
        gather: Duration::from_millis(20),
        look_again: Duration::from_millis(200),
        patience: Duration::from_secs(5),
    };
    let config = config.operator.expect("given");
    let (clusters, metrics) = (Clusters::default(), WatchMetrics::unregistered());
    let cancel = CancellationToken::new();
    follow(config, GlobalConfig::default(), &clusters, metrics, timing, cancel)
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
    let fake = FakeApi::new();
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
    assert_eq!(first.scrape_configs[0].origin.as_deref(), Some("ServiceMonitor shop/a"));
    let sd = &first.scrape_configs[0].discovery.kubernetes[0];
    assert!(sd.api_server.as_deref().is_some_and(|u| u.starts_with("http://127.0.0.1:")));
    assert_eq!(first.rejected.len(), 1, "{:?}", first.rejected);
    assert_eq!(first.rejected[0].object.to_string(), "ServiceMonitor shop/c");
    assert_eq!(first.rule_files[0].file, "shop-r-u.yaml");
    assert_eq!(first.rule_files[0].object.to_string(), "PrometheusRule shop/r");
    assert_eq!(first.not_selected.len(), 1);
    assert_eq!(first.not_selected[0].to_string(), "ServiceMonitor shop/b");
    // The label is added: the pool appears.
    fake.put(MONITORS, "shop", "b", monitor(&kps, &good));
    let both = until(&mut wanted, |w| w.scrape_configs.len() == 2).await;
    assert_eq!(pools(&both), ["serviceMonitor/shop/a/0", "serviceMonitor/shop/b/0"]);
    assert_eq!(both.scrape_configs[0], first.scrape_configs[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_appears_later_is_found_without_a_touch_of_the_monitor() {
    let fake = FakeApi::new();
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
    let fake = FakeApi::new();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_are_missing_or_forbidden_stop_no_other() {
    use crate::discovery::kubernetes::fake::Fault;
    let fake = FakeApi::new();
    fake.uninstall("probes");
    fake.fault("podmonitors", Fault::Status(403), usize::MAX);
    fake.put(MONITORS, "shop", "a", monitor(&json!({}), &json!({"port": "m"})));
    let probe = json!({"spec": {"prober": {"url": "p:9115"}, "targets": {"staticConfig": {"static": ["t"]}}}});
    fake.put("probes", "shop", "p", probe);
    let mut wanted = start(&fake, "").await;
    let first = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    assert_eq!(pools(&first), ["serviceMonitor/shop/a/0"]);
    // The kind is installed, and the right given, while narthex runs.
    fake.install("probes");
    fake.heal();
    fake.put(
        "podmonitors",
        "shop",
        "pm",
        json!({"spec": {"podMetricsEndpoints": [{"port": "m"}]}}),
    );
    until(&mut wanted, |w| w.scrape_configs.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_stays_as_it_was_while_the_server_is_away() {
    use crate::discovery::kubernetes::fake::Fault;
    let fake = FakeApi::new();
    let endpoint = json!({"port": "http", "bearerTokenSecret": {"name": "s", "key": "t"}});
    fake.put(MONITORS, "shop", "a", monitor(&json!({}), &endpoint));
    fake.put("secrets", "shop", "s", json!({"data": {"t": "dQ=="}}));
    let mut wanted = start(&fake, "").await;
    let before = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    wanted.mark_unchanged();
    fake.fault("secrets", Fault::Status(503), 3);
    let asked = async {
        while fake.count(&["secrets"]) < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.expect("it is asked again");
    assert!(!wanted.has_changed().expect("here"), "nothing changes");
    assert_eq!(**wanted.borrow().as_ref().expect("there"), *before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_at_the_start_is_asked_again_soon() {
    use crate::discovery::kubernetes::fake::Fault;
    let fake = FakeApi::new();
    fake.put(MONITORS, "shop", "a", monitor(&json!({}), &json!({"port": "m"})));
    fake.fault("monitoring.coreos.com", Fault::Status(503), 4);
    let mut wanted = start(&fake, "").await;
    let first = until(&mut wanted, |w| !w.scrape_configs.is_empty()).await;
    assert_eq!(pools(&first), ["serviceMonitor/shop/a/0"]);
}
