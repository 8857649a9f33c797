//! The calls that Grafana's Prometheus data source makes.

mod common;

use common::remote_write::{Series, body, send};
use common::{Server, encode, request};
use serde_json::{Value, json};

const T0_MS: i64 = 1_767_261_600_000;

/// A server with an hour of two counters and two gauges, 15 s apart.
fn server(directory: &std::path::Path) -> Server {
    let flags = [
        "--config.file=prometheus.yml",
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.retention.time=100y",
    ];
    let server = Server::start(directory, Some("global: {}\n"), &flags);
    let series = [
        ("node_cpu_seconds_total", "a:9100", 0.5),
        ("node_cpu_seconds_total", "b:9100", 0.25),
        ("node_load1", "a:9100", 0.0),
        ("up", "a:9100", 0.0),
    ]
    .map(|(name, instance, rate)| {
        let samples: Vec<(i64, f64)> = (0..=240)
            .map(|i| (T0_MS + i * 15_000, if rate > 0.0 { i as f64 * 15.0 * rate } else { 1.0 }))
            .collect();
        ([("__name__", name), ("instance", instance), ("job", "node")], samples)
    });
    let series: Vec<_> =
        series.iter().map(|(labels, samples)| Series { labels, samples }).collect();
    let answer = send(server.address, &body(&series)).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    server
}

fn data(server: &Server, path: &str) -> Value {
    let answer = server.get(path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let envelope = answer.json();
    assert_eq!(envelope["status"], "success");
    envelope["data"].clone()
}

#[test]
fn save_and_test_finds_a_healthy_prometheus() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let answer = server.post_form("/api/v1/query", "query=1%2B1&time=4");
    assert_eq!(
        answer.text(),
        r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#
    );
    let build = data(&server, "/api/v1/status/buildinfo");
    for (name, value) in build.as_object().expect("an object") {
        assert!(value.is_string(), "{name} is no string");
    }
    assert!(build.get("features").is_none() && build.get("application").is_none());
    let major: u32 = build["version"]
        .as_str()
        .and_then(|v| v.split('.').next()?.parse().ok())
        .expect("a version");
    assert!(major >= 3);
    assert_eq!(server.get("/api/v1/search/metric_names").expect("an answer").status, 404);
    assert_eq!(data(&server, "/api/v1/rules"), json!({"groups": []}));
    assert_eq!(data(&server, "/api/v1/alerts"), json!({"alerts": []}));
}

