//! Remote write 1.0 from the sender's side.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::SocketAddr;

use super::{Answer, request};

/// One series of a request: labels, and samples as milliseconds and value.
pub struct Series<'a> {
    pub labels: &'a [(&'a str, &'a str)],
    pub samples: &'a [(i64, f64)],
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// The body of a request.
pub fn body(series: &[Series<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for s in series {
        let mut one = Vec::new();
        for (name, value) in s.labels {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut one, 1, &label);
        }
        for (timestamp_ms, value) in s.samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(0x10);
            varint(&mut sample, *timestamp_ms as u64);
            bytes(&mut one, 2, &sample);
        }
        bytes(&mut message, 1, &one);
    }
    snap::raw::Encoder::new().compress_vec(&message).expect("it fits")
}

/// Sends a body.
pub fn send(address: SocketAddr, body: &[u8]) -> std::io::Result<Answer> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    request(address, "POST", "/api/v1/write", &headers, body)
}
