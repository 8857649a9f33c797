//! How does the log look? One line per event, as logfmt or JSON, on standard
//! error.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging. `level` is debug, info, warn or error; `json` selects the
/// format.
pub fn start(level: &str, json: bool) {
    start_with(level, json, std::io::stderr);
}

fn start_with<W>(level: &str, json: bool, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Libraries below us are only of interest when something goes wrong.
    let filter = EnvFilter::new(format!("warn,narthex={level},narthex_storage={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .event_format(LineFormat { json });
    // Fails only if logging was started before, as tests may have.
    let _ = builder.try_init();
}

/// One event as one line: time, level, source, message, fields.
struct LineFormat {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let metadata = event.metadata();
        let level = metadata.level().as_str();
        let component = metadata.target().trim_start_matches("narthex::");
        let component = component.split("::").next().unwrap_or(component);
        let mut line = Line { json: self.json, text: String::with_capacity(160) };
        line.put("time", &time);
        line.put("level", level);
        line.put("component", component);
        event.record(&mut line);
        if self.json { writeln!(out, "{{{}}}", line.text) } else { writeln!(out, "{}", line.text) }
    }
}

struct Line {
    json: bool,
    text: String,
}

impl Line {
    fn put(&mut self, name: &str, value: &str) {
        let name = if name == "message" { "msg" } else { name };
        if self.json {
            let comma = if self.text.is_empty() { "" } else { "," };
            let value = serde_json::Value::from(value);
            let _ = write!(self.text, "{comma}\"{name}\":{value}");
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let plain = !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=' && b != b'\\');
        if plain {
            let _ = write!(self.text, "{name}={value}");
        } else {
            let _ = write!(self.text, "{name}={value:?}");
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), &value.to_string());
    }
}
