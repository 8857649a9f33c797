//! What end-to-end tests share: the real binary on a free port, a client
//! without surprises, waiting for conditions with a deadline, real peers.
#![allow(dead_code, reason = "each test uses its part")]

pub mod remote_write;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take to become true.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A port on which nothing listens just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

/// Calls `check` until it gives a value; panics with `what` after the deadline.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in answer {}: {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let broken = || std::io::Error::other("not an HTTP answer");
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(broken)?;
    let mut body = answer[split + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body).ok_or_else(broken)?;
    }
    Ok(Answer { status, headers: head, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A running narthex. Killed when dropped.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    pub directory: PathBuf,
}

impl Server {
    /// Starts the binary in `directory` with `configuration` (none: without a
    /// file) and waits until it is ready.
    pub fn start(directory: &Path, configuration: Option<&str>, flags: &[&str]) -> Self {
        Self::start_at(directory, configuration, flags, free_port())
    }

    /// As [`Server::start`], on a port of the caller's.
    pub fn start_at(
        directory: &Path,
        configuration: Option<&str>,
        flags: &[&str],
        port: u16,
    ) -> Self {
        let server = Self::spawn(directory, configuration, flags, port);
        server.wait_ready();
        server
    }

    /// Starts the binary and waits for nothing.
    pub fn spawn(directory: &Path, configuration: Option<&str>, flags: &[&str], port: u16) -> Self {
        Self::spawn_with(Command::new(narthex()), directory, configuration, flags, port)
    }

    /// As [`Server::spawn`], by a command that hands its arguments on to the
    /// binary and becomes it.
    pub fn spawn_with(
        mut command: Command,
        directory: &Path,
        configuration: Option<&str>,
        flags: &[&str],
        port: u16,
    ) -> Self {
        command.current_dir(directory).stdout(Stdio::null()).stdin(Stdio::null());
        if let Some(text) = configuration {
            std::fs::write(directory.join("prometheus.yml"), text).expect("configuration");
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join("narthex.log"))
            .expect("log");
        command.stderr(log);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.args(flags);
        let child = command.spawn().expect("the binary starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { child, address, directory: directory.to_owned() }
    }

    pub fn wait_ready(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.get("/-/ready").is_ok_and(|a| a.status == 200) {
            assert!(Instant::now() < deadline, "not ready; log:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("narthex.log")).unwrap_or_default()
    }

    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        request(self.address, "GET", path, &[], &[])
    }

    pub fn post_form(&self, path: &str, form: &str) -> Answer {
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        request(self.address, "POST", path, &kind, form.as_bytes()).expect("an answer")
    }

    /// The result of an instant query, at `time` seconds or now.
    pub fn query(&self, query: &str, time: Option<f64>) -> Vec<Value> {
        let at = time.map_or(String::new(), |t| format!("&time={t:.3}"));
        let answer =
            self.get(&format!("/api/v1/query?query={}{at}", encode(query))).expect("an answer");
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["data"]["result"].as_array().expect("a list").clone()
    }

    /// The value of the only series of an instant query.
    pub fn scalar(&self, query: &str, time: Option<f64>) -> Option<f64> {
        let result = self.query(query, time);
        let [only] = result.as_slice() else { return None };
        only["value"][1].as_str()?.parse().ok()
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the process to stop and waits for its end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        signal(&self.child, rustix::process::Signal::TERM);
        self.child.wait().expect("it ends")
    }

    pub fn hang_up(&self) {
        signal(&self.child, rustix::process::Signal::HUP);
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("a process id"), signal).expect("it is ours");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of narthex:\n{}", self.log());
        }
    }
}

/// The binary under test: that of this build, or `NARTHEX_BINARY`, so that
/// figures can be those of a release build.
pub fn narthex() -> PathBuf {
    std::env::var_os("NARTHEX_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_narthex")), PathBuf::from)
}

/// A real peer program, or `None` with a printed reason.
pub fn peer(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("NARTHEX_PEERS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/usr/bin");
    let found = named.into_iter().chain([beside]).map(|d| d.join(name)).find(|p| p.is_file());
    if found.is_none() {
        println!("skipped: {name} is neither in $NARTHEX_PEERS nor in target/peers/usr/bin");
    }
    found
}

/// Runs `PROGRAM test rules FILE`: its exit code, and what it said, without
/// white space at the ends of lines and empty lines.
pub fn test_rules(program: &Path, file: &Path) -> (Option<i32>, Vec<String>) {
    let output = Command::new(program).args(["test", "rules"]).arg(file).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    (output.status.code(), lines.map(ToOwned::to_owned).collect())
}

/// A peer that runs. Killed when dropped.
pub struct Peer(pub Child);

impl Peer {
    /// Starts a peer and waits until `path` on `address` answers 200.
    pub fn start(command: &mut Command, address: SocketAddr, path: &str) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let peer = Self(child);
        wait_for("the peer", || {
            request(address, "GET", path, &[], &[]).ok().filter(|a| a.status == 200)
        });
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
