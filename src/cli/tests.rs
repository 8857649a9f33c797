use std::time::Duration;

use super::options::LogLevel;
use super::*;

fn options(arguments: &[&str]) -> Result<Options, String> {
    let arguments = ["narthex"].iter().chain(arguments);
    let matches = command().try_get_matches_from(arguments).map_err(|e| e.to_string())?;
    let empty = tempfile::tempdir().expect("temporary directory");
    Options::resolve(&RawFlags::from_matches(&matches), "box", empty.path())
}

fn error(arguments: &[&str]) -> String {
    options(arguments).expect_err("refused")
}

#[test]
fn the_command_is_well_formed() {
    command().debug_assert();
}

#[test]
fn without_flags_the_built_in_configuration_is_served_locally() {
    let options = options(&[]).expect("valid");
    assert_eq!(options.config, ConfigSource::Builtin);
    assert_eq!(options.web.listen_addresses, ["127.0.0.1:9090"]);
    assert_eq!(options.web.external_url, "http://box:9090");
    assert_eq!(options.web.route_prefix, "/");
    assert_eq!(options.storage.retention_time, Some(Duration::from_secs(15 * 86_400)));
    assert_eq!((options.memory_limit_bytes, options.auto_reload), (None, None));
    assert_eq!(options.storage.engine.name(), "files");
    assert!(options.notify.drain_on_shutdown && options.warnings.is_empty());
    assert_eq!(options.flags["query.timeout"], "2m");
}

#[test]
fn flags_of_an_official_image_are_accepted() {
    let options = options(&[
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path",
        "/prometheus",
        "--web.console.libraries=/usr/share/prometheus/console_libraries",
        "--web.console.templates=/usr/share/prometheus/consoles",
        "--web.enable-lifecycle",
        "--no-alertmanager.drain-notification-queue-on-shutdown",
        "--web.listen-address=:9090",
        "--web.listen-address",
        "[::1]:9091",
        "--storage.tsdb.retention.size=512MB",
        "--web.external-url=https://example.org/prom/",
        "--enable-feature=exemplar-storage,promql-at-modifier",
        "--enable-feature=native-histograms",
        "--log.level=warn",
        "--log.format=json",
        "--storage.tsdb.wal-compression",
    ])
    .expect("valid");
    assert_eq!(options.config, ConfigSource::File("/etc/prometheus/prometheus.yml".into()));
    assert_eq!(options.web.listen_addresses, [":9090", "[::1]:9091"]);
    assert_eq!(options.web.external_url, "https://example.org/prom");
    assert_eq!(options.web.route_prefix, "/prom");
    assert_eq!(options.storage.retention_time, None);
    assert_eq!(options.storage.retention_size_bytes, Some(512 << 20));
    assert!(options.web.enable_lifecycle && !options.notify.drain_on_shutdown);
    assert!(
        options.features.exemplar_storage && options.config_defaults().scrape_native_histograms
    );
    assert_eq!((options.log.level, options.log.json), (LogLevel::Warn, true));
    assert_eq!(options.warnings.len(), 4, "{:?}", options.warnings);
}

#[test]
fn wrong_flags_are_refused_by_name() {
    for (arguments, part) in [
        (&["--agent"][..], "--agent: narthex does not support agent mode yet"),
        (&["--web.enable-otlp-receiver"], "OTLP"),
        (&["--web.listen-address=9090"], "--web.listen-address: \"9090\""),
        (&["--web.listen-address=::1:9090"], "--web.listen-address"),
        (&["--storage.tsdb.retention.time=5"], "--storage.tsdb.retention.time"),
        (&["--storage.tsdb.retention.size=5"], "--storage.tsdb.retention.size"),
        (&["--query.timeout=0s"], "--query.timeout: must be above zero"),
        (&["--query.max-concurrency=-1"], "--query.max-concurrency"),
        (&["--memory.limit=1MB"], "at least 64MB"),
        (&["--storage.engine=leveldb"], "\"leveldb\" is none of files, rocksdb"),
        #[cfg(not(feature = "rocksdb"))]
        (&["--storage.engine=rocksdb"], "without the cargo feature `rocksdb`"),
        (&["--log.level=x"], "--log.level"),
        (&["--enable-feature=xyz"], "\"xyz\" is not known; these are:"),
        (&["--enable-feature=search-api"], "does not support search-api yet"),
        (&["--web.external-url='http://x'"], "quotes"),
        (&["--web.cors.origin=("], "--web.cors.origin"),
        (&["--web.enable-lifecycle=true"], "unexpected value"),
        (&["--config.file=a", "--config.file=b"], "multiple times"),
        (&["--agent", "--no-agent"], "cannot be used with"),
        (&["--web.enablelifecycle"], "--web.enable-lifecycle"),
        (&["extra"], "extra"),
    ] {
        let message = error(arguments);
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn a_configuration_is_checked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("a.yml");
    let code = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let arguments = ["narthex", "check", "config"].map(OsString::from);
        match parse(arguments.into_iter().chain([file.clone().into_os_string()])) {
            Action::Exit(code) => code,
            Action::Serve(_) => panic!("must not serve"),
        }
    };
    assert_eq!(code("scrape_configs: [{job_name: a}]"), ExitCode::SUCCESS);
    assert_eq!(code("scrape_configs: [{}]"), ExitCode::FAILURE);
}
