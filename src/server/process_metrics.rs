//! What does the process use? CPU, memory and descriptors from the kernel.

use std::fs;

use crate::metrics::Registry;

/// The unit of times in /proc, the same on all platforms of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers `process_*`, read anew at each exposition. `started_s` is the
/// start in seconds since the Unix epoch.
pub fn register(registry: &Registry, started_s: f64) {
    registry.computed(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        "gauge",
        move || started_s,
    );
    registry.computed(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        "counter",
        || cpu_seconds().unwrap_or(f64::NAN),
    );
    registry.computed(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        "gauge",
        || status_bytes("VmRSS:").unwrap_or(f64::NAN),
    );
    registry.computed(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        "gauge",
        || status_bytes("VmSize:").unwrap_or(f64::NAN),
    );
    registry.computed("process_open_fds", "Number of open file descriptors.", "gauge", || {
        #[allow(clippy::cast_precision_loss, reason = "a count of descriptors")]
        fs::read_dir("/proc/self/fd").map_or(f64::NAN, |entries| entries.count() as f64)
    });
    registry.computed(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        "gauge",
        || max_fds().unwrap_or(f64::NAN),
    );
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn status_bytes(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kb| kb * 1024.0)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
