//! Discoveries against an API server of ours on loopback: sharing, narrowing,
//! groups that stay the same, credentials that are rotated.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cluster::Clusters;
use super::connect::in_cluster;
use super::fake::{FakeApi, Fault};
use super::provider::start;
use super::watch::WatchMetrics;
use crate::client::testing::Authority;
use crate::config::{HttpClientConfig, KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroups;

const DEADLINE: Duration = Duration::from_secs(30);

fn config(role: KubernetesRole, url: String) -> KubernetesSdConfig {
    KubernetesSdConfig {
        role,
        api_server: Some(url),
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
        shares_watches: false,
    }
}

fn pod(ip: &str) -> Value {
    json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
        "ports": [{"containerPort": 80}]}]}, "status": {"podIP": ip, "phase": "Running"}})
}

/// A slice of a service `web` with these pods behind it.
fn slice(pods: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(name, ip)| {
            json!({"addresses": [ip], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": name}})
        })
        .collect();
    json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]})
}

type Groups = watch::Receiver<Option<TargetGroups>>;

fn addresses(groups: &Option<TargetGroups>) -> Vec<String> {
    let groups = groups.iter().flat_map(|g| g.iter());
    groups.flat_map(|g| &g.targets).map(|t| t["__address__"].clone()).collect()
}

async fn until(groups: &mut Groups, wanted: &[&str]) {
    let reached = groups.wait_for(|groups| addresses(groups) == wanted);
    let reached = tokio::time::timeout(DEADLINE, reached).await.is_ok();
    assert!(reached, "wanted {wanted:?}, have {:?}", addresses(&groups.borrow()));
}

async fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    let waiting = async {
        while !check() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "waited for {what}");
}

