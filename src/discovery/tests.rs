use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{self, DiscoveryConfigs, GlobalConfig};
use crate::metrics::Registry;

/// Longest wait for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

fn configs(yaml: &str) -> DiscoveryConfigs {
    let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
    let config = config::parse(&text, Path::new(""), "test", &GlobalConfig::default());
    config.expect("valid").scrape_configs.remove(0).discovery
}

fn discovery() -> Discovery {
    Discovery::new(&Registry::default(), CancellationToken::new())
}

fn addresses(groups: &TargetGroups) -> Vec<String> {
    let targets = groups.iter().flat_map(|g| &g.targets);
    targets.map(|t| t["__address__"].clone()).collect()
}

async fn wait_for(receiver: &mut watch::Receiver<TargetGroups>, expected: &[&str]) {
    let reached = receiver.wait_for(|groups| addresses(groups) == expected);
    let result = tokio::time::timeout(DEADLINE, reached).await.map(|r| r.is_ok());
    assert_eq!(
        result,
        Ok(true),
        "expected {expected:?}, there is {:?}",
        addresses(&receiver.borrow())
    );
}

#[tokio::test]
async fn static_targets_are_there_at_once() {
    let receiver = discovery()
        .follow("j", &configs("  static_configs: [{targets: [a, b]}, {targets: [c]}]\n"));
    assert_eq!(addresses(&receiver.borrow()), ["a", "b", "c"]);
    assert_eq!(receiver.borrow()[1].source, "1");
}

#[tokio::test]
async fn files_are_followed_through_every_kind_of_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
    write("a.json", r#"[{"targets": ["a:1"], "labels": {"x": "y"}}, {"targets": ["a:2"]}]"#);
    let yaml = format!(
        "  file_sd_configs: [{{files: ['{}/*.json', '{}/b.yml']}}]\n",
        dir.path().display(),
        dir.path().display()
    );
    let mut receiver = discovery().follow("j", &configs(&yaml));
    wait_for(&mut receiver, &["a:1", "a:2"]).await;
    let first = receiver.borrow()[0].clone();
    let name = path("a.json").to_string_lossy().into_owned();
    assert_eq!(
        (first.labels["__meta_filepath"].clone(), first.labels["x"].as_str()),
        (name.clone(), "y")
    );
    assert_eq!(first.source, format!("{name}:0"));
    // A new file, in YAML.
    write("b.yml", "- targets: [b:1]\n");
    wait_for(&mut receiver, &["a:1", "a:2", "b:1"]).await;
    // A broken file keeps its groups while others change.
    write("a.json", "[");
    write("b.yml", "- targets: [b:2]\n");
    wait_for(&mut receiver, &["a:1", "a:2", "b:2"]).await;
    // Replaced by rename, as editors do; a shorter list drops the tail.
    write("new", r#"[{"targets": ["a:3"]}]"#);
    std::fs::rename(path("new"), path("a.json")).expect("renamed");
    wait_for(&mut receiver, &["a:3", "b:2"]).await;
    // An unknown field is a mistake, not nothing.
    write("b.yml", "- target: [b:2]\n");
    std::fs::remove_file(path("a.json")).expect("removed");
    wait_for(&mut receiver, &["b:2"]).await;
}

#[tokio::test]
async fn equal_entries_share_a_provider_and_survive_a_reload() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("a.json"), r#"[{"targets": ["a"]}]"#).expect("written");
    let sd = format!("  file_sd_configs: [{{files: ['{}/a.json']}}]\n", dir.path().display());
    let discovery = discovery();
    let mut first = discovery.follow("j", &configs(&sd));
    wait_for(&mut first, &["a"]).await;
    // Another pool, and this one with other static targets: both know at once.
    let second =
        discovery.follow("k", &configs(&format!("{sd}  static_configs: [{{targets: [s]}}]\n")));
    assert_eq!(addresses(&second.borrow()), ["s", "a"]);
}

