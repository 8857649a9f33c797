//! What does the machine have, and this process hold of it?

use std::os::unix::fs::FileExt as _;
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

/// Reads what the process holds in memory that the kernel cannot drop, in
/// bytes; what is swapped out does not count.
///
/// Of the files that tell it this one costs least, and it stays open: it is read
/// every second, also by a process that does nothing else.
pub(super) fn anonymous_memory() -> Gauge {
    let file = std::fs::File::open("/proc/self/statm").ok();
    let page_bytes = rustix::param::page_size() as u64;
    Arc::new(move || {
        let mut text = [0; 128];
        let len = file.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut fields = std::str::from_utf8(&text[..len]).ok()?.split_whitespace().skip(1);
        let mut pages = || fields.next()?.parse::<u64>().ok();
        let (resident, shared) = (pages()?, pages()?);
        Some(resident.saturating_sub(shared) * page_bytes)
    })
}

/// Reads the size of the disk with this path.
pub(super) fn disk_capacity(path: &Path) -> Gauge {
    let path = path.to_owned();
    Arc::new(move || {
        let disk = rustix::fs::statvfs(&path).ok()?;
        Some(disk.f_blocks.saturating_mul(disk.f_frsize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_taken_is_seen() {
        let gauge = anonymous_memory();
        let seen = || {
            let before = gauge().expect("this system tells");
            let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
            let with = gauge().expect("this system tells");
            drop(taken);
            with >= before + (32 << 20)
        };
        // Another test of this process may give as much back meanwhile.
        assert!((0..10).any(|_| seen()), "ten times 64 MiB were not seen");
    }
}
