//! What is kept of an object: the fields that discovery reads, nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Servers write `null` for empty lists and objects.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty $(= $rename:literal)?,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Default, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $(
                    $(#[$field_doc])*
                    #[serde(deserialize_with = "or_default" $(, rename = $rename)?)]
                    pub $field: $kind,
                )*
            }
        )*
    };
}

objects! {
    /// metadata of every object.
    Meta {
        /// Unique within kind and namespace.
        name: String,
        /// Empty for objects of the whole cluster.
        namespace: String,
        /// Unique for ever.
        uid: String,
        /// Changes with each write; opaque.
        resource_version: String,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// What made this object.
        owner_references: Vec<OwnerReference>,
    }
    /// One of ownerReferences.
    OwnerReference {
        /// Such as ReplicaSet.
        kind: String,
        /// Its name.
        name: String,
        /// Whether it is the one that controls the object.
        controller: bool,
    }
    /// A node.
    Node {
        /// metadata
        metadata: Meta,
        /// spec
        spec: NodeSpec,
        /// status
        status: NodeStatus,
    }
    /// spec of a node.
    NodeSpec {
        /// Set by the cloud.
        provider_id: String = "providerID",
    }
    /// status of a node.
    NodeStatus {
        /// By type.
        addresses: Vec<NodeAddress>,
        /// Ready and others.
        conditions: Vec<Condition>,
        /// Where the kubelet listens.
        daemon_endpoints: DaemonEndpoints,
    }
    /// One of a node's addresses.
    NodeAddress {
        /// Such as InternalIP.
        kind: String = "type",
        /// The address.
        address: String,
    }
    /// One of the conditions.
    Condition {
        /// Such as Ready.
        kind: String = "type",
        /// True, False or Unknown.
        status: String,
    }
    /// Where daemons listen.
    DaemonEndpoints {
        /// The kubelet.
        kubelet_endpoint: DaemonEndpoint,
    }
    /// Where one daemon listens.
    DaemonEndpoint {
        /// 0 if not known.
        port: u16 = "Port",
    }
    /// A pod.
    Pod {
        /// metadata
        metadata: Meta,
        /// spec
        spec: PodSpec,
        /// status
        status: PodStatus,
    }
    /// spec of a pod.
    PodSpec {
        /// Where it runs.
        node_name: String,
        /// In order.
        containers: Vec<Container>,
        /// In order.
        init_containers: Vec<Container>,
    }
    /// A container as declared.
    Container {
        /// Its name.
        name: String,
        /// Its image.
        image: String,
        /// Declared ports.
        ports: Vec<ContainerPort>,
    }
    /// A declared port.
    ContainerPort {
        /// May be empty.
        name: String,
        /// Its number.
        container_port: u16,
        /// TCP if not given.
        protocol: String,
    }
    /// status of a pod.
    PodStatus {
        /// Such as Running.
        phase: String,
        /// Empty until it has one.
        pod_ip: String = "podIP",
        /// The node's.
        host_ip: String = "hostIP",
        /// Ready and others.
        conditions: Vec<Condition>,
        /// By name.
        container_statuses: Vec<ContainerStatus>,
        /// By name.
        init_container_statuses: Vec<ContainerStatus>,
    }
    /// status of a container.
    ContainerStatus {
        /// The container.
        name: String,
        /// `containerd://...`
        container_id: String = "containerID",
    }
    /// A service.
    Service {
        /// metadata
        metadata: Meta,
        /// spec
        spec: ServiceSpec,
    }
    /// spec of a service.
    ServiceSpec {
        /// ClusterIP if not given.
        kind: String = "type",
        /// `None` for headless ones.
        cluster_ip: String = "clusterIP",
        /// For ExternalName.
        external_name: String,
        /// For LoadBalancer.
        load_balancer_ip: String = "loadBalancerIP",
        /// Its ports.
        ports: Vec<ServicePort>,
    }
    /// A port of a service.
    ServicePort {
        /// May be empty.
        name: String,
        /// Its number.
        port: u16,
        /// TCP if not given.
        protocol: String,
    }
    /// An Endpoints object.
    Endpoints {
        /// metadata
        metadata: Meta,
        /// Addresses with ports.
        subsets: Vec<EndpointSubset>,
    }
    /// Addresses that share ports.
    EndpointSubset {
        /// Ready ones.
        addresses: Vec<EndpointAddress>,
        /// Others.
        not_ready_addresses: Vec<EndpointAddress>,
        /// The ports.
        ports: Vec<EndpointPort>,
    }
    /// One address of a subset.
    EndpointAddress {
        /// The address.
        ip: String,
        /// May be empty.
        hostname: String,
        /// May be absent.
        node_name: Option<String>,
        /// What is behind it.
        target_ref: Option<ObjectReference>,
    }
    /// A reference to an object.
    ObjectReference {
        /// Such as Pod.
        kind: String,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    }
    /// A port of endpoints.
    EndpointPort {
        /// May be absent or empty.
        name: Option<String>,
        /// May be absent in slices.
        port: Option<u16>,
        /// TCP if not given.
        protocol: Option<String>,
        /// Such as `http`.
        app_protocol: Option<String>,
    }
    /// An EndpointSlice.
    EndpointSlice {
        /// metadata
        metadata: Meta,
        /// IPv4, IPv6 or FQDN.
        address_type: String,
        /// Its endpoints.
        endpoints: Vec<SliceEndpoint>,
        /// Its ports.
        ports: Vec<EndpointPort>,
    }
    /// One endpoint of a slice.
    SliceEndpoint {
        /// Addresses of one backend.
        addresses: Vec<String>,
        /// What is known of it.
        conditions: SliceConditions,
        /// May be absent.
        hostname: Option<String>,
        /// What is behind it.
        target_ref: Option<ObjectReference>,
        /// May be absent.
        node_name: Option<String>,
        /// May be absent.
        zone: Option<String>,
        /// Of slices converted from v1beta1.
        deprecated_topology: BTreeMap<String, String>,
    }
    /// conditions of a slice's endpoint.
    SliceConditions {
        /// May be unknown.
        ready: Option<bool>,
        /// May be unknown.
        serving: Option<bool>,
        /// May be unknown.
        terminating: Option<bool>,
    }
    /// An ingress.
    Ingress {
        /// metadata
        metadata: Meta,
        /// spec
        spec: IngressSpec,
    }
    /// spec of an ingress.
    IngressSpec {
        /// The class, if named here.
        ingress_class_name: Option<String>,
        /// Hosts with certificates.
        tls: Vec<IngressTls>,
        /// Hosts and paths.
        rules: Vec<IngressRule>,
    }
    /// One of tls.
    IngressTls {
        /// Its hosts.
        hosts: Vec<String>,
    }
    /// One of rules.
    IngressRule {
        /// May be empty.
        host: String,
        /// Paths; absent differs from empty.
        http: Option<IngressPaths>,
    }
    /// http of a rule.
    IngressPaths {
        /// The paths.
        paths: Vec<IngressPath>,
    }
    /// One path.
    IngressPath {
        /// May be empty.
        path: String,
    }
    /// A namespace, a ReplicaSet or a Job: only metadata is read.
    Owner {
        /// metadata
        metadata: Meta,
    }
}

/// Every kind that is cached has metadata.
pub trait Object: for<'de> Deserialize<'de> + Clone + Send + Sync + PartialEq + 'static {
    /// The object's metadata.
    fn meta(&self) -> &Meta;

    /// The object's metadata.
    fn meta_mut(&mut self) -> &mut Meta;

    /// Takes the version out: what is kept compares equal if nothing that is
    /// read differs, however often the object was written.
    fn take_version(&mut self) -> String {
        std::mem::take(&mut self.meta_mut().resource_version)
    }
}

macro_rules! have_meta {
    ($($kind:ident)*) => {
        $(impl Object for $kind {
            fn meta(&self) -> &Meta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.metadata
            }
        })*
    };
}

have_meta!(Node Pod Service Endpoints EndpointSlice Ingress Owner);

impl Meta {
    /// The owner that controls this object.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}