/// Answers each connection with the next of `answers`; all but the first wait
/// for `gate`.
async fn http_server(
    answers: Vec<String>,
    gate: std::sync::Arc<tokio::sync::Notify>,
) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/sd", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        let mut requests = Vec::new();
        for (i, answer) in answers.into_iter().enumerate() {
            if i == 1 {
                gate.notified().await;
            }
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            requests.push(String::from_utf8_lossy(&request).into_owned());
            stream.write_all(answer.as_bytes()).await.expect("written");
            stream.shutdown().await.expect("closed");
        }
        requests
    });
    (url, serving)
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_url_is_asked_and_failures_change_nothing() {
    let json = "application/json";
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let answers = vec![
        answer("200 OK", json, r#"[{"targets": ["a"], "labels": {"l": "v"}}]"#),
        answer("500 Oh", json, "[]"),
        answer("200 OK", "text/plain", "[]"),
        answer("200 OK", json, "[{}, nonsense]"),
        answer("200 OK", json, r#"[{"targets": ["b"]}]"#),
    ];
    let (url, serving) = http_server(answers, gate.clone()).await;
    let yaml = format!("  http_sd_configs: [{{url: '{url}', refresh_interval: 1s}}]\n");
    let discovery = discovery();
    let mut receiver = discovery.follow("j", &configs(&yaml));
    wait_for(&mut receiver, &["a"]).await;
    gate.notify_one();
    // Three failures between the two answers: nothing else is ever seen.
    let changed = tokio::time::timeout(DEADLINE, receiver.changed()).await;
    assert!(changed.is_ok_and(|r| r.is_ok()));
    assert_eq!(addresses(&receiver.borrow()), ["b"]);
    assert!(discovery.metrics().http_failures.get() >= 3);
    let group = receiver.borrow()[0].clone();
    assert_eq!(
        (group.source.clone(), group.labels["__meta_url"].clone()),
        (format!("{url}:0"), url)
    );
    let requests = serving.await.expect("served").join("").to_lowercase();
    assert!(requests.contains("x-prometheus-refresh-interval-seconds: 1\r"), "{requests}");
    assert!(requests.contains("accept: application/json"));
}

/// A DNS server on loopback that answers what `reply` says.
async fn dns_server(
    reply: impl Fn(u32, &str, RecordType) -> Result<Vec<RData>, ResponseCode> + Send + 'static,
) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        let mut count = 0;
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
            let mut answer = Message::new();
            answer.set_id(query.id()).set_message_type(MessageType::Response);
            answer.set_recursion_desired(true).set_recursion_available(true);
            answer.add_queries(query.queries().iter().cloned());
            let question = &query.queries()[0];
            match reply(count, &question.name().to_string(), question.query_type()) {
                Ok(records) => {
                    let record = |data| Record::from_rdata(question.name().clone(), 1, data);
                    answer.add_answers(records.into_iter().map(record));
                }
                Err(code) => {
                    answer.set_response_code(code);
                }
            }
            count += 1;
            let _ = socket.send_to(&answer.to_vec().expect("encodes"), peer).await;
        }
    });
    address
}

#[tokio::test]
async fn names_become_targets_and_only_an_authoritative_no_clears_them() {
    let stage = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let at = stage.clone();
    let server = dns_server(move |_, name, kind| {
        let name_of = |text: &str| Name::from_ascii(text).expect("a name");
        match (name, kind, at.load(std::sync::atomic::Ordering::Relaxed)) {
            (_, _, 1) => Err(ResponseCode::ServFail),
            (_, _, 2) => Err(ResponseCode::NXDomain),
            ("_m._tcp.test.", RecordType::SRV, _) => Ok(vec![
                RData::SRV(SRV::new(0, 0, 9100, name_of("h1.test."))),
                RData::SRV(SRV::new(0, 0, 9101, name_of("h2.test."))),
            ]),
            ("a.test.", RecordType::A, _) => Ok(vec![
                RData::CNAME(CNAME(name_of("a.test."))),
                RData::A(A(Ipv4Addr::new(192, 0, 2, 1))),
            ]),
            _ => Err(ResponseCode::NXDomain),
        }
    })
    .await;
    let registry = Registry::default();
    let discovery = Discovery::with_dns_server(&registry, CancellationToken::new(), Some(server));
    let sd = "  dns_sd_configs:\n  - {names: [_m._tcp.test.], refresh_interval: 50ms}\n  - {names: [a.test.], type: A, port: 80, refresh_interval: 50ms}\n";
    let mut receiver = discovery.follow("j", &configs(sd));
    wait_for(&mut receiver, &["h1.test:9100", "h2.test:9101", "192.0.2.1:80"]).await;
    let first = receiver.borrow()[0].targets[0].clone();
    assert_eq!(first["__meta_dns_name"], "_m._tcp.test.");
    assert_eq!(first["__meta_dns_srv_record_target"], "h1.test.");
    assert_eq!(first["__meta_dns_srv_record_port"], "9100");
    // Servers that fail leave everything as it is.
    stage.store(1, std::sync::atomic::Ordering::Relaxed);
    let failures = &discovery.metrics().dns_lookup_failures;
    let waiting = async {
        while failures.get() < 4 {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "no failure was counted");
    assert_eq!(addresses(&receiver.borrow()).len(), 3);
    stage.store(2, std::sync::atomic::Ordering::Relaxed);
    wait_for(&mut receiver, &[]).await;
    assert!(
        registry
            .expose()
            .contains("prometheus_sd_discovered_targets{name=\"scrape\",config=\"j\"} 0")
    );
}
