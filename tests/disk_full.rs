//! The disk is full for a while: queries answer, scrapes and alerts go on from
//! memory, remote writes are refused, and writing resumes by itself.
//!
//! The disk is a small tmpfs in a mount namespace of its own; where that is not
//! allowed the test says so and ends. `NARTHEX_FULL_SCRAPES` says how many
//! scrapes long the disk is full.

mod common;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::remote_write::{Series, body, send};
use common::{Server, free_port, narthex, wait_for};

/// Writing resumes so soon after there is room.
const RESUMES: Duration = Duration::from_secs(10);

/// Jobs that scrape the server itself, some hundred series each.
const JOBS: usize = 10;

/// Mounts a small tmpfs on `data`, then becomes the binary.
const SCRIPT: &str = r#"mount -t tmpfs -o size=6m none data && exec "$0" "$@""#;

fn in_a_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", SCRIPT]);
    command
}

/// Whether a tmpfs can be mounted here; prints why not.
fn is_possible(directory: &Path) -> bool {
    let mut command = in_a_namespace();
    let tried = command.arg("true").current_dir(directory).stderr(Stdio::null()).status();
    let is_possible = tried.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !is_possible {
        println!("skipped: no mount namespace of one's own here ({tried:?})");
    }
    is_possible
}

/// A file that takes all room of the disk.
struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    /// In the data directory as the server sees it, which is not ours.
    fn new(server: &Server) -> Self {
        let root = PathBuf::from(format!("/proc/{}/root", server.child.id()));
        let data = server.directory.join("data");
        let path = root.join(data.strip_prefix("/").expect("absolute")).join("filler");
        let file = File::create(&path).expect("a file in the data directory");
        Self { path, file }
    }

    /// Takes what is free; says how many bytes that was.
    fn fill(&mut self) -> usize {
        let page = [0; 4096];
        std::iter::from_fn(|| self.file.write(&page).ok().filter(|n| *n > 0)).sum()
    }

    fn free(self) {
        std::fs::remove_file(&self.path).expect("remove");
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

fn write_one(server: &Server) -> u16 {
    let labels = [("__name__", "written"), ("by", "test")];
    let series = Series { labels: &labels, samples: &[(now_ms(), 1.0)] };
    send(server.address, &body(&[series])).expect("an answer").status
}

fn lags(server: &Server) -> bool {
    let metrics = server.get("/metrics").expect("an answer").text();
    metrics.lines().any(|line| line == "narthex_storage_log_lags 1")
}

fn configuration(port: u16) -> String {
    let job = |i| {
        format!("  - {{job_name: self{i}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n")
    };
    let jobs: String = (0..JOBS).map(job).collect();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml]\nscrape_configs:\n{jobs}"
    )
}

#[test]
fn a_full_disk_is_survived_from_memory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(directory.path().join("data")).expect("mkdir");
    if !is_possible(directory.path()) {
        return;
    }
    let port = free_port();
    let rules = "groups: [{name: g, rules: [{alert: Lags, expr: narthex_storage_log_lags == 1}]}]";
    std::fs::write(directory.path().join("rules.yml"), rules).expect("rules");
    let mut command = in_a_namespace();
    command.arg(narthex());
    let flags = ["--web.enable-remote-write-receiver"];
    let configuration = Some(configuration(port));
    let server =
        Server::spawn_with(command, directory.path(), configuration.as_deref(), &flags, port);
    server.wait_ready();
    let mut slowest = Duration::ZERO;
    let mut count = |at: Option<f64>| {
        let asked = Instant::now();
        let found = server.query("count_over_time(up[1h])", at);
        slowest = slowest.max(asked.elapsed());
        found
    };
    let scrapes = || server.scalar("min(count_over_time(up[1h]))", None).unwrap_or(0.0);
    wait_for("some scrapes", || (scrapes() >= 3.0).then_some(()));
    assert_eq!(write_one(&server), 204);
    // Whatever lies before the scrape before this one is complete.
    let before = server.scalar("min(timestamp(up))", None).expect("a time") - 1.0;
    let kept = count(Some(before));
    assert_eq!(kept.len(), JOBS);

    let mut filler = Filler::new(&server);
    assert!(filler.fill() > 0);
    wait_for("the log to lag", || {
        filler.fill();
        lags(&server).then_some(())
    });
    let at_full = scrapes();
    let wanted = std::env::var("NARTHEX_FULL_SCRAPES").ok().and_then(|n| n.parse().ok());
    let wanted: f64 = wanted.unwrap_or(3.0);
    let began = Instant::now();
    let long = began + Duration::from_secs_f64(60.0 + 2.0 * wanted);
    while scrapes() < at_full + wanted {
        assert!(Instant::now() < long, "scrapes do not go on");
        filler.fill();
        assert_eq!(write_one(&server), 503, "the sender keeps what it has");
        assert_eq!(count(Some(before)), kept, "what was there is there");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(lags(&server));
    wait_for("alerts that go on", || {
        let alerts = server.query("ALERTS{alertname=\"Lags\",alertstate=\"firing\"}", None);
        (alerts.len() == JOBS).then_some(())
    });
    let full = began.elapsed();

    filler.free();
    let freed = Instant::now();
    wait_for("remote writes to be taken", || (write_one(&server) == 204).then_some(()));
    wait_for("the log to catch up", || (!lags(&server)).then_some(()));
    let took = freed.elapsed();
    assert_eq!(count(Some(before)), kept);
    assert!(scrapes() >= at_full + wanted, "what was only in memory is there");
    println!(
        "full for {full:?}, slowest query {slowest:?}, writing resumed {took:?} after there was room"
    );
    assert!(took < RESUMES, "writing resumed after {took:?}");
}
