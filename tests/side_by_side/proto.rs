//! Writes pages in the protobuf format, field by field.

/// An encoded message under construction.
#[derive(Default, Clone)]
pub struct Message(Vec<u8>);

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

const fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn key(&mut self, tag: u64, kind: u64) {
        varint(&mut self.0, tag << 3 | kind);
    }

    fn bytes(mut self, tag: u64, bytes: &[u8]) -> Self {
        self.key(tag, 2);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, tag: u64, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }

    pub fn message(self, tag: u64, inner: Self) -> Self {
        self.bytes(tag, &inner.0)
    }

    pub fn uint(mut self, tag: u64, n: u64) -> Self {
        self.key(tag, 0);
        varint(&mut self.0, n);
        self
    }

    pub fn sint(self, tag: u64, n: i64) -> Self {
        self.uint(tag, zigzag(n))
    }

    pub fn double(mut self, tag: u64, value: f64) -> Self {
        self.key(tag, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Packed, as the format asks for.
    pub fn sints(self, tag: u64, values: &[i64]) -> Self {
        let mut packed = Vec::new();
        values.iter().for_each(|n| varint(&mut packed, zigzag(*n)));
        self.bytes(tag, &packed)
    }

    pub fn doubles(self, tag: u64, values: &[f64]) -> Self {
        let packed: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(tag, &packed)
    }

    /// With its length before it.
    pub fn delimited(self) -> Vec<u8> {
        let mut out = Vec::new();
        varint(&mut out, self.0.len() as u64);
        out.extend(self.0);
        out
    }
}

/// Kinds of families.
pub const COUNTER: u64 = 0;
pub const GAUGE: u64 = 1;
pub const SUMMARY: u64 = 2;
pub const UNTYPED: u64 = 3;
pub const HISTOGRAM: u64 = 4;
pub const GAUGE_HISTOGRAM: u64 = 5;

/// A family with these metrics.
pub fn family(name: &str, kind: u64, unit: &str, metrics: Vec<Message>) -> Vec<u8> {
    let mut out = Message::new().text(1, name).text(2, &format!("Help of {name}.")).uint(3, kind);
    for metric in metrics {
        out = out.message(4, metric);
    }
    if !unit.is_empty() {
        out = out.text(5, unit);
    }
    out.delimited()
}

/// A metric with these labels.
pub fn metric(labels: &[(&str, &str)]) -> Message {
    labels.iter().fold(Message::new(), |out, (name, value)| {
        out.message(1, Message::new().text(1, name).text(2, value))
    })
}

/// An exemplar with one label; a timestamp in milliseconds.
pub fn exemplar(trace: &str, value: f64, timestamp_ms: Option<i64>) -> Message {
    let label = Message::new().text(1, "trace_id").text(2, trace);
    let out = Message::new().message(1, label).double(2, value);
    let Some(t) = timestamp_ms else { return out };
    let nanos = (t % 1000 * 1_000_000) as u64;
    out.message(3, Message::new().uint(1, (t / 1000) as u64).uint(2, nanos))
}

/// A span of buckets.
pub fn span(offset: i64, length: u64) -> Message {
    Message::new().sint(1, offset).uint(2, length)
}

/// A classic bucket.
pub fn bucket(count: u64, bound: f64) -> Message {
    Message::new().uint(1, count).double(2, bound)
}
