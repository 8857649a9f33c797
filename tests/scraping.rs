//! What a configuration says about scraping, seen from outside: the real
//! binary, real servers, files that change.

mod common;
#[path = "scraping/secured.rs"]
mod secured;

use common::{Server, encode, free_port, wait_for};
use secured::Authority;
use serde_json::{Value, json};

/// Waits until a query has a result.
fn until(server: &Server, query: &str) {
    wait_for(query, || (!server.query(query, None).is_empty()).then_some(()));
}

fn data(server: &Server, path: &str) -> Value {
    let answer = server.get(path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["data"].clone()
}

#[test]
fn credentials_and_certificates_are_rotated_in_place() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let target = secured::serve(&servers, "metrics.example", &clients);
    let proxy = secured::proxy();
    let directory = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        // As tools do it: the new file takes the place of the old one at once.
        let new = directory.path().join(format!("{name}.new"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, directory.path().join(name)).expect("a file");
    };
    let issue = |authority: &Authority| {
        let (certificate, key) = authority.issue("client");
        write("client.pem", &certificate);
        write("client.key", &key);
    };
    write("ca.pem", &servers.pem());
    write("token", "first-token\n");
    issue(&clients);
    let configuration = format!(
        "global: {{scrape_interval: 250ms}}
scrape_configs:
- job_name: secured
  scheme: https
  authorization: {{credentials_file: token}}
  tls_config: {{ca_file: ca.pem, cert_file: client.pem, key_file: client.key, server_name: metrics.example}}
  static_configs: [{{targets: ['{target}']}}]
- job_name: other_name
  scheme: https
  tls_config: {{ca_file: ca.pem, cert_file: client.pem, key_file: client.key}}
  static_configs: [{{targets: ['{target}']}}]
- job_name: proxied
  proxy_url: http://{proxy}
  basic_auth: {{username: me, password: inline-secret}}
  static_configs: [{{targets: ['outside.example:99']}}]
"
    );
    let server = Server::start(directory.path(), Some(&configuration), &[]);
    let seen = |token: &str| format!("seen{{job=\"secured\",authorization=\"Bearer {token}\"}}");
    until(&server, &seen("first-token"));
    write("token", "second-token\n");
    until(&server, &seen("second-token"));
    // A certificate of another authority is not let in, a new good one is.
    issue(&strangers);
    until(&server, "up{job=\"secured\"} == 0");
    issue(&clients);
    until(&server, "up{job=\"secured\"} == 1");
    // The server's name is verified.
    until(&server, "up{job=\"other_name\"} == 0");
    // The proxy gets the whole URL, and what is meant for the target.
    let through = "seen{job=\"proxied\",target=\"http://outside.example:99/metrics\",authorization=\"Basic bWU6aW5saW5lLXNlY3JldA==\"}";
    until(&server, through);

    let shown = data(&server, "/api/v1/status/config")["yaml"].to_string();
    let states = data(&server, "/api/v1/targets").to_string();
    for secret in ["inline-secret", "first-token", "second-token", "bWU6aW5saW5l"] {
        for (place, text) in [("configuration", &shown), ("targets", &states)] {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
        assert!(!server.log().contains(secret), "{secret} in the log");
    }
    assert!(shown.contains("<secret>"), "{shown}");
}

#[test]
fn jobs_in_files_of_their_own_are_shown_step_by_step() {
    let directory = tempfile::tempdir().expect("a folder");
    let closed = free_port();
    std::fs::create_dir(directory.path().join("jobs")).expect("a folder");
    let add = |name: &str, text: &str| {
        std::fs::write(directory.path().join("jobs").join(name), text).expect("a file");
    };
    add(
        "one.yml",
        &format!(
            "scrape_configs:
- job_name: one
  keep_dropped_targets: 1
  scrape_failure_log_file: failures.log
  static_configs: [{{targets: ['127.0.0.1:{closed}', 'a:1', 'b:1'], labels: {{team: Red}}}}]
  relabel_configs:
  - {{source_labels: [team], target_label: team, action: lowercase}}
  - {{source_labels: [__address__], regex: '[ab]:1', action: drop}}
"
        ),
    );
    let configuration = "global: {scrape_interval: 250ms}\nscrape_config_files: [jobs/*.yml]\n";
    let server = Server::start(directory.path(), Some(configuration), &["--web.enable-lifecycle"]);
    until(&server, "up{job=\"one\",team=\"red\"} == 0");

    let targets = data(&server, "/api/v1/targets");
    assert_eq!(targets["droppedTargets"].as_array().map(Vec::len), Some(1), "{targets}");
    assert_eq!(targets["droppedTargetCounts"], json!({"one": 2}));
    let discovered = targets["droppedTargets"][0]["discoveredLabels"].to_string();
    let path =
        format!("/api/v1/targets/relabel_steps?scrapePool=one&labels={}", encode(&discovered));
    let steps = data(&server, &path)["steps"].clone();
    assert_eq!(steps[0]["rule"]["action"], "lowercase");
    assert_eq!((&steps[0]["output"]["team"], &steps[0]["keep"]), (&json!("red"), &json!(true)));
    assert_eq!((&steps[1]["output"], &steps[1]["keep"]), (&json!({}), &json!(false)));

    // A path is relative to the file that it stands in.
    let log = wait_for("the log of failures", || {
        std::fs::read_to_string(directory.path().join("jobs/failures.log"))
            .ok()
            .filter(|t| t.ends_with('\n'))
    });
    let first: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["job_name"], "one");
    assert!(first["msg"].as_str().is_some_and(|m| m.contains("connection refused")), "{first}");

    // A file that is added is read with the next reload, a bad one is refused whole.
    add(
        "two.yml",
        &format!(
            "scrape_configs: [{{job_name: two, static_configs: [{{targets: ['127.0.0.1:{closed}']}}]}}]\n"
        ),
    );
    assert_eq!(server.post_form("/-/reload", "").status, 200);
    until(&server, "up{job=\"two\"} == 0");
    add("three.yml", "scrape_configs: [{job_name: two}]\n");
    assert_eq!(server.post_form("/-/reload", "").status, 500);
    let pools = data(&server, "/api/v1/scrape_pools");
    assert_eq!(pools["scrapePools"], json!(["one", "two"]));
}