/// Discoveries that end with this.
struct Following {
    clusters: Clusters,
    metrics: WatchMetrics,
    cancel: CancellationToken,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Following {
    fn new() -> Self {
        Self {
            clusters: Clusters::default(),
            metrics: WatchMetrics::unregistered(),
            cancel: CancellationToken::new(),
        }
    }

    fn start(&self, config: KubernetesSdConfig) -> Groups {
        start(config, &self.clusters, self.metrics.clone(), self.cancel.child_token())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_change_and_go() {
    let fake = FakeApi::new();
    for (name, ip) in [("a", "127.0.1.1"), ("b", "127.0.1.2"), ("c", "127.0.1.3")] {
        fake.put("pods", "shop", name, pod(ip));
    }
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut first = following.start(config(KubernetesRole::Pod, url.clone()));
    let mut second = following.start(config(KubernetesRole::Pod, url));
    until(&mut first, &["127.0.1.1:80", "127.0.1.2:80", "127.0.1.3:80"]).await;
    fake.put("pods", "shop", "d", pod("127.0.1.4"));
    fake.put("pods", "shop", "a", pod("127.0.1.9"));
    fake.delete("pods", "shop", "b");
    let changed = ["127.0.1.9:80", "127.0.1.3:80", "127.0.1.4:80"];
    until(&mut first, &changed).await;
    until(&mut second, &changed).await;
    assert_eq!(fake.count(&["watch=true", "resourceVersion="]), 1, "they share one watch");
    assert_eq!(following.metrics.events.with(&["pod", "add"]).get(), 1);
    assert_eq!(following.metrics.events.with(&["pod", "update"]).get(), 1);
    assert_eq!(following.metrics.events.with(&["pod", "delete"]).get(), 1);
    // Nobody follows any more: the watch ends.
    drop((first, second, following));
    until_true("the end of the watch", || {
        fake.send_bookmarks();
        fake.open_watches() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_monitors_in_a_hundred_namespaces_share_three_watches() {
    let fake = FakeApi::new();
    for i in 0..100 {
        let (namespace, ip) = (format!("n{i}"), format!("127.0.2.{i}"));
        fake.put("pods", &namespace, "web-1", pod(&ip));
        fake.put("services", &namespace, "web", json!({}));
        fake.put("endpointslices", &namespace, "web-x", slice(&[("web-1", &ip)]));
    }
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut all: Vec<Groups> = (0..100)
        .map(|i| {
            let mut config = config(KubernetesRole::EndpointSlice, url.clone());
            config.namespaces = vec![format!("n{i}")];
            config.shares_watches = true;
            following.start(config)
        })
        .collect();
    for (i, groups) in all.iter_mut().enumerate() {
        until(groups, &[&format!("127.0.2.{i}:80")]).await;
    }
    // What was listed is shown before its watch is open.
    until_true("three watches", || fake.open_watches() == 3).await;
    assert_eq!(fake.count(&["watch=true", "resourceVersion="]), 3);
    assert_eq!(fake.count(&["limit=500"]), 3);
    assert_eq!(following.metrics.watches.get(), 3.0);
    // A change in one namespace changes the groups of that one.
    let version = all[6].borrow_and_update().clone();
    fake.put(
        "endpointslices",
        "n5",
        "web-x",
        slice(&[("web-1", "127.0.2.5"), ("w", "127.0.2.250")]),
    );
    until(&mut all[5], &["127.0.2.5:80", "127.0.2.250:80"]).await;
    let same = all[6].borrow().clone();
    assert!(Arc::ptr_eq(&version.expect("there"), &same.expect("there")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_that_each_namespace_is_asked_for_alone() {
    let fake = FakeApi::new();
    for namespace in ["one", "two", "three"] {
        fake.put("pods", namespace, "a", pod("127.0.3.1"));
    }
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut config = config(KubernetesRole::Pod, url);
    config.namespaces = vec!["one".to_owned(), "two".to_owned()];
    let mut groups = following.start(config);
    until(&mut groups, &["127.0.3.1:80", "127.0.3.1:80"]).await;
    assert_eq!(fake.count(&["/namespaces/one/pods", "limit=500"]), 1);
    assert_eq!(fake.count(&["/api/v1/pods"]), 0, "rights in the namespaces are enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_made_again_only_if_what_it_was_made_from_differs() {
    let fake = FakeApi::new();
    let (a, b) = ([("a", "127.0.4.1")], [("b", "127.0.4.2")]);
    fake.put("pods", "shop", "a", pod("127.0.4.1"));
    fake.put("pods", "shop", "b", pod("127.0.4.2"));
    fake.put("endpointslices", "shop", "x", slice(&a));
    fake.put("endpointslices", "shop", "y", slice(&b));
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut groups = following.start(config(KubernetesRole::EndpointSlice, url));
    until(&mut groups, &["127.0.4.1:80", "127.0.4.2:80"]).await;
    let before = groups.borrow_and_update().clone().expect("there");
    // The pod behind the second slice changes, then its service appears.
    let mut other = pod("127.0.4.2");
    other["metadata"]["labels"]["version"] = json!("2");
    fake.put("pods", "shop", "b", other);
    let label = |groups: &Option<TargetGroups>, name: &str| -> Option<String> {
        groups.as_ref()?.get(1)?.targets.first()?.get(name).cloned()
    };
    let version = "__meta_kubernetes_pod_label_version";
    let reached = groups.wait_for(|g| label(g, version).as_deref() == Some("2"));
    tokio::time::timeout(DEADLINE, reached).await.expect("in time").expect("here");
    let after = groups.borrow_and_update().clone().expect("there");
    assert!(Arc::ptr_eq(&before[0], &after[0]) && !Arc::ptr_eq(&before[1], &after[1]));
    fake.put("services", "shop", "web", json!({}));
    let service = "__meta_kubernetes_service_name";
    let reached = groups
        .wait_for(|g| g.iter().flat_map(|g| g.iter()).all(|g| g.labels.contains_key(service)));
    tokio::time::timeout(DEADLINE, reached).await.expect("in time").expect("here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_before_the_slowest_list_is_complete() {
    let fake = FakeApi::new();
    fake.put("pods", "shop", "a", pod("127.0.8.1"));
    fake.put("services", "shop", "web", json!({}));
    fake.put("endpointslices", "shop", "x", slice(&[("a", "127.0.8.1")]));
    fake.fault("/services", Fault::Delay(Duration::from_millis(200)), 2);
    fake.fault("/pods", Fault::Status(500), 2);
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut groups = following.start(config(KubernetesRole::EndpointSlice, url));
    tokio::time::timeout(DEADLINE, groups.changed()).await.expect("in time").expect("here");
    let first = groups.borrow().clone().expect("there");
    assert!(first[0].labels.contains_key("__meta_kubernetes_service_name"));
    assert!(first[0].targets[0].contains_key("__meta_kubernetes_pod_name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_its_address_stays_as_it_was() {
    let fake = FakeApi::new();
    let node = |addresses: Value| {
        json!({"status": {"addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}})
    };
    let with = json!([{"type": "InternalIP", "address": "127.0.5.1"}]);
    fake.put("nodes", "", "n1", node(with));
    let url = format!("http://{}", fake.serve().await);
    let following = Following::new();
    let mut groups = following.start(config(KubernetesRole::Node, url));
    until(&mut groups, &["127.0.5.1:10250"]).await;
    fake.put("nodes", "", "n1", node(json!([])));
    fake.put("nodes", "", "n2", node(json!([{"type": "Hostname", "address": "n2"}])));
    until(&mut groups, &["127.0.5.1:10250", "n2:10250"]).await;
    fake.delete("nodes", "", "n1");
    until(&mut groups, &["n2:10250"]).await;
}

/// What a pod finds in its file system.
struct Account(tempfile::TempDir);

impl Account {
    fn new(authority: &Authority, token: &str) -> Self {
        let account = Self(tempfile::tempdir().expect("a folder"));
        account.write("ca.crt", &authority.pem());
        account.write("token", token);
        account
    }

    /// Replaces a file as the kubelet does: at once, by another file.
    fn write(&self, name: &str, text: &str) {
        let (new, file) = (self.0.path().join(format!(".{name}")), self.0.path().join(name));
        std::fs::write(&new, text).expect("writes");
        std::fs::rename(new, file).expect("renames");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_token_and_authority_are_picked_up_over_tls() {
    crate::client::install_provider();
    let (old, new) = (Authority::new(), Authority::new());
    let tls = Arc::new(Mutex::new(Arc::new(old.server("127.0.0.1", None, false))));
    let fake = FakeApi::new();
    fake.set_token("first");
    fake.put("pods", "shop", "a", pod("127.0.6.1"));
    let address = fake.serve_tls(Arc::clone(&tls)).await;
    let account = Account::new(&old, "first\n");
    let variable = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("127.0.0.1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some(address.port().to_string()),
        _ => None,
    };
    let (url, http) = in_cluster(variable, account.path()).expect("in a cluster");
    let following = Following::new();
    let mut in_cluster = config(KubernetesRole::Pod, url);
    in_cluster.http = http;
    let mut groups = following.start(in_cluster);
    until(&mut groups, &["127.0.6.1:80"]).await;

    // The token is rotated: the old one is refused from now on.
    fake.set_token("second");
    fake.end_watches(false);
    fake.put("pods", "shop", "b", pod("127.0.6.2"));
    until_true("a refusal", || following.metrics.failures.get() >= 2).await;
    assert_eq!(addresses(&groups.borrow()), ["127.0.6.1:80"], "what is known stays");
    account.write("token", "second");
    until(&mut groups, &["127.0.6.1:80", "127.0.6.2:80"]).await;

    // The server gets a certificate of another authority.
    let failures = following.metrics.failures.get();
    *tls.lock().expect("not poisoned") = Arc::new(new.server("127.0.0.1", None, false));
    fake.end_watches(false);
    fake.put("pods", "shop", "c", pod("127.0.6.3"));
    account.write("ca.crt", &format!("{}{}", old.pem(), new.pem()));
    until(&mut groups, &["127.0.6.1:80", "127.0.6.2:80", "127.0.6.3:80"]).await;
    println!(
        "{} failures until the authority was known",
        following.metrics.failures.get() - failures
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_with_inline_certificates_is_read_again_when_it_changes() {
    use base64::Engine as _;
    crate::client::install_provider();
    let (old, new) = (Authority::new(), Authority::new());
    let tls = Arc::new(Mutex::new(Arc::new(old.server("127.0.0.1", None, false))));
    let fake = FakeApi::new();
    fake.set_token("t");
    fake.put("pods", "shop", "a", pod("127.0.7.1"));
    let address = fake.serve_tls(Arc::clone(&tls)).await;
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("kubeconfig");
    let write = |authority: &Authority| {
        let data = base64::engine::general_purpose::STANDARD.encode(authority.pem());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: k\n\
             clusters: [{{name: k, cluster: {{server: 'https://{address}', certificate-authority-data: {data}}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\n\
             contexts: [{{name: k, context: {{cluster: k, user: u}}}}]\n"
        );
        std::fs::write(&file, text).expect("writes");
    };
    write(&old);
    let following = Following::new();
    let mut by_file = config(KubernetesRole::Pod, String::new());
    by_file.api_server = None;
    by_file.kubeconfig_file = Some(file.clone());
    let mut groups = following.start(by_file);
    until(&mut groups, &["127.0.7.1:80"]).await;
    *tls.lock().expect("not poisoned") = Arc::new(new.server("127.0.0.1", None, false));
    fake.end_watches(false);
    fake.put("pods", "shop", "b", pod("127.0.7.2"));
    write(&new);
    until(&mut groups, &["127.0.7.1:80", "127.0.7.2:80"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_of_a_kubeconfig_are_read_again_when_their_files_change() {
    crate::client::install_provider();
    let (servers, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let asks_for = |clients| Arc::new(servers.server("127.0.0.1", Some(clients), false));
    let tls = Arc::new(Mutex::new(asks_for(&old)));
    let fake = FakeApi::new();
    fake.put("pods", "shop", "a", pod("127.0.9.1"));
    let address = fake.serve_tls(Arc::clone(&tls)).await;
    let account = Account::new(&servers, "");
    let issue = |clients: &Authority| {
        let issued = clients.issue("narthex");
        account.write("client.crt", &issued.certificate);
        account.write("client.key", &issued.key);
    };
    issue(&old);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: k\n\
         clusters: [{{name: k, cluster: {{server: 'https://{address}', certificate-authority: ca.crt}}}}]\n\
         users: [{{name: u, user: {{client-certificate: client.crt, client-key: client.key}}}}]\n\
         contexts: [{{name: k, context: {{cluster: k, user: u}}}}]\n"
    );
    account.write("kubeconfig", &text);
    let following = Following::new();
    let mut by_file = config(KubernetesRole::Pod, String::new());
    by_file.api_server = None;
    by_file.kubeconfig_file = Some(account.path().join("kubeconfig"));
    let mut groups = following.start(by_file);
    until(&mut groups, &["127.0.9.1:80"]).await;

    // From now on only certificates of another authority are let in; the
    // connection that is there would go on.
    *tls.lock().expect("not poisoned") = asks_for(&new);
    issue(&new);
    fake.end_watches(false);
    fake.put("pods", "shop", "b", pod("127.0.9.2"));
    until(&mut groups, &["127.0.9.1:80", "127.0.9.2:80"]).await;
}

#[test]
fn outside_a_cluster_the_reason_is_said() {
    let nothing = |_: &str| None;
    let error = in_cluster(nothing, Path::new("/nowhere")).expect_err("not in a cluster");
    assert_eq!(error.to_string(), "not in a cluster: KUBERNETES_SERVICE_HOST is not set");
    let v6 = |name: &str| Some(if name.ends_with("HOST") { "fd00::1" } else { "443" }.to_owned());
    let error = in_cluster(v6, Path::new("/nowhere")).expect_err("no token");
    assert!(error.to_string().contains("/nowhere/token"), "{error}");
    let account = tempfile::tempdir().expect("a folder");
    std::fs::write(account.path().join("token"), "t").expect("writes");
    let (url, http) = in_cluster(v6, account.path()).expect("in a cluster");
    assert_eq!(url, "https://[fd00::1]:443");
    assert!(http.tls.ca.is_none(), "no authority: the system's");
}
