//! Which flags are there? The table of all of Prometheus' and our own.
//!
//! Every flag of Prometheus 3.5 to 3.14 stands here: with a meaning, accepted
//! with one warning where it has none, or refused by name. [`parse`] gives raw
//! texts; `options` makes values of them.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// What a flag is to narthex.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meaning {
    /// It does something; the text is its help.
    Used(&'static str),
    /// It is accepted with a warning: why it has no meaning here.
    Ignored(&'static str),
    /// It is an error: why.
    Refused(&'static str),
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// Several texts, one each time it is given.
    List,
    /// Nothing; `--no-` in front of the name turns it off.
    Switch,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// The name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its value if it is not given.
    pub default: &'static str,
    /// What it is to narthex.
    pub meaning: Meaning,
}

/// Texts of flags, as given or by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawFlags {
    values: BTreeMap<&'static str, Vec<String>>,
    given: Vec<&'static str>,
}

use Kind::{List, Switch, Text};
use Meaning::{Ignored, Refused, Used};

const fn flag(name: &'static str, kind: Kind, default: &'static str, meaning: Meaning) -> Flag {
    Flag { name, kind, default, meaning }
}

const GO: Meaning = Ignored("it tunes the Go runtime, which narthex does not have");
const BLOCKS: Meaning = Ignored("it tunes Prometheus' blocks and log; narthex stores otherwise");
const CONSOLES: Meaning = Ignored("narthex has no console templates");
const NO_REMOTE: Meaning = Ignored("narthex does not support remote read and write yet");
const AGENT: Meaning = Refused("narthex does not support agent mode yet");

/// All flags, sorted by room.
pub const FLAGS: &[Flag] = &[
    flag(
        "config.file",
        Text,
        "prometheus.yml",
        Used(
            "Configuration file. If not given and ./prometheus.yml does not exist, a built-in \
         configuration is used: narthex scrapes itself and a node exporter on localhost:9100, \
         and listens on 127.0.0.1 only",
        ),
    ),
    flag(
        "config.auto-reload",
        Switch,
        "false",
        Used("Reload the configuration when its files change"),
    ),
    flag(
        "config.auto-reload-interval",
        Text,
        "30s",
        Used("How often to look whether they changed"),
    ),
    flag("web.listen-address", List, "0.0.0.0:9090", Used("Address to listen on; may be repeated")),
    flag("web.config.file", Text, "", Used("File with TLS and authentication of the web server")),
    flag(
        "web.read-timeout",
        Text,
        "5m",
        Used("Longest time for a request to arrive, and for a connection to idle"),
    ),
    flag("web.max-connections", Text, "512", Used("Most connections at a time")),
    flag(
        "web.max-notifications-subscribers",
        Text,
        "16",
        Used("Most subscribers of live notifications"),
    ),
    flag(
        "web.external-url",
        Text,
        "",
        Used("URL under which users reach narthex; alerts link to it"),
    ),
    flag(
        "web.route-prefix",
        Text,
        "",
        Used("Prefix of all paths; default is the path of the external URL"),
    ),
    flag("web.local-assets", Text, "", Ignored("narthex carries its assets in the binary")),
    flag("web.user-assets", Text, "", Refused("narthex does not serve files of users")),
    flag("web.enable-lifecycle", Switch, "false", Used("Allow POST /-/reload and /-/quit")),
    flag(
        "web.enable-admin-api",
        Switch,
        "false",
        Used("Allow the API calls that delete and snapshot"),
    ),
    flag(
        "web.enable-remote-write-receiver",
        Switch,
        "false",
        Used("Accept remote writes at /api/v1/write"),
    ),
    flag(
        "web.remote-write-receiver.accepted-protobuf-messages",
        List,
        "prometheus.WriteRequest,io.prometheus.write.v2.Request",
        Used("Messages that remote writes may have"),
    ),
    flag("web.enable-otlp-receiver", Switch, "false", Refused("narthex does not support OTLP yet")),
    flag("web.console.templates", Text, "consoles", CONSOLES),
    flag("web.console.libraries", Text, "console_libraries", CONSOLES),
    flag(
        "web.page-title",
        Text,
        "Prometheus Time Series Collection and Processing Server",
        Used("Title of the pages"),
    ),
    flag("web.cors.origin", Text, ".*", Used("Expression for allowed origins, fully anchored")),
    flag(
        "web.search.max-limit",
        Text,
        "10000",
        Ignored("narthex does not support the search API yet"),
    ),
    flag("storage.tsdb.path", Text, "data/", Used("Data directory")),
    flag(
        "storage.tsdb.retention.time",
        Text,
        "0s",
        Used("How long to keep samples; 15d if no size is given either"),
    ),
    flag(
        "storage.tsdb.retention.size",
        Text,
        "0B",
        Used("How many bytes to keep; the oldest day goes first"),
    ),
    flag(
        "storage.engine",
        Text,
        "files",
        Used(
            "What keeps sealed data: files, or rocksdb if narthex was built with that cargo \
         feature. A data directory stays with its engine",
        ),
    ),
    flag(
        "storage.wal.sync-interval",
        Text,
        "15s",
        Used("Longest time until scraped samples are on the medium"),
    ),
    flag(
        "memory.limit",
        Text,
        "0B",
        Used("Memory budget, at least 64MB; default is 80 % of the cgroup's or machine's"),
    ),
    flag(
        "storage.tsdb.no-lockfile",
        Switch,
        "false",
        Ignored("the data directory is always locked"),
    ),
    flag("storage.tsdb.min-block-duration", Text, "2h", BLOCKS),
    flag("storage.tsdb.max-block-duration", Text, "", BLOCKS),
    flag("storage.tsdb.max-block-chunk-segment-size", Text, "", BLOCKS),
    flag("storage.tsdb.wal-segment-size", Text, "", BLOCKS),
    flag("storage.tsdb.allow-overlapping-compaction", Switch, "true", BLOCKS),
    flag("storage.tsdb.wal-compression", Switch, "true", BLOCKS),
    flag("storage.tsdb.wal-compression-type", Text, "snappy", BLOCKS),
    flag("storage.tsdb.head-chunks-write-queue-size", Text, "0", BLOCKS),
    flag("storage.tsdb.samples-per-chunk", Text, "120", BLOCKS),
    flag("storage.tsdb.delayed-compaction.max-percent", Text, "10", BLOCKS),
    flag("storage.tsdb.block-reload-interval", Text, "1m", BLOCKS),
    flag(
        "storage.tsdb.delay-compact-file.path",
        Text,
        "",
        Refused("narthex writes no blocks that another program could upload"),
    ),
    flag("storage.agent.path", Text, "data-agent/", AGENT),
    flag("storage.agent.wal-segment-size", Text, "", AGENT),
    flag("storage.agent.wal-compression", Switch, "true", AGENT),
    flag("storage.agent.wal-compression-type", Text, "snappy", AGENT),
    flag("storage.agent.wal-truncate-frequency", Text, "", AGENT),
    flag("storage.agent.retention.min-time", Text, "", AGENT),
    flag("storage.agent.retention.max-time", Text, "", AGENT),
    flag("storage.agent.checkpoint-from-in-memory-series", Switch, "false", AGENT),
    flag("storage.agent.checkpoint-batch-size", Text, "1000", AGENT),
    flag("storage.agent.no-lockfile", Switch, "false", AGENT),
    flag("agent", Switch, "false", AGENT),
    flag("storage.remote.flush-deadline", Text, "1m", NO_REMOTE),
    flag("storage.remote.read-sample-limit", Text, "5e7", NO_REMOTE),
    flag("storage.remote.read-concurrent-limit", Text, "10", NO_REMOTE),
    flag("storage.remote.read-max-bytes-in-frame", Text, "1048576", NO_REMOTE),
    flag(
        "rules.alert.for-outage-tolerance",
        Text,
        "1h",
        Used("Longest outage after which `for` goes on where it was"),
    ),
    flag(
        "rules.alert.for-grace-period",
        Text,
        "10m",
        Used("Shortest time from a restart to an alert whose `for` was restored"),
    ),
    flag(
        "rules.alert.resend-delay",
        Text,
        "1m",
        Used("Shortest time until an alert is sent again"),
    ),
    flag(
        "rules.max-concurrent-evals",
        Text,
        "4",
        Used("Most independent rules evaluated at a time"),
    ),
    flag(
        "alertmanager.notification-queue-capacity",
        Text,
        "10000",
        Used("Most notifications that wait"),
    ),
    flag(
        "alertmanager.notification-batch-size",
        Text,
        "256",
        Used("Most notifications in one request"),
    ),
    flag(
        "alertmanager.drain-notification-queue-on-shutdown",
        Switch,
        "true",
        Used("Send what waits before stopping"),
    ),
    flag(
        "query.lookback-delta",
        Text,
        "5m",
        Used("How far back the last sample of a series counts"),
    ),
    flag("query.timeout", Text, "2m", Used("Longest time for a query")),
    flag("query.max-concurrency", Text, "20", Used("Most queries at a time")),
    flag(
        "query.log-slower-than",
        Text,
        "10s",
        Used("Queries that take longer are logged, with what they cost; 0s: none"),
    ),
    flag("query.max-samples", Text, "50000000", Used("Most samples that one query may hold")),
    flag(
        "scrape.adjust-timestamps",
        Switch,
        "true",
        Used("Snap scrape timestamps to the schedule"),
    ),
    flag("scrape.timestamp-tolerance", Text, "2ms", Used("By how much they may be moved")),
    flag(
        "scrape.discovery-reload-interval",
        Text,
        "5s",
        Used("How often new targets are taken over"),
    ),
    flag("enable-feature", List, "", Used("Comma separated names of features; may be repeated")),
    flag("log.level", Text, "info", Used("debug, info, warn or error")),
    flag("log.format", Text, "logfmt", Used("logfmt or json")),
    flag("auto-gomaxprocs", Switch, "true", GO),
    flag("auto-gomemlimit", Switch, "true", GO),
    flag("auto-gomemlimit.ratio", Text, "0.9", GO),
    flag("auto-gomemlimit.refresh-interval", Text, "0s", GO),
];

/// Adds the flags to the command that serves.
#[must_use]
pub fn add_to(mut command: Command) -> Command {
    for flag in FLAGS {
        let arg = Arg::new(flag.name).long(flag.name).value_name("VALUE");
        let arg = match flag.meaning {
            Used(help) if flag.default.is_empty() || flag.kind == Switch => arg.help(help),
            Used(help) => arg.help(format!("{help} [default: {}]", flag.default)),
            Ignored(_) | Refused(_) => arg.hide(true),
        };
        command = match flag.kind {
            // Only without `=` is the next argument the value.
            Text => command.arg(arg.action(ArgAction::Set).allow_hyphen_values(true)),
            List => command.arg(arg.action(ArgAction::Append).allow_hyphen_values(true)),
            Switch => {
                let off = format!("no-{}", flag.name);
                let off = Arg::new(off.clone()).long(off).action(ArgAction::SetTrue).hide(true);
                command
                    .arg(arg.action(ArgAction::SetTrue).conflicts_with(off.get_id().clone()))
                    .arg(off)
            }
        };
    }
    command
}

impl RawFlags {
    /// The texts that were given, defaults for the rest.
    #[must_use]
    pub fn from_matches(matches: &ArgMatches) -> Self {
        let mut raw = Self::default();
        let is_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        for flag in FLAGS {
            let off = format!("no-{}", flag.name);
            let (given, values) = match flag.kind {
                Switch if is_given(flag.name) => (true, vec!["true".to_owned()]),
                Switch if is_given(&off) => (true, vec!["false".to_owned()]),
                Text | List if is_given(flag.name) => {
                    let values = matches.get_many::<String>(flag.name);
                    (true, values.into_iter().flatten().cloned().collect())
                }
                _ if flag.default.is_empty() && flag.kind == List => (false, Vec::new()),
                _ => (false, vec![flag.default.to_owned()]),
            };
            raw.values.insert(flag.name, values);
            if given {
                raw.given.push(flag.name);
            }
        }
        raw
    }

    /// The values of a flag: none if it is a list that is empty.
    ///
    /// # Panics
    ///
    /// If there is no such flag.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).unwrap_or_else(|| panic!("BUG: no flag {name}"))
    }

    /// The value of a flag that is no list.
    ///
    /// # Panics
    ///
    /// If there is no such flag.
    #[must_use]
    pub fn one(&self, name: &str) -> &str {
        self.all(name).last().map_or("", String::as_str)
    }

    /// Whether it was given.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// The flags that were given.
    #[must_use]
    pub fn given(&self) -> &[&'static str] {
        &self.given
    }

    /// All flags with their texts, for `/api/v1/status/flags`.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<String, String> {
        self.values.iter().map(|(name, values)| ((*name).to_owned(), values.join(","))).collect()
    }
}
