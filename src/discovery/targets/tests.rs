use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::config::{self, GlobalConfig, KubernetesSdConfig};
use crate::discovery::kubernetes::{Attach, cache::Cache, groups};

fn pool(yaml: &str) -> (ScrapeConfig, Rules) {
    let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
    let config = config::parse(&text, Path::new(""), "test", &GlobalConfig::default());
    let scrape = config.expect("valid").scrape_configs.remove(0);
    let rules = Rules::compile(&scrape.relabel_configs).expect("valid rules");
    (scrape, rules)
}

fn group(labels: &[(&str, &str)], targets: &[&[(&str, &str)]]) -> Arc<TargetGroup> {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    };
    let targets = targets.iter().map(|t| map(t)).collect();
    Arc::new(TargetGroup { source: "0".into(), labels: map(labels), targets })
}

#[test]
fn defaults_fill_what_discovery_left_empty() {
    let (config, rules) = pool("  params: {m: [a, b]}\n");
    let group = group(
        &[("site", "n"), ("env", "prod"), ("__meta_x", "y")],
        &[&[("__address__", "h:1"), ("env", "")]],
    );
    let built = build(&config, &rules, &[group]);
    let (target, discovered) = (&built.active[0].spec, built.active[0].discovered.labels(&config));
    assert_eq!(target.public_labels().to_string(), r#"{instance="h:1", job="j", site="n"}"#);
    assert_eq!(target.url, "http://h:1/metrics?m=a&m=b");
    assert_eq!(discovered.get("__scrape_interval__"), Some("1m"));
    assert_eq!(discovered.get("__param_m"), Some("a"));
    assert_eq!(discovered.get("__meta_x"), Some("y"));
    assert_eq!(target.labels.get("__meta_x"), None);
    assert_eq!(
        (target.interval, target.timeout),
        (Duration::from_secs(60), Duration::from_secs(10))
    );
}

#[test]
fn what_cannot_be_scraped_is_an_error_and_harms_no_other() {
    let (config, rules) = pool("");
    let bad: [&[(&str, &str)]; 6] = [
        &[("a", "b")],
        &[("__address__", "http://h")],
        &[("__address__", "h"), ("__scrape_interval__", "5")],
        &[("__address__", "h"), ("__scrape_interval__", "0s")],
        &[("__address__", "h"), ("__scrape_timeout__", "2m")],
        &[("__address__", "h"), ("__scrape_native_histograms__", "yes")],
    ];
    let mut targets = bad.to_vec();
    targets.push(&[("__address__", "h")]);
    let built = build(&config, &rules, &[group(&[], &targets)]);
    assert_eq!((built.active.len(), built.dropped.len(), built.errors.len()), (1, 0, 6));
    assert_eq!(built.errors[5].index, 5);
}

#[test]
fn equal_targets_are_one_and_the_last_seen_says_where_it_comes_from() {
    let (config, rules) = pool("");
    let of = |meta| group(&[("__meta_n", meta)], &[&[("__address__", "h:1")]]);
    let built = build(&config, &rules, &[of("1"), of("2")]);
    assert_eq!(built.active.len(), 1);
    assert_eq!(built.active[0].discovered.labels(&config).get("__meta_n"), Some("2"));
}

#[test]
fn dropped_targets_are_counted_but_not_all_remembered() {
    let (config, rules) = pool(
        "  keep_dropped_targets: 1\n  relabel_configs: [{source_labels: [__address__], regex: a.*, action: drop}]\n",
    );
    let targets: [&[(&str, &str)]; 3] =
        [&[("__address__", "a1")], &[("__address__", "a2")], &[("__address__", "b")]];
    let built = build(&config, &rules, &[group(&[], &targets)]);
    assert_eq!((built.active.len(), built.dropped.len(), built.dropped_count), (1, 1, 2));
}

#[test]
fn a_group_that_stays_is_not_built_again_and_one_that_goes_is_forgotten() {
    let (config, rules) = pool("");
    let of = |address| group(&[], &[&[("__address__", address)]]);
    let (a, b) = (of("a"), of("b"));
    let mut builder = Builder::default();
    let first = builder.build(&config, &rules, &[Arc::clone(&a), b]);
    let second = builder.build(&config, &rules, &[of("c"), Arc::clone(&a)]);
    assert!(Arc::ptr_eq(&first.active[0].spec, &second.active[1].spec));
    assert_eq!(second, build(&config, &rules, &[of("c"), a]));
    assert_eq!(builder.known.len(), 2);
}

/// Whether the API server would hand out the object for these selectors.
fn is_selected(object: &Value, config: &KubernetesSdConfig) -> bool {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let namespace = object["metadata"]["namespace"].as_str();
    let wanted = |n: &str| config.namespaces.is_empty() || config.namespaces.iter().any(|w| w == n);
    if namespace.is_some_and(|n| !wanted(n)) {
        return false;
    }
    config.selectors.iter().filter(|s| s.role.as_str() == kind).all(|selector| {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        // Commas within parentheses have a space behind them in the recorded cases.
        let terms = selector.label.replace(", ", "|");
        let labels = terms.split(',').filter(|t| !t.is_empty()).all(|term| {
            if let Some((key, value)) = term.split_once("!=") {
                label(key) != Some(value)
            } else if let Some((key, values)) = term.split_once(" in ") {
                let values = values.trim_matches(['(', ')']).split('|');
                values.clone().any(|v| label(key) == Some(v))
            } else if let Some((key, value)) = term.split_once('=') {
                label(key) == Some(value)
            } else if let Some(key) = term.strip_prefix('!') {
                label(key).is_none()
            } else {
                label(term).is_some()
            }
        });
        let fields = selector.field.split(',').filter(|t| !t.is_empty()).all(|term| {
            let equal = |path: &str, value: &str| {
                let pointer = format!("/{}", path.replace('.', "/"));
                object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default() == value
            };
            match term.split_once("!=") {
                Some((path, value)) => !equal(path, value),
                None => term.split_once('=').is_some_and(|(path, value)| equal(path, value)),
            }
        });
        labels && fields
    })
}

fn discovered(objects: &[Value], config: &ScrapeConfig) -> Vec<Arc<TargetGroup>> {
    let mut all: Vec<Arc<TargetGroup>> = config
        .discovery
        .static_configs
        .iter()
        .enumerate()
        .map(|(i, c)| Arc::new(crate::discovery::static_group(i, c)))
        .collect();
    for sd in &config.discovery.kubernetes {
        let mut cache = Cache::default();
        for object in objects.iter().filter(|o| is_selected(o, sd)) {
            crate::discovery::kubernetes::tests::load(&mut cache, object);
        }
        all.extend(groups(sd.role, &cache, Attach::from(sd)));
    }
    all
}

fn is_recorded(name: &str) -> bool {
    !name.starts_with("__meta_kubernetes_node_condition_")
        && ![CONVERT, ALWAYS_CLASSIC, NATIVE].contains(&name)
}

fn map(labels: &Labels) -> BTreeMap<String, String> {
    let kept = labels.iter().filter(|(n, _)| is_recorded(n));
    kept.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// All recorded cases: the same active and dropped targets as the real one.
#[test]
fn recorded_cases_give_the_recorded_targets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["..", "../.."].map(|up| root.join(up).join("shared/kubernetes/golden"));
    let Some(cases) = found.iter().find_map(|golden| std::fs::read_dir(golden).ok()) else {
        println!("skipped: the recorded cases are not at hand");
        return;
    };
    let mut compared = 0;
    for case in cases.flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
        let read = |file: &str| std::fs::read_to_string(case.join(file)).expect("recorded");
        let json = |file: &str| -> Value { serde_json::from_str(&read(file)).expect("JSON") };
        let yaml = read("prometheus.yml").replace("${API_SERVER}", "http://127.0.0.1:1");
        let config = config::parse(&yaml, &case, "prometheus.yml", &GlobalConfig::default())
            .unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        let objects = json("objects.json")["items"].as_array().cloned().unwrap_or_default();
        let (mut active, mut dropped, mut failing) = (Vec::new(), Vec::new(), 0);
        for scrape in &config.scrape_configs {
            let rules = Rules::compile(&scrape.relabel_configs).expect("valid rules");
            let built = build(scrape, &rules, &discovered(&objects, scrape));
            failing += usize::from(!built.errors.is_empty());
            active.extend(built.active.iter().map(|found| {
                let t = &found.spec;
                serde_json::json!({
                    "discoveredLabels": map(&found.discovered.labels(scrape)),
                    "labels": map(&t.public_labels()),
                    "scrapePool": scrape.job_name,
                    "scrapeUrl": t.url,
                    "scrapeInterval": format_duration(t.interval),
                    "scrapeTimeout": format_duration(t.timeout),
                })
                .to_string()
            }));
            dropped.extend(built.dropped.iter().map(|found| {
                serde_json::json!({
                    "discoveredLabels": map(&found.labels(scrape)), "scrapePool": scrape.job_name
                })
                .to_string()
            }));
        }
        let expected = json("targets.json");
        let recorded = |list: &str, fields: &[&str]| -> Vec<String> {
            let target = |t: &Value| {
                let mut out = serde_json::Map::new();
                for field in fields {
                    let mut value = t[*field].clone();
                    if let Some(labels) = value.as_object_mut() {
                        labels.retain(|n, v| is_recorded(n) && v != "");
                        labels.sort_keys();
                    }
                    out.insert((*field).to_owned(), value);
                }
                Value::Object(out).to_string()
            };
            let mut all: Vec<String> =
                expected[list].as_array().into_iter().flatten().map(target).collect();
            all.sort();
            all
        };
        active.sort();
        dropped.sort();
        let name = case.display();
        let fields = [
            "discoveredLabels",
            "labels",
            "scrapePool",
            "scrapeUrl",
            "scrapeInterval",
            "scrapeTimeout",
        ];
        assert_eq!(active, recorded("activeTargets", &fields), "{name}: active");
        let dropped_fields = ["discoveredLabels", "scrapePool"];
        assert_eq!(dropped, recorded("droppedTargets", &dropped_fields), "{name}: dropped");
        let failures = expected["scrapePoolsWithSyncFailures"].as_array().map_or(0, Vec::len);
        assert_eq!(failing, failures, "{name}: pools with failures");
        compared += 1;
    }
    println!("{compared} recorded cases compared");
}
