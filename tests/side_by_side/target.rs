//! A server whose pages depend on nothing but how often the same scraper
//! asked for them, so that two scrapers see the same sequence.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request.
pub struct Ask {
    /// How many requests for this page the scraper made before.
    pub n: usize,
    /// A moment a little before the first request, in milliseconds.
    pub base_ms: i64,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Ask {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

/// What a request gets.
pub enum Answer {
    /// Status line's rest, headers, body.
    Page(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the scraper waits.
    Silence,
}

impl Answer {
    /// Status 200 with a content type; an empty one is left out.
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let kind = (!content_type.is_empty()).then(|| ("Content-Type", content_type.to_owned()));
        Self::Page("200 OK", kind.into_iter().collect(), body.into())
    }
}

/// Serves on a free port of loopback until the process ends.
pub fn serve(base_ms: i64, answer: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    let counts: Arc<Mutex<HashMap<(bool, String), usize>>> = Arc::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, counts) = (Arc::clone(&answer), Arc::clone(&counts));
            std::thread::spawn(move || {
                let count = |ask: &Ask| {
                    let path = ask.target.split('?').next().unwrap_or_default().to_owned();
                    let peer = ask.header("user-agent").starts_with("Prometheus/");
                    let mut counts = counts.lock().expect("not poisoned");
                    let n = counts.entry((peer, path)).or_default();
                    *n += 1;
                    *n - 1
                };
                let _ = converse(stream, base_ms, &*answer, count);
            });
        }
    });
    address
}

fn converse(
    mut stream: TcpStream,
    base_ms: i64,
    answer: &(dyn Fn(&Ask) -> Answer + Send + Sync),
    count: impl Fn(&Ask) -> usize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut ask = Ask { n: 0, base_ms, target, headers: Vec::new() };
        for line in lines.by_ref() {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            ask.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        ask.n = count(&ask);
        match answer(&ask) {
            Answer::Page(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                stream.write_all(format!("{head}\r\n").as_bytes())?;
                stream.write_all(&body)?;
            }
            Answer::Raw(bytes) => return stream.write_all(&bytes),
            // The scraper gives up and closes; that ends the reading here.
            Answer::Silence => {}
        }
    }
    Ok(())
}
