//! One `kubernetes_sd_configs` entry at work: watches in, target groups out.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Kind};
use super::connect::connect;
use super::groups::{Attach, groups};
use super::object::{EndpointSlice, Endpoints, Ingress, Node, Object, Owner, Pod, Service};
use super::watch::{Resource, Scope, Store, Stores, WatchMetrics};
use crate::config::{HttpClientConfig, KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroups;

/// Changes are gathered this long before groups are made again.
const GATHER: Duration = Duration::from_millis(250);

/// Pauses between attempts to connect, doubling.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where the namespace of the service account stands.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

const fn core(kind: &'static str, plural: &'static str) -> Resource {
    Resource { group: "", version: "v1", kind, plural }
}

const NODES: Resource = core("Node", "nodes");
const PODS: Resource = core("Pod", "pods");
const SERVICES: Resource = core("Service", "services");
const ENDPOINTS: Resource = core("Endpoints", "endpoints");
const NAMESPACES: Resource = core("Namespace", "namespaces");
const SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
};
const INGRESSES: Resource =
    Resource { group: "networking.k8s.io", version: "v1", kind: "Ingress", plural: "ingresses" };
const REPLICA_SETS: Resource =
    Resource { group: "apps", version: "v1", kind: "ReplicaSet", plural: "replicasets" };
const JOBS: Resource = Resource { group: "batch", version: "v1", kind: "Job", plural: "jobs" };

/// Clusters by the way to reach them, so that watches are shared.
#[derive(Default)]
pub struct Clusters(Mutex<Vec<(Access, Weak<Cluster>)>>);

#[derive(Clone, PartialEq)]
struct Access {
    api_server: Option<String>,
    kubeconfig: Option<PathBuf>,
    http: HttpClientConfig,
}

/// One API server and the watches that go on there.
struct Cluster {
    access: Access,
    client: tokio::sync::OnceCell<kube::Client>,
    nodes: Stores<Node>,
    pods: Stores<Pod>,
    services: Stores<Service>,
    endpoints: Stores<Endpoints>,
    slices: Stores<EndpointSlice>,
    ingresses: Stores<Ingress>,
    owners: Stores<Owner>,
}

impl Clusters {
    fn get(&self, access: Access) -> Arc<Cluster> {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|(_, cluster)| cluster.strong_count() > 0);
        let known = clusters.iter().find(|(known, _)| *known == access);
        if let Some(cluster) = known.and_then(|(_, cluster)| cluster.upgrade()) {
            return cluster;
        }
        let cluster = Arc::new(Cluster {
            access: access.clone(),
            client: tokio::sync::OnceCell::new(),
            nodes: Stores::default(),
            pods: Stores::default(),
            services: Stores::default(),
            endpoints: Stores::default(),
            slices: Stores::default(),
            ingresses: Stores::default(),
            owners: Stores::default(),
        });
        clusters.push((access, Arc::downgrade(&cluster)));
        cluster
    }
}

impl Cluster {
    /// The client, once the settings allow one; tries for ever.
    async fn client(&self, metrics: &WatchMetrics) -> kube::Client {
        let mut pause = CONNECT_PAUSE.0;
        loop {
            let access = &self.access;
            let attempt = self.client.get_or_try_init(|| {
                connect(access.api_server.as_deref(), access.kubeconfig.as_deref(), &access.http)
            });
            match attempt.await {
                Ok(client) => return client.clone(),
                Err(error) => {
                    metrics.failures.inc();
                    tracing::warn!(%error, "Kubernetes API server not reached");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(CONNECT_PAUSE.1);
        }
    }
}

/// Starts one discovery; groups appear once all its lists are complete, and
/// it ends with `cancel`.
pub fn start(
    config: KubernetesSdConfig,
    clusters: &Clusters,
    metrics: WatchMetrics,
    cancel: CancellationToken,
) -> watch::Receiver<Option<TargetGroups>> {
    let (sender, receiver) = watch::channel(None);
    let cluster = clusters.get(Access {
        api_server: config.api_server.clone(),
        kubeconfig: config.kubeconfig_file.clone(),
        http: config.http.clone(),
    });
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = run(&config, &cluster, &metrics, &sender) => {}
        }
    });
    receiver
}

async fn run(
    config: &KubernetesSdConfig,
    cluster: &Cluster,
    metrics: &WatchMetrics,
    sender: &watch::Sender<Option<TargetGroups>>,
) {
    let client = cluster.client(metrics).await;
    let needs = Needs::new(config, cluster, &client, metrics).await;
    let mut changes = needs.changes();
    for change in &mut changes {
        // Nothing is sent before every list is complete once.
        if change.wait_for(|version| *version > 0).await.is_err() {
            return;
        }
    }
    let attach = Attach::from(config);
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let made = groups(config.role, &needs.cache(), attach);
        let made: TargetGroups = Arc::new(made.into_iter().map(Arc::new).collect());
        sender.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&made);
            if differs {
                *known = Some(made);
            }
            differs
        });
        let any = select_all(changes.iter_mut().map(|change| change.changed().boxed()));
        if any.await.0.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// The stores that one discovery reads.
