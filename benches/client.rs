//! What does a page cost the thread that fetches it? CPU time of a scrape of
//! 80 kB over a kept connection: our client and reqwest, against a server on
//! another thread.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use narthex::client::{HttpClient, Request, install_provider};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use url::Url;

const PAGE_BYTES: usize = 80_000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Answers every request with the same page.
fn serve() -> Url {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
             Content-Length: {PAGE_BYTES}\r\n\r\n"
        );
        let answer: &[u8] = [head.into_bytes(), vec![b'x'; PAGE_BYTES]].concat().leak();
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    Url::parse(&format!("http://{address}/metrics")).expect("a URL")
}

fn fetch(c: &mut Criterion) {
    install_provider();
    let (url, runtime) = (serve(), runtime());
    let mut group = c.benchmark_group("fetch");
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    let mut page = Vec::with_capacity(2 * PAGE_BYTES);

    let client = HttpClient::new(&narthex::config::HttpClientConfig::default()).expect("a client");
    let request = Request::new(http::Method::GET, url.clone());
    group.bench_function("narthex", |b| {
        b.iter_custom(|count| {
            let before = cpu();
            runtime.block_on(async {
                for _ in 0..count {
                    page.clear();
                    let mut answer = client.send(request.clone()).await.expect("an answer");
                    answer.read_into(&mut page, 1 << 20).await.expect("a page");
                    assert_eq!(page.len(), PAGE_BYTES);
                }
            });
            cpu() - before
        });
    });

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    group.bench_function("reqwest", |b| {
        b.iter_custom(|count| {
            let before = cpu();
            runtime.block_on(async {
                for _ in 0..count {
                    page.clear();
                    let request = client.get(url.clone()).timeout(Duration::from_secs(10));
                    let mut answer = request.send().await.expect("an answer");
                    while let Some(chunk) = answer.chunk().await.expect("a page") {
                        page.extend_from_slice(&chunk);
                    }
                    assert_eq!(page.len(), PAGE_BYTES);
                }
            });
            cpu() - before
        });
    });
    group.finish();
}

criterion_group!(benches, fetch);
criterion_main!(benches);
