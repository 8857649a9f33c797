//! `dns_sd_configs`: targets from the records of names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures::future::join_all;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::ProtoErrorKind;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{ResolveError, TokioResolver};

use super::TargetGroup;
use super::metrics::DiscoveryMetrics;
use super::refresh::{Published, Rounds};
use crate::config::{DnsRecordType, DnsSdConfig};

/// Builds a resolver that asks `server`, or the system's servers.
///
/// # Errors
///
/// If the system's settings cannot be read.
fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, String> {
    let provider = TokioConnectionProvider::default();
    let mut builder = match server {
        Some(address) => {
            let mut config = ResolverConfig::new();
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                config.add_name_server(NameServerConfig::new(address, protocol));
            }
            TokioResolver::builder_with_config(config, provider)
        }
        None => TokioResolver::builder(provider)
            .map_err(|e| format!("could not load resolv.conf: {e}"))?,
    };
    let options = builder.options_mut();
    // Each refresh asks, and only servers count.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    Ok(builder.build())
}

/// Follows the names of one discovery for ever. `server` replaces the
/// system's servers.
pub async fn run(
    config: &DnsSdConfig,
    server: Option<SocketAddr>,
    metrics: &DiscoveryMetrics,
    sender: &Published,
) {
    let shown = config.names.join(",");
    let failures = metrics.refresh_failures.with(&["dns", &shown]);
    let duration = metrics.refresh_duration.with(&["dns", &shown]);
    let mut rounds = Rounds::new(config.refresh_interval, failures, duration);
    let mut known: BTreeMap<String, TargetGroup> = BTreeMap::new();
    let mut asked: Option<TokioResolver> = None;
    loop {
        let started = rounds.next().await;
        if asked.is_none() {
            match resolver(server) {
                Ok(built) => asked = Some(built),
                Err(error) => rounds.finish(started, Err(error), sender),
            }
        }
        let Some(resolver) = &asked else { continue };
        let answers = join_all(config.names.iter().map(|name| refresh(config, resolver, name)));
        for (name, answer) in config.names.iter().zip(answers.await) {
            metrics.dns_lookups.inc();
            match answer {
                Ok(group) => {
                    known.insert(name.clone(), group);
                }
                // What was known of the name stays.
                Err(error) => {
                    metrics.dns_lookup_failures.inc();
                    tracing::warn!("dns_sd: {name}: {error}");
                }
            }
        }
        let groups = config.names.iter().filter_map(|name| known.get(name).cloned()).collect();
        rounds.finish(started, Ok(groups), sender);
    }
}

async fn refresh(
    config: &DnsSdConfig,
    resolver: &TokioResolver,
    name: &str,
) -> Result<TargetGroup, String> {
    let kind = match config.record_type {
        DnsRecordType::A => RecordType::A,
        DnsRecordType::Aaaa => RecordType::AAAA,
        DnsRecordType::Srv => RecordType::SRV,
        DnsRecordType::Mx => RecordType::MX,
        DnsRecordType::Ns => RecordType::NS,
    };
    let targets = match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            lookup.record_iter().filter_map(|r| target(name, r.data(), config.port)).collect()
        }
        Err(error) if is_empty_answer(&error) => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    Ok(TargetGroup { source: name.to_owned(), labels: BTreeMap::new(), targets })
}

/// Whether a server knows that there are no such records.
fn is_empty_answer(error: &ResolveError) -> bool {
    let kind = error.proto().map(|e| &*e.kind);
    matches!(
        kind,
        Some(ProtoErrorKind::NoRecordsFound {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            ..
        })
    )
}

/// The labels of one record; `None` for others that an answer may hold.
fn target(name: &str, data: &RData, port: u16) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::from([("__meta_dns_name".to_owned(), name.to_owned())]);
    let mut meta = |label: &str, value: String| {
        labels.insert(format!("__meta_dns_{label}"), value);
    };
    let address = match data {
        RData::A(address) => join_host_port(&address.to_string(), port),
        RData::AAAA(address) => join_host_port(&address.to_string(), port),
        RData::SRV(srv) => {
            let host = srv.target().to_string();
            meta("srv_record_port", srv.port().to_string());
            meta("srv_record_target", host.clone());
            join_host_port(host.trim_end_matches('.'), srv.port())
        }
        RData::MX(mx) => {
            let host = mx.exchange().to_string();
            meta("mx_record_target", host.clone());
            join_host_port(host.trim_end_matches('.'), port)
        }
        RData::NS(ns) => {
            let host = ns.0.to_string();
            meta("ns_record_target", host.clone());
            join_host_port(host.trim_end_matches('.'), port)
        }
        _ => return None,
    };
    labels.insert("__address__".to_owned(), address);
    Some(labels)
}

fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
