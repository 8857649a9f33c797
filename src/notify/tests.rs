use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::client::testing::{Answer, Server, ok, serve};
use crate::config::{
    AlertmanagerConfig, Config, DiscoveryConfigs, HttpClientConfig, RelabelConfig, Secret,
    WebhookConfig,
};
use crate::discovery::{TargetGroup, TargetGroups};
use crate::metrics::Registry;

fn alert(name: &str, is_resolved: bool) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name), ("namespace", "shop")]),
        annotations: [("summary".to_owned(), "sum".to_owned())].into(),
        starts_at_ms: 1_700_000_000_123,
        ends_at_ms: i64::from(is_resolved) * 1_700_000_060_000
            + i64::from(!is_resolved) * 4_000_000_000_000,
        is_resolved,
        generator_url: generator_url("http://n:9090", "up == 0"),
    }
}

fn alertmanager() -> AlertmanagerConfig {
    AlertmanagerConfig {
        scheme: "http".to_owned(),
        path_prefix: String::new(),
        timeout: Duration::from_secs(5),
        http: HttpClientConfig::default(),
        discovery: DiscoveryConfigs::default(),
        relabel_configs: Vec::new(),
        alert_relabel_configs: Vec::new(),
    }
}

fn groups(addresses: &[String]) -> TargetGroups {
    let target = |a: &String| BTreeMap::from([("__address__".to_owned(), a.clone())]);
    let group =
        TargetGroup { targets: addresses.iter().map(target).collect(), ..TargetGroup::default() };
    Arc::new(vec![Arc::new(group)])
}

/// A server that notes the bodies it accepts, and refuses while it is told to.
async fn receiver() -> (Server, Arc<Mutex<Vec<serde_json::Value>>>, Arc<AtomicBool>) {
    let (bodies, is_down) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (noted, down) = (bodies.clone(), is_down.clone());
    let server = serve(move |request| {
        if down.load(Ordering::Relaxed) {
            return Answer::Bytes(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec());
        }
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        noted.lock().unwrap().push(serde_json::from_str(body).expect("JSON"));
        ok("application/json", b"{}")
    })
    .await;
    (server, bodies, is_down)
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn alertmanagers_get_what_they_expect() {
    let (server, bodies, _) = receiver().await;
    let (sender, watched) = watch::channel(groups(&[server.address.to_string()]));
    let registry = Registry::default();
    let manager = Manager::new(&registry, ManagerOptions::default());
    let mut config = Config::default();
    config.global.external_labels = Labels::from_pairs([("region", "eu"), ("namespace", "x")]);
    config.alerting.alertmanagers = vec![alertmanager()];
    config.alerting.alert_relabel_configs = vec![RelabelConfig {
        target_label: "team".to_owned(),
        replacement: "web".to_owned(),
        ..RelabelConfig::default()
    }];
    manager.apply(&config, |_, _| watched.clone()).await.unwrap();
    manager.send(vec![alert("Down", false)]);
    until("the first alert", || !bodies.lock().unwrap().is_empty()).await;
    let expected = serde_json::json!([{
        "annotations": {"summary": "sum"},
        "endsAt": "2096-10-02T07:06:40.000Z",
        "startsAt": "2023-11-14T22:13:20.123Z",
        "generatorURL": "http://n:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1",
        "labels": {"alertname": "Down", "namespace": "shop", "region": "eu", "team": "web"},
    }]);
    assert_eq!(bodies.lock().unwrap()[0], expected);
    assert!(server.heads()[0].starts_with("POST /api/v2/alerts HTTP/1.1\r\n"));
    // An alert for each label set, in batches.
    manager.send((0..130).map(|i| alert(&format!("A{i}"), false)).collect());
    let count =
        || bodies.lock().unwrap().iter().map(|b| b.as_array().unwrap().len()).sum::<usize>();
    until("all alerts", || count() == 131).await;
    assert!(bodies.lock().unwrap().iter().all(|b| b.as_array().unwrap().len() <= 64));
    // Discovery takes it away.
    sender.send(groups(&[])).unwrap();
    until("its end", || manager.alertmanagers().0.is_empty()).await;
    manager.stop().await;
}

#[tokio::test]
async fn an_outage_of_one_delays_no_other_and_loses_nothing() {
    let (up, up_bodies, _) = receiver().await;
    let (down, down_bodies, is_down) = receiver().await;
    is_down.store(true, Ordering::Relaxed);
    let addresses = [up.address.to_string(), down.address.to_string()];
    let (_sender, watched) = watch::channel(groups(&addresses));
    let manager = Manager::new(&Registry::default(), ManagerOptions::default());
    let mut config = Config::default();
    config.alerting.alertmanagers = vec![alertmanager()];
    manager.apply(&config, |_, _| watched.clone()).await.unwrap();
    manager.send(vec![alert("A", false), alert("B", false)]);
    until("the one that is up", || !up_bodies.lock().unwrap().is_empty()).await;
    until("an attempt", || down.connections() > 0).await;
    manager.send(vec![alert("A", true)]);
    // A reload that changes nothing keeps the queue.
    manager.apply(&config, |_, _| watched.clone()).await.unwrap();
    is_down.store(false, Ordering::Relaxed);
    // Stopping sends what waits.
    manager.stop().await;
    let heard: BTreeMap<String, bool> = down_bodies
        .lock()
        .unwrap()
        .iter()
        .flat_map(|body| body.as_array().unwrap().clone())
        .map(|alert| {
            let name = alert["labels"]["alertname"].as_str().unwrap().to_owned();
            (name, alert["endsAt"].as_str().unwrap().starts_with("2023"))
        })
        .collect();
    assert_eq!(heard, [("A".to_owned(), true), ("B".to_owned(), false)].into());
}

#[tokio::test]
async fn webhooks_get_groups() {
    let (server, bodies, _) = receiver().await;
    let manager = Manager::new(&Registry::default(), ManagerOptions::default());
    let mut config = Config::default();
    config.webhooks.receivers = vec![WebhookConfig {
        name: "chat".to_owned(),
        url: Secret::new(server.url("/hook?token=x").to_string()),
        http: HttpClientConfig::default(),
        group_by: vec!["namespace".to_owned()],
        group_wait: Duration::ZERO,
        group_interval: Duration::from_secs(300),
        repeat_interval: Duration::from_secs(3600),
        send_resolved: true,
        inhibit_equal: Vec::new(),
    }];
    let none = watch::channel(TargetGroups::default()).1;
    manager.apply(&config, |_, _| none.clone()).await.unwrap();
    manager.send(vec![alert("A", false), alert("B", false)]);
    until("the notification", || !bodies.lock().unwrap().is_empty()).await;
    let body = bodies.lock().unwrap()[0].clone();
    assert_eq!(body["status"], "firing");
    assert_eq!(body["receiver"], "chat");
    assert_eq!(body["version"], "4");
    assert_eq!(body["groupKey"], "{}:{namespace=\"shop\"}");
    assert_eq!(body["groupLabels"], serde_json::json!({"namespace": "shop"}));
    assert_eq!(body["commonLabels"], serde_json::json!({"namespace": "shop"}));
    assert_eq!(body["commonAnnotations"], serde_json::json!({"summary": "sum"}));
    assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(body["alerts"][1]["labels"]["alertname"], "B");
    assert_eq!(body["alerts"][0]["fingerprint"].as_str().unwrap().len(), 16);
    manager.stop().await;
}