#[derive(Default)]
struct Needs {
    nodes: Vec<Arc<Store<Node>>>,
    pods: Vec<Arc<Store<Pod>>>,
    services: Vec<Arc<Store<Service>>>,
    endpoints: Vec<Arc<Store<Endpoints>>>,
    slices: Vec<Arc<Store<EndpointSlice>>>,
    ingresses: Vec<Arc<Store<Ingress>>>,
    namespaces: Vec<Arc<Store<Owner>>>,
    replica_sets: Vec<Arc<Store<Owner>>>,
    jobs: Vec<Arc<Store<Owner>>>,
}

impl Needs {
    async fn new(
        config: &KubernetesSdConfig,
        cluster: &Cluster,
        client: &kube::Client,
        metrics: &WatchMetrics,
    ) -> Self {
        use KubernetesRole as Role;
        let mut needs = Self::default();
        let role = config.role;
        let scope = |resource, namespace: Option<&String>, narrowed: Option<Role>| {
            let selector = narrowed.and_then(|r| config.selectors.iter().find(|s| s.role == r));
            let text = |t: &String| (!t.is_empty()).then(|| t.clone());
            Scope {
                resource,
                namespace: namespace.cloned(),
                label: selector.and_then(|s| text(&s.label)),
                field: selector.and_then(|s| text(&s.field)),
            }
        };
        let with_pods = matches!(role, Role::Pod | Role::Endpoints | Role::EndpointSlice);
        if role == Role::Node || (with_pods && config.attach_node) {
            let narrowed = (role == Role::Node).then_some(Role::Node);
            needs.nodes.push(cluster.nodes.get(client, scope(NODES, None, narrowed), metrics));
        }
        if config.attach_namespace && role != Role::Node {
            needs.namespaces.push(cluster.owners.get(
                client,
                scope(NAMESPACES, None, None),
                metrics,
            ));
        }
        for namespace in namespaces(config).await {
            let here = namespace.as_ref();
            let narrowed = |resource, r| scope(resource, here, Some(r));
            if with_pods {
                needs.pods.push(cluster.pods.get(client, narrowed(PODS, Role::Pod), metrics));
                if config.attach_deployment {
                    let scope = scope(REPLICA_SETS, here, None);
                    needs.replica_sets.push(cluster.owners.get(client, scope, metrics));
                }
                if config.attach_cronjob {
                    needs.jobs.push(cluster.owners.get(client, scope(JOBS, here, None), metrics));
                }
            }
            if matches!(role, Role::Service | Role::Endpoints | Role::EndpointSlice) {
                let scope = narrowed(SERVICES, Role::Service);
                needs.services.push(cluster.services.get(client, scope, metrics));
            }
            match role {
                Role::Endpoints => {
                    let scope = narrowed(ENDPOINTS, role);
                    needs.endpoints.push(cluster.endpoints.get(client, scope, metrics));
                }
                Role::EndpointSlice => {
                    let scope = narrowed(SLICES, role);
                    needs.slices.push(cluster.slices.get(client, scope, metrics));
                }
                Role::Ingress => {
                    let scope = narrowed(INGRESSES, role);
                    needs.ingresses.push(cluster.ingresses.get(client, scope, metrics));
                }
                Role::Node | Role::Pod | Role::Service => {}
            }
        }
        needs
    }

    fn changes(&self) -> Vec<watch::Receiver<u64>> {
        fn of<T: Object>(stores: &[Arc<Store<T>>]) -> impl Iterator<Item = watch::Receiver<u64>> {
            stores.iter().map(|store| store.changes())
        }
        of(&self.nodes)
            .chain(of(&self.pods))
            .chain(of(&self.services))
            .chain(of(&self.endpoints))
            .chain(of(&self.slices))
            .chain(of(&self.ingresses))
            .chain(of(&self.namespaces))
            .chain(of(&self.replica_sets))
            .chain(of(&self.jobs))
            .collect()
    }

    fn cache(&self) -> Cache {
        fn of<T: Object>(stores: &[Arc<Store<T>>]) -> Kind<T> {
            let mut all = Kind::default();
            for store in stores {
                all.merge(store.snapshot());
            }
            all
        }
        Cache {
            nodes: of(&self.nodes),
            pods: of(&self.pods),
            services: of(&self.services),
            endpoints: of(&self.endpoints),
            slices: of(&self.slices),
            ingresses: of(&self.ingresses),
            namespaces: of(&self.namespaces),
            replica_sets: of(&self.replica_sets),
            jobs: of(&self.jobs),
        }
    }
}

/// The namespaces to watch; `None` is all of them.
async fn namespaces(config: &KubernetesSdConfig) -> Vec<Option<String>> {
    if config.role == KubernetesRole::Node {
        return Vec::new();
    }
    let mut names: Vec<String> = config.namespaces.clone();
    if config.own_namespace {
        match tokio::fs::read_to_string(OWN_NAMESPACE).await {
            Ok(own) if !own.trim().is_empty() => names.push(own.trim().to_owned()),
            Ok(_) => tracing::error!("own_namespace: {OWN_NAMESPACE} is empty"),
            Err(error) => tracing::error!(%error, "own_namespace: {OWN_NAMESPACE}"),
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() && !config.own_namespace {
        return vec![None];
    }
    names.into_iter().map(Some).collect()
}
