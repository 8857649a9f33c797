//! One `kubernetes_sd_configs` entry at work: watches in, target groups out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Kind};
use super::cluster::{Access, Cluster, Clusters};
use super::connect::SERVICE_ACCOUNT;
use super::groups::{Attach, Groups};
use super::object::{EndpointSlice, Endpoints, Ingress, Node, Object, Owner, Pod, Service};
use super::scope::{Resource, Scope};
use super::watch::{Store, WatchMetrics, Watched};
use crate::config::{KubernetesRole, KubernetesSdConfig};
use crate::discovery::TargetGroups;

/// Changes are gathered at least this long before groups are made again.
const GATHER: Duration = Duration::from_millis(100);

/// Changes are gathered at most this long: targets of a cluster in turmoil
/// are still those of a second ago.
const GATHER_LONGEST: Duration = Duration::from_secs(1);

/// Making groups may take this share of the time.
const SHARE: u32 = 20;

const fn core(kind: &'static str, plural: &'static str) -> Resource {
    Resource { group: "", version: "v1", kind, plural }
}

const NODES: Resource = core("Node", "nodes");
const PODS: Resource = core("Pod", "pods");
const SERVICES: Resource = core("Service", "services");
const ENDPOINTS: Resource = core("Endpoints", "endpoints");
/// Also read where the operator's objects select by namespace.
pub const NAMESPACES: Resource = core("Namespace", "namespaces");
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

/// Starts one discovery; groups appear once all its lists are complete, and
/// it ends with `cancel`.
pub fn start(
    config: KubernetesSdConfig,
    clusters: &Clusters,
    metrics: WatchMetrics,
    cancel: CancellationToken,
) -> watch::Receiver<Option<TargetGroups>> {
    let (sender, receiver) = watch::channel(None);
    let cluster = clusters.get(Access::from(&config));
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
    let watched = cluster.watched(metrics).await;
    let needs = Needs::new(config, cluster, &watched, metrics).await;
    let mut changes = needs.changes();
    if changes.is_empty() {
        // There is no namespace to look in; the reason was logged.
        return std::future::pending().await;
    }
    for change in &mut changes {
        // Nothing is sent before every list is complete once.
        if change.wait_for(|version| *version > 0).await.is_err() {
            return;
        }
    }
    let mut groups = Groups::new(config.role, Attach::from(config));
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let started = Instant::now();
        let made: TargetGroups = Arc::new(groups.update(&needs.cache()));
        sender.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&made);
            if differs {
                *known = Some(made);
            }
            differs
        });
        let pause = (started.elapsed() * SHARE).clamp(GATHER, GATHER_LONGEST);
        let any = select_all(changes.iter_mut().map(|change| change.changed().boxed()));
        if any.await.0.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
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
    /// Of the objects in the stores, only those of these namespaces count.
    only: Option<BTreeSet<String>>,
}

impl Needs {
    async fn new(
        config: &KubernetesSdConfig,
        cluster: &Cluster,
        watched: &Arc<Watched>,
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
            needs.nodes.push(cluster.nodes.get(watched, scope(NODES, None, narrowed), metrics));
        }
        if config.attach_namespace && role != Role::Node {
            needs.namespaces.push(cluster.owners.get(
                watched,
                scope(NAMESPACES, None, None),
                metrics,
            ));
        }
        let mut places = namespaces(config).await;
        if config.shares_watches && places.iter().all(Option::is_some) && !places.is_empty() {
            needs.only = Some(places.into_iter().flatten().collect());
            places = vec![None];
        }
        for namespace in places {
            let here = namespace.as_ref();
            let narrowed = |resource, r| scope(resource, here, Some(r));
            if with_pods {
                needs.pods.push(cluster.pods.get(watched, narrowed(PODS, Role::Pod), metrics));
                if config.attach_deployment {
                    let scope = scope(REPLICA_SETS, here, None);
                    needs.replica_sets.push(cluster.owners.get(watched, scope, metrics));
                }
                if config.attach_cronjob {
                    needs.jobs.push(cluster.owners.get(watched, scope(JOBS, here, None), metrics));
                }
            }
            if matches!(role, Role::Service | Role::Endpoints | Role::EndpointSlice) {
                let scope = narrowed(SERVICES, Role::Service);
                needs.services.push(cluster.services.get(watched, scope, metrics));
            }
            match role {
                Role::Endpoints => {
                    let scope = narrowed(ENDPOINTS, role);
                    needs.endpoints.push(cluster.endpoints.get(watched, scope, metrics));
                }
                Role::EndpointSlice => {
                    let scope = narrowed(SLICES, role);
                    needs.slices.push(cluster.slices.get(watched, scope, metrics));
                }
                Role::Ingress => {
                    let scope = narrowed(INGRESSES, role);
                    needs.ingresses.push(cluster.ingresses.get(watched, scope, metrics));
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
        let mut cache = Cache {
            nodes: of(&self.nodes),
            pods: of(&self.pods),
            services: of(&self.services),
            endpoints: of(&self.endpoints),
            slices: of(&self.slices),
            ingresses: of(&self.ingresses),
            namespaces: of(&self.namespaces),
            replica_sets: of(&self.replica_sets),
            jobs: of(&self.jobs),
        };
        if let Some(only) = &self.only {
            cache.pods.narrow(only);
            cache.services.narrow(only);
            cache.endpoints.narrow(only);
            cache.slices.narrow(only);
            cache.ingresses.narrow(only);
        }
        cache
    }
}

/// The namespaces to watch; `None` is all of them.
async fn namespaces(config: &KubernetesSdConfig) -> Vec<Option<String>> {
    if config.role == KubernetesRole::Node {
        return Vec::new();
    }
    let mut names: Vec<String> = config.namespaces.clone();
    if config.own_namespace {
        let file = format!("{SERVICE_ACCOUNT}/namespace");
        match tokio::fs::read_to_string(&file).await {
            Ok(own) if !own.trim().is_empty() => names.push(own.trim().to_owned()),
            Ok(_) => tracing::error!("own_namespace: {file} is empty"),
            Err(error) => tracing::error!(%error, "own_namespace: {file}"),
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() && !config.own_namespace {
        return vec![None];
    }
    names.into_iter().map(Some).collect()
}
