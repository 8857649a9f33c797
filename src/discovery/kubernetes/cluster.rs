//! Which watches go on? All of one API server, shared by scope, for whoever
//! reaches it in the same way.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OnceCell;

use super::backoff::{Backoff, Clock};
use super::connect::{ConnectError, connect};
use super::health::Health;
use super::object::{EndpointSlice, Endpoints, Ingress, Node, Owner, Pod, Service};
use super::raw::Raw;
use super::reflector::Server;
use super::watch::{Stores, WatchMetrics, Watched};
use crate::config::{HttpClientConfig, KubernetesSdConfig, OperatorConfig};

/// A cluster that somebody holds, and how it is reached.
type Known = (Access, Weak<Cluster>);

/// Clusters by the way to reach them. Cloning shares them.
#[derive(Clone, Default)]
pub struct Clusters(Arc<Mutex<Vec<Known>>>);

/// How an API server is reached.
#[derive(Clone, PartialEq)]
pub struct Access {
    api_server: Option<String>,
    kubeconfig: Option<PathBuf>,
    http: HttpClientConfig,
}

impl From<&KubernetesSdConfig> for Access {
    fn from(config: &KubernetesSdConfig) -> Self {
        Self {
            api_server: config.api_server.clone(),
            kubeconfig: config.kubeconfig_file.clone(),
            http: config.http.clone(),
        }
    }
}

impl From<&OperatorConfig> for Access {
    fn from(config: &OperatorConfig) -> Self {
        Self {
            api_server: config.api_server.clone(),
            kubeconfig: config.kubeconfig_file.clone(),
            http: config.http.clone(),
        }
    }
}

impl Access {
    /// How people know the server; without user and password.
    fn name(&self) -> String {
        match (&self.api_server, &self.kubeconfig) {
            (Some(url), _) => url::Url::parse(url).map_or_else(
                |_| "of the configuration".to_owned(),
                |url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
            ),
            (None, Some(file)) => format!("of {}", file.display()),
            (None, None) => "of this cluster".to_owned(),
        }
    }
}

/// One API server and the watches that go on there.
pub struct Cluster {
    access: Access,
    watched: OnceCell<Arc<Watched>>,
    /// Of nodes.
    pub nodes: Stores<Node>,
    /// Of pods.
    pub pods: Stores<Pod>,
    /// Of services.
    pub services: Stores<Service>,
    /// Of endpoints.
    pub endpoints: Stores<Endpoints>,
    /// Of endpoint slices.
    pub slices: Stores<EndpointSlice>,
    /// Of ingresses.
    pub ingresses: Stores<Ingress>,
    /// Of namespaces, ReplicaSets and Jobs.
    pub owners: Stores<Owner>,
    /// Of the operator's kinds.
    pub raws: Stores<Raw>,
}

impl Clusters {
    /// The cluster that is reached like this; lives as long as somebody holds
    /// it.
    #[must_use]
    pub fn get(&self, access: Access) -> Arc<Cluster> {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.retain(|(_, cluster)| cluster.strong_count() > 0);
        let known = clusters.iter().find(|(known, _)| *known == access);
        if let Some(cluster) = known.and_then(|(_, cluster)| cluster.upgrade()) {
            return cluster;
        }
        let cluster = Arc::new(Cluster::new(access.clone()));
        clusters.push((access, Arc::downgrade(&cluster)));
        cluster
    }
}

impl Cluster {
    fn new(access: Access) -> Self {
        Self {
            access,
            watched: OnceCell::new(),
            nodes: Stores::default(),
            pods: Stores::default(),
            services: Stores::default(),
            endpoints: Stores::default(),
            slices: Stores::default(),
            ingresses: Stores::default(),
            owners: Stores::default(),
            raws: Stores::default(),
        }
    }

    /// The server, once the settings allow a client; tries for ever.
    pub async fn watched(&self, metrics: &WatchMetrics) -> Arc<Watched> {
        let (mut backoff, clock) = (Backoff::default(), Clock::real());
        let key = format!("kubernetes/{}/settings", self.access.name());
        loop {
            match self.watched.get_or_try_init(|| self.connect()).await {
                Ok(watched) => {
                    metrics.notices.clear(&key);
                    return Arc::clone(watched);
                }
                Err(error) => {
                    metrics.failures.inc();
                    let server = self.access.name();
                    tracing::warn!(%error, server, "Kubernetes API server cannot be asked");
                    let text =
                        format!("The Kubernetes API server {server} cannot be asked: {error}");
                    metrics.notices.raise(&key, text);
                }
            }
            tokio::time::sleep(backoff.pause((clock.now)(), None)).await;
        }
    }

    async fn connect(&self) -> Result<Arc<Watched>, ConnectError> {
        let Access { api_server, kubeconfig, http } = &self.access;
        let client = connect(api_server.as_deref(), kubeconfig.as_deref(), http).await?;
        let health = Health::new(self.access.name());
        Ok(Arc::new(Watched { server: Server::new(client), health }))
    }
}