#[test]
fn a_dashboard_loads() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let (start, end) = (T0_MS / 1000, T0_MS / 1000 + 3600);
    let window = format!("start={start}&end={end}&limit=40000");

    // The exemplar probe asks in milliseconds.
    let probe = format!("query=test&start={T0_MS}&end={}", T0_MS + 3_600_000);
    let answer = server.post_form("/api/v1/query_exemplars", &probe);
    assert_eq!(answer.text(), r#"{"status":"success","data":[]}"#);

    // Template variables.
    let names = data(&server, &format!("/api/v1/label/__name__/values?{window}"));
    assert_eq!(names, json!(["node_cpu_seconds_total", "node_load1", "up"]));
    let selector = encode(r#"node_cpu_seconds_total{job="node"}"#);
    let instances =
        data(&server, &format!("/api/v1/label/instance/values?{window}&match[]={selector}"));
    assert_eq!(instances, json!(["a:9100", "b:9100"]));
    assert_eq!(data(&server, &format!("/api/v1/label/nothing/values?{window}")), json!([]));
    let labels =
        server.post_form("/api/v1/labels", &format!("{window}&match[]=up&match[]=node_load1"));
    assert_eq!(labels.json()["data"], json!(["__name__", "instance", "job"]));
    let cut = server.get("/api/v1/label/__name__/values?limit=2").expect("an answer").json();
    assert_eq!(cut["warnings"], json!(["results truncated due to limit"]));
    assert_eq!(cut["data"].as_array().map(Vec::len), Some(2));
    let series = server.post_form("/api/v1/series", &format!("match[]=up&{window}"));
    assert_eq!(
        series.json()["data"],
        json!([{"__name__": "up", "instance": "a:9100", "job": "node"}])
    );
    assert_eq!(data(&server, "/api/v1/metadata?limit=40000"), json!({}));

    // A panel: form and URL together, a range on the grid of its start.
    let query = "sum by (instance) (\n  rate(node_cpu_seconds_total{instance=~\"(a|b):9100\"}[1m0s]) # both\n)";
    let form = format!("query={}&start={start}&end={end}&step=60", encode(query));
    let answer =
        server.post_form("/api/v1/query_range?dedup=true&max_source_resolution=1", &form).json();
    assert_eq!(answer["data"]["resultType"], "matrix");
    let result = answer["data"]["result"].as_array().expect("a list");
    assert_eq!(result.len(), 2);
    assert_eq!(result[0]["metric"], json!({"instance": "a:9100"}));
    let values = result[0]["values"].as_array().expect("values");
    let last = values.last().expect("values");
    let rate: f64 = last[1].as_str().and_then(|v| v.parse().ok()).expect("a number in a text");
    assert!(last[0] == json!(end) && (rate - 0.5).abs() < 1e-12, "{last}");
    for value in values {
        let offset = value[0].as_i64().expect("whole seconds") - start;
        assert_eq!(offset % 60, 0);
    }

    // A table: an instant query, whose samples carry the evaluation time.
    let instant = server.query("topk(1, node_cpu_seconds_total)", Some(end as f64));
    assert_eq!(instant.len(), 1);
    assert_eq!(instant[0]["value"], json!([end, "1800"]));
}

#[test]
fn errors_are_those_of_prometheus() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let cases = [
        (
            "/api/v1/query?query=up%20up",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:4: parse error: unexpected identifier \"up\""}"#,
        ),
        (
            "/api/v1/query_range?query=1&start=0&end=11001&step=1",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}"#,
        ),
        (
            "/api/v1/query_range?query=1&start=10&end=0&step=1",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"end\": end timestamp must not be before start time"}"#,
        ),
        (
            "/api/v1/query_range?query=1&start=0&end=10&step=0",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"}"#,
        ),
        (
            "/api/v1/query?query=1&time=noon",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"time\": cannot parse \"noon\" to a valid timestamp"}"#,
        ),
        (
            "/api/v1/series",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}"#,
        ),
        (
            "/api/v1/series?match[]={}",
            400,
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"}"#,
        ),
    ];
    for (path, status, text) in cases {
        let answer = server.get(path).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
    }
    let answer =
        server.get("/api/v1/query_range?query=1&start=0&end=11000&step=1").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"]["result"][0]["values"].as_array().map(Vec::len), Some(11_001));
    let bad_regex = format!("/api/v1/series?match[]={}", encode(r#"{a=~"("}"#));
    assert_eq!(server.get(&bad_regex).expect("an answer").status, 400);
}

#[test]
fn other_pages_may_ask_and_compression_is_offered() {
    let directory = tempfile::tempdir().expect("a folder");
    let server = server(directory.path());
    let origin = [("Origin", "http://elsewhere.example")];
    let answer =
        request(server.address, "OPTIONS", "/api/v1/query", &origin, &[]).expect("an answer");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://elsewhere.example"));
    let gzip = [("Accept-Encoding", "gzip, deflate, br, zstd")];
    let path = format!(
        "/api/v1/query?query={}&time={}",
        encode("node_cpu_seconds_total[1h]"),
        T0_MS / 1000 + 3600
    );
    let answer = request(server.address, "GET", &path, &gzip, &[]).expect("an answer");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let plain = server.get(&path).expect("an answer");
    assert_eq!(plain.header("content-encoding"), None);
}
