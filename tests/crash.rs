//! What was acknowledged is there after kill -9, at any moment: samples of
//! remote writes that were answered with 2xx, and samples of scrapes.
//!
//! A page counts as acknowledged once its target was asked for the next one,
//! as a scrape loop writes one page before it fetches another, or once a query
//! showed it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::remote_write::{Series, body, send};
use common::{Server, free_port, wait_for};

const TARGETS: usize = 4;

/// A round lasts until each target was scraped so often, and a random part of
/// an interval longer.
const SCRAPES: usize = 3;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A number in `0..limit`; splitmix64, so that a printed seed repeats a run.
fn random(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % limit
}

/// Targets whose page holds one number, larger with each request.
struct Pages {
    address: SocketAddr,
    /// The numbers that each target has served.
    served: Arc<Mutex<BTreeMap<usize, Vec<u64>>>>,
    /// Connections that are not at their end.
    open: Arc<AtomicU64>,
}

impl Pages {
    fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let served = Arc::new(Mutex::new(BTreeMap::<usize, Vec<u64>>::new()));
        let next = Arc::new(AtomicU64::new(1));
        let open = Arc::new(AtomicU64::new(0));
        let (kept, connections) = (Arc::clone(&served), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let (kept, next) = (Arc::clone(&kept), Arc::clone(&next));
                let connections = Arc::clone(&connections);
                std::thread::spawn(move || {
                    Self::answer(&stream, &kept, &next);
                    connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, served, open }
    }

    /// Waits until the requests of a dead server are answered: a page for it
    /// must not be taken for one of the next.
    fn settle(&self) {
        // Connections are accepted in turn; when this one is, all before it were.
        let mut last = std::net::TcpStream::connect(self.address).expect("it listens");
        last.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").expect("it listens");
        let _ = std::io::Read::read(&mut last, &mut [0]);
        drop(last);
        wait_for("the last connection's end", || {
            (self.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    fn answer(
        mut stream: &std::net::TcpStream,
        served: &Mutex<BTreeMap<usize, Vec<u64>>>,
        next: &AtomicU64,
    ) {
        let mut lines = BufReader::new(stream).lines();
        while let Some(Ok(first)) = lines.next() {
            while lines.next().is_some_and(|line| line.is_ok_and(|l| !l.is_empty())) {}
            let Some(target) = first.split(['/', ' ']).nth(2).and_then(|t| t.parse().ok()) else {
                return;
            };
            let number = next.fetch_add(1, Ordering::Relaxed);
            served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(target)
                .or_default()
                .push(number);
            let page = format!("page_number {number}\n");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn configuration(&self, interval_ms: u64) -> String {
        let mut text = format!(
            "global: {{scrape_interval: {interval_ms}ms, scrape_timeout: {interval_ms}ms}}\nscrape_configs:\n"
        );
        for target in 0..TARGETS {
            text.push_str(&format!(
                "  - job_name: '{target}'\n    metrics_path: /{target}\n    static_configs: [{{targets: ['{}']}}]\n",
                self.address
            ));
        }
        text
    }

    /// Whether each target was scraped [`SCRAPES`] times since `taken`.
    fn scraped(&self) -> bool {
        let served = self.served.lock().expect("not poisoned");
        (0..TARGETS).all(|t| served.get(&t).is_some_and(|s| s.len() >= SCRAPES))
    }

    /// The acknowledged pages since the last call; of each target all but the
    /// last, and the last if `shown` has it.
    fn take(&self, shown: &BTreeSet<u64>) -> BTreeMap<usize, BTreeSet<u64>> {
        let mut served = self.served.lock().expect("not poisoned");
        let mut taken = std::mem::take(&mut *served);
        for numbers in taken.values_mut() {
            if numbers.last().is_some_and(|last| !shown.contains(last)) {
                numbers.pop();
            }
        }
        taken.into_iter().map(|(t, n)| (t, n.into_iter().collect())).collect()
    }
}

/// Writes one sample after the other and keeps what was acknowledged; queries
/// the pages and keeps what was shown. Both go on while the server is away.
struct Clients {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<i64>>>,
    shown: Arc<Mutex<BTreeSet<u64>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::new(Mutex::new(BTreeSet::new()));
        let writer = std::thread::spawn({
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            move || write(address, &stop, &acknowledged)
        });
        let reader = std::thread::spawn({
            let (stop, shown) = (Arc::clone(&stop), Arc::clone(&shown));
            move || read(address, &stop, &shown)
        });
        Self { stop, acknowledged, shown, threads: vec![writer, reader] }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client ends");
        }
    }
}

fn write(address: SocketAddr, stop: &AtomicBool, acknowledged: &Mutex<Vec<i64>>) {
    let labels = [("__name__", "ack_probe"), ("instance", "probe")];
    let mut last_ms = 0;
    while !stop.load(Ordering::Relaxed) {
        // At most one sample a millisecond, so that none lies in the future.
        let time_ms = now_ms();
        if time_ms <= last_ms {
            std::thread::park_timeout(Duration::from_micros(50));
            continue;
        }
        last_ms = time_ms;
        let samples = [(time_ms, time_ms as f64)];
        let request = body(&[Series { labels: &labels, samples: &samples }]);
        match send(address, &request) {
            Ok(answer) if answer.status / 100 == 2 => {
                acknowledged.lock().expect("not poisoned").push(time_ms);
            }
            _ => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}

fn read(address: SocketAddr, stop: &AtomicBool, shown: &Mutex<BTreeSet<u64>>) {
    while !stop.load(Ordering::Relaxed) {
        let path = "/api/v1/query?query=page_number";
        if let Ok(answer) = common::request(address, "GET", path, &[], &[])
            && answer.status == 200
        {
            let found = answer.json()["data"]["result"].as_array().cloned().unwrap_or_default();
            let numbers = found.iter().filter_map(|s| s["value"][1].as_str()?.parse::<u64>().ok());
            shown.lock().expect("not poisoned").extend(numbers);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What was acknowledged between one start and the kill after it.
struct Round {
    end_ms: i64,
    length_ms: i64,
    writes: BTreeSet<i64>,
    pages: BTreeMap<usize, BTreeSet<u64>>,
}

impl Round {
    fn count_pages(&self) -> usize {
        self.pages.values().map(BTreeSet::len).sum()
    }

    /// Fails if the server lacks anything of this round.
    fn check(&self, server: &Server, when: &str) {
        let found = self.samples(server, "ack_probe", |t, _| t);
        let lost: Vec<_> = self.writes.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "{when}: of {} writes {} are lost, from {:?} to {:?}; the newest write is {:?}",
            self.writes.len(),
            lost.len(),
            lost.first(),
            lost.last(),
            self.writes.last()
        );
        for (target, expected) in &self.pages {
            let selector = format!("page_number{{job=\"{target}\"}}");
            let found = self.samples(server, &selector, |_, value| value as u64);
            let lost: Vec<_> = expected.difference(&found).collect();
            // A page that came later than its time-out was never taken.
            let up = format!("up{{job=\"{target}\"}}");
            let late = self.samples(server, &up, |t, up| (up == 0.0).then_some(t));
            let late = late.into_iter().flatten().count();
            assert!(
                lost.len() <= late,
                "{when}: target {target} lost {lost:?} of {expected:?}, {late} scrapes failed"
            );
        }
    }

    fn samples<T: Ord>(
        &self,
        server: &Server,
        selector: &str,
        key: impl Fn(i64, f64) -> T,
    ) -> BTreeSet<T> {
        // Snapped scrapes lie a little before or after their request.
        let query = format!("{selector}[{}ms]", self.length_ms + 4_000);
        let result = server.query(&query, Some((self.end_ms + 2_000) as f64 / 1000.0));
        let samples = result.iter().flat_map(|s| s["values"].as_array().expect("a matrix"));
        samples
            .map(|sample| {
                let time_ms = (sample[0].as_f64().expect("a time") * 1000.0).round() as i64;
                let value = sample[1].as_str().expect("a value").parse().expect("a number");
                key(time_ms, value)
            })
            .collect()
    }
}

/// Few rounds in the ordinary test run; `NARTHEX_CRASH_ROUNDS` more, and with
/// `NARTHEX_CRASH_INTERVAL_MS` shorter ones. The last rounds must not start
/// slower than the first: what recovery reads does not grow.
#[test]
fn acknowledged_samples_survive_kill_9() {
    let rounds = from_environment("NARTHEX_CRASH_ROUNDS", 4);
    let interval_ms = from_environment("NARTHEX_CRASH_INTERVAL_MS", 1_000);
    let mut seed = from_environment("NARTHEX_CRASH_SEED", now_ms().unsigned_abs());
    println!("NARTHEX_CRASH_SEED={seed}");

    let directory = tempfile::tempdir().expect("a folder");
    let pages = Pages::serve();
    let port = free_port();
    let configuration = pages.configuration(interval_ms);
    let flags = ["--web.enable-remote-write-receiver", "--config.file=prometheus.yml"];
    let mut started_ms = now_ms();
    let mut server = Server::start_at(directory.path(), Some(&configuration), &flags, port);
    let clients = Clients::start(server.address);
    let mut past = Vec::new();
    let mut starts = Vec::new();
    for number in 0..rounds {
        wait_for("scrapes and writes", || {
            let written = !clients.acknowledged.lock().expect("not poisoned").is_empty();
            (pages.scraped() && written).then_some(())
        });
        // Not a wait for something: the kill shall fall anywhere in an interval.
        let more_us = random(&mut seed, interval_ms * 1000);
        std::thread::sleep(Duration::from_micros(more_us));
        server.kill();
        pages.settle();
        let end_ms = now_ms();
        let round = Round {
            end_ms,
            length_ms: end_ms - started_ms,
            writes: std::mem::take(&mut *clients.acknowledged.lock().expect("not poisoned"))
                .into_iter()
                .collect(),
            pages: pages.take(&clients.shown.lock().expect("not poisoned")),
        };
        started_ms = now_ms();
        let start = Instant::now();
        server = Server::start_at(directory.path(), Some(&configuration), &flags, port);
        starts.push(start.elapsed());
        round.check(&server, &format!("round {number}"));
        past.push(round);
    }
    clients.end();
    let writes: usize = past.iter().map(|round| round.writes.len()).sum();
    let scrapes: usize = past.iter().map(Round::count_pages).sum();
    for (number, round) in past.iter().enumerate() {
        round.check(&server, &format!("round {number}, after all"));
    }
    let tenth = starts.len().div_ceil(10);
    let mean = |part: &[Duration]| part.iter().sum::<Duration>() / part.len() as u32;
    println!(
        "{rounds} rounds, {writes} writes and {scrapes} scrapes kept; ready after at most {:?}, on average {:?} in the first tenth, {:?} in the last",
        starts.iter().max().expect("a round"),
        mean(&starts[..tenth]),
        mean(&starts[starts.len() - tenth..]),
    );
}
