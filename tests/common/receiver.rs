//! A real HTTP server that keeps what is posted to it, in the place of an
//! Alertmanager or of whom a webhook tells.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A receiver. Its threads end with the process.
pub struct Receiver {
    pub address: SocketAddr,
    bodies: Arc<Mutex<Vec<Value>>>,
    refuses: Arc<AtomicBool>,
}

impl Receiver {
    /// Starts listening on a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let receiver = Self {
            address: listener.local_addr().expect("bound"),
            bodies: Arc::default(),
            refuses: Arc::default(),
        };
        let (bodies, refuses) = (receiver.bodies.clone(), receiver.refuses.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (bodies, refuses) = (bodies.clone(), refuses.clone());
                std::thread::spawn(move || answer(stream, &bodies, &refuses));
            }
        });
        receiver
    }

    /// Everything that was accepted so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().expect("no panic").clone()
    }

    /// The alerts of everything that was accepted, where each body is a list.
    pub fn alerts(&self) -> Vec<Value> {
        self.bodies().iter().flat_map(|body| body.as_array().cloned().unwrap_or_default()).collect()
    }

    /// From now on refuses (503), or accepts again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

/// Answers the requests of one connection until it ends.
fn answer(stream: TcpStream, bodies: &Mutex<Vec<Value>>, refuses: &AtomicBool) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut len = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                len = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).ok()?;
        let status = if refuses.load(Ordering::SeqCst) {
            "503 Service Unavailable"
        } else {
            bodies.lock().expect("no panic").push(serde_json::from_slice(&body).expect("JSON"));
            "200 OK"
        };
        write!(writer, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").ok()?;
    }
}
