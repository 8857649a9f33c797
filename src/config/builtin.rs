//! What is scraped if there is no configuration file?

use std::time::Duration;

use super::{Config, DiscoveryConfigs, GlobalConfig, ScrapeConfig, StaticConfig};

/// The built-in configuration: narthex scrapes itself at `own_address`, and a
/// node exporter at `node_exporter` if the caller found one there.
#[must_use]
pub fn builtin(own_address: &str, node_exporter: Option<&str>) -> Config {
    let global = GlobalConfig {
        scrape_interval: Duration::from_secs(15),
        evaluation_interval: Duration::from_secs(15),
        ..GlobalConfig::default()
    };
    let job = |name, address: &str| ScrapeConfig {
        discovery: DiscoveryConfigs {
            static_configs: vec![StaticConfig {
                targets: vec![address.to_owned()],
                ..StaticConfig::default()
            }],
            ..DiscoveryConfigs::default()
        },
        ..ScrapeConfig::named(name, &global)
    };
    let own = job("narthex", own_address);
    let scrape_configs: Vec<ScrapeConfig> =
        [Some(own), node_exporter.map(|address| job("node", address))]
            .into_iter()
            .flatten()
            .collect();
    Config {
        main_scrape_configs: scrape_configs.len(),
        scrape_configs,
        global,
        ..Config::default()
    }
}
