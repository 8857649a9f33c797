//! What does the machine have, and this process hold of it?

use std::path::Path;
use std::sync::Arc;

use narthex_storage::db::Gauge;

/// What the control group or the machine has, in bytes.
pub(super) fn available_memory() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    });
    let machine = machine.unwrap_or(1 << 30);
    group.map_or(machine, |group| group.min(machine))
}

/// What the process holds that the kernel cannot drop, in bytes.
pub(super) fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((kilobytes("RssAnon:")? + kilobytes("VmSwap:").unwrap_or(0)) * 1024)
}

/// Reads the size of the disk with this path.
pub(super) fn disk_capacity(path: &Path) -> Gauge {
    let path = path.to_owned();
    Arc::new(move || {
        let disk = rustix::fs::statvfs(&path).ok()?;
        Some(disk.f_blocks.saturating_mul(disk.f_frsize))
    })
}
