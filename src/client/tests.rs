//! The client against real servers on loopback.

use std::sync::{Arc, Mutex};

use super::testing::{Answer, Authority, ok, serve, serve_tls, socket_to};
use super::*;
use crate::config::{
    Authorization, BasicAuth, OAuth2, ProxyConfig, Secret, SecretSource, TlsConfig,
};

fn get(url: Url) -> Request {
    Request { timeout: Duration::from_secs(20), ..Request::new(Method::GET, url) }
}

fn client(config: &HttpClientConfig) -> HttpClient {
    HttpClient::new(config).expect("valid")
}

fn plain() -> HttpClient {
    client(&HttpClientConfig::default())
}

async fn text(client: &HttpClient, url: Url) -> Result<String, ClientError> {
    let mut response = client.send(get(url)).await?;
    let body = response.read(1 << 20).await?;
    Ok(format!("{} {}", response.status.as_u16(), String::from_utf8_lossy(&body)))
}

fn inline(text: &str) -> SecretSource {
    SecretSource::Inline(Secret::new(text.to_owned()))
}

fn bytes(text: &str) -> Answer {
    Answer::Bytes(text.as_bytes().to_vec())
}

#[tokio::test]
async fn connections_are_kept_and_reopened_when_the_server_closed_them() {
    let server = serve(|_| ok("text/plain", b"page")).await;
    let client = plain();
    for _ in 0..3 {
        assert_eq!(text(&client, server.url("/x?y=1")).await.expect("answers"), "200 page");
    }
    assert_eq!(server.connections(), 1);
    assert!(server.heads()[0].starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{:?}", server.heads());

    let closing =
        serve(|_| Answer::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())).await;
    for _ in 0..3 {
        assert_eq!(text(&client, closing.url("/")).await.expect("answers"), "200 ok");
    }
}

#[tokio::test]
async fn a_connection_with_more_than_the_answer_is_not_used_again() {
    let server = serve(|_| {
        bytes("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npageHTTP/1.1 408 Late\r\n\r\n")
    })
    .await;
    let client = plain();
    for _ in 0..3 {
        assert_eq!(text(&client, server.url("/")).await.expect("answers"), "200 page");
    }
    assert_eq!(server.connections(), 3);
    // The end of the answer comes with the next bytes in one read.
    let server = serve(|_| {
        let body = vec![b'x'; 100_000];
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n".to_vec();
        answer.extend_from_slice(&body);
        Answer::Bytes(answer)
    })
    .await;
    for _ in 0..3 {
        let answer = text(&client, server.url("/")).await.expect("answers");
        assert_eq!(answer.len(), "200 ".len() + 99_999);
    }
    assert_eq!(server.connections(), 3);
}

/// Sockets that stand behind the same URL are different servers, also when
/// connections are kept.
#[tokio::test]
async fn a_socket_takes_the_place_of_the_host() {
    let directory = tempfile::tempdir().expect("temporary");
    let (first, second) = (directory.path().join("1.sock"), directory.path().join("2.sock"));
    let server = serve(|_| ok("text/plain", b"one")).await;
    let authority = Authority::new();
    let tls = Arc::new(Mutex::new(Arc::new(authority.server("same.test", None, false))));
    let secured = serve_tls(tls, |_| ok("text/plain", b"two")).await;
    let plain_two = serve(|_| ok("text/plain", b"two")).await;
    socket_to(&server, &first);
    let client = client(&HttpClientConfig {
        tls: TlsConfig { ca: Some(inline(&authority.pem())), ..TlsConfig::default() },
        ..HttpClientConfig::default()
    });
    let url = |scheme: &str| Url::parse(&format!("{scheme}://same.test/metrics")).expect("valid");
    let ask = async |scheme: &str, path: &std::path::Path| {
        let mut request = get(url(scheme));
        request.set_socket(path.into());
        let mut response = client.send(request).await?;
        response.read(1 << 20).await
    };
    let refused = ask("http", &second).await.expect_err("nobody listens");
    let path = second.display();
    assert_eq!(
        refused.to_string(),
        format!("dial unix {path}: connect: no such file or directory")
    );
    socket_to(&plain_two, &second);
    for _ in 0..2 {
        assert_eq!(ask("http", &first).await.expect("answers"), b"one");
        assert_eq!(ask("http", &second).await.expect("answers"), b"two");
    }
    assert_eq!((server.connections(), plain_two.connections()), (1, 1));
    assert!(server.heads()[0].contains("\r\nHost: same.test\r\n"), "{:?}", server.heads());
    let third = directory.path().join("3.sock");
    socket_to(&secured, &third);
    assert_eq!(ask("https", &third).await.expect("answers"), b"two");
}

#[tokio::test]
async fn every_framing_of_a_body_is_read() {
    let server = serve(|request| match request.split(' ').nth(1) {
        Some("/chunked") => bytes(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nwiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\n",
        ),
        Some("/close") => Answer::Last(b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec()),
        Some("/continue") => {
            bytes("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n!")
        }
        _ => bytes("HTTP/1.1 204 No Content\r\n\r\n"),
    })
    .await;
    let client = plain();
    for (path, expected) in [
        ("/chunked", "200 wikipedia"),
        ("/close", "200 until the end"),
        ("/continue", "404 !"),
        ("/empty", "204 "),
        ("/chunked", "200 wikipedia"),
    ] {
        assert_eq!(text(&client, server.url(path)).await.expect(path), expected);
    }
}

#[tokio::test]
async fn broken_answers_are_errors() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "malformed"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "malformed"),
        ("", "EOF"),
    ] {
        let server = serve(move |_| Answer::Last(answer.as_bytes().to_vec())).await;
        let error = text(&plain(), server.url("/")).await.expect_err(answer).to_string();
        assert!(error.contains(expected), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn slow_and_endless_answers_end_at_their_limits() {
    let slow =
        serve(|_| Answer::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec())).await;
    let mut request = get(slow.url("/"));
    request.timeout = Duration::from_millis(50);
    let mut response = plain().send(request).await.expect("head");
    assert!(matches!(response.read(100).await, Err(ClientError::Timeout)));

    let silent = serve(|_| Answer::Hang(Vec::new())).await;
    let mut request = get(silent.url("/"));
    request.timeout = Duration::from_millis(50);
    assert!(matches!(plain().send(request).await, Err(ClientError::Timeout)));

    let endless =
        serve(|_| Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 8192])).await;
    let mut response = plain().send(get(endless.url("/"))).await.expect("head");
    assert!(matches!(response.read(100_000).await, Err(ClientError::TooLarge { .. })));

    let header =
        serve(|_| Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: bcdefgh\r\n".repeat(99)))
            .await;
    assert!(matches!(plain().send(get(header.url("/"))).await, Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn nobody_listening_reads_as_in_prometheus() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let url = Url::parse(&format!("http://{address}/metrics")).expect("url");
    let error = text(&plain(), url).await.expect_err("refused").to_string();
    assert_eq!(error, format!("dial tcp {address}: connect: connection refused"));
}

#[tokio::test]
async fn credentials_are_read_for_each_request() {
    let server = serve(|_| ok("text/plain", b"")).await;
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").expect("writes");
    let config = HttpClientConfig {
        authorization: Some(Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Some(SecretSource::File(file.clone())),
        }),
        ..HttpClientConfig::default()
    };
    let bearer = client(&config);
    text(&bearer, server.url("/")).await.expect("answers");
    std::fs::write(&file, "second\n").expect("writes");
    text(&bearer, server.url("/")).await.expect("answers");
    let basic = client(&HttpClientConfig {
        basic_auth: Some(BasicAuth { username: inline("u"), password: Some(inline("p")) }),
        ..HttpClientConfig::default()
    });
    text(&basic, server.url("/")).await.expect("answers");
    let heads = server.heads();
    assert!(heads[0].contains("authorization: Bearer first\r\n"), "{heads:?}");
    assert!(heads[1].contains("authorization: Bearer second\r\n"), "{heads:?}");
    assert!(heads[2].contains("authorization: Basic dTpw\r\n"), "{heads:?}");

    std::fs::remove_file(&file).expect("removes");
    let error = text(&bearer, server.url("/")).await.expect_err("no file").to_string();
    assert!(error.contains("unable to read file"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_host() {
    let other = serve(|_| ok("text/plain", b"other")).await;
    let target = other.url("/landed");
    let server = serve(move |request| match request.split(' ').nth(1) {
        Some("/away") => {
            bytes(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"))
        }
        Some("/near") => {
            bytes("HTTP/1.1 307 Temporary Redirect\r\nLocation: here\r\nContent-Length: 0\r\n\r\n")
        }
        Some("/loop") => {
            bytes("HTTP/1.1 301 Moved\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n")
        }
        _ => ok("text/plain", b"here"),
    })
    .await;
    let header =
        HeaderConfig { secrets: vec![Secret::new("s3".to_owned())], ..HeaderConfig::default() };
    let mut config = HttpClientConfig {
        basic_auth: Some(BasicAuth { username: inline("u"), password: None }),
        headers: [("X-Key".to_owned(), header)].into(),
        ..HttpClientConfig::default()
    };
    let following = client(&config);
    assert_eq!(text(&following, server.url("/near")).await.expect("answers"), "200 here");
    assert_eq!(text(&following, server.url("/away")).await.expect("answers"), "200 other");
    let error = text(&following, server.url("/loop")).await.expect_err("loop").to_string();
    assert_eq!(error, "stopped after 10 redirects");
    assert!(server.heads().iter().all(|h| h.contains("authorization:") && h.contains("x-key: s3")));
    assert!(other.heads().iter().all(|h| !h.contains("authorization") && !h.contains("x-key")));
    config.follow_redirects = false;
    assert_eq!(text(&client(&config), server.url("/near")).await.expect("answers"), "307 ");
}

#[tokio::test]
async fn proxies_see_the_whole_url_or_a_tunnel() {
    let authority = Authority::new();
    let https = Arc::new(Mutex::new(Arc::new(authority.server("inside.example", None, false))));
    let inside = serve_tls(https, |_| ok("text/plain", b"inside")).await;
    let inside_address = inside.address;
    let proxy = serve(|_| ok("text/plain", b"from the proxy")).await;
    let config = |address| HttpClientConfig {
        proxy: ProxyConfig {
            url: Some(Secret::new(format!("http://u:p@{address}"))),
            connect_headers: [("X-Via".to_owned(), vec![Secret::new("tunnel".to_owned())])].into(),
            ..ProxyConfig::default()
        },
        tls: TlsConfig { ca: Some(inline(&authority.pem())), ..TlsConfig::default() },
        ..HttpClientConfig::default()
    };
    let url = Url::parse("http://outside.example:99/m?a=b").expect("url");
    let proxied = client(&config(proxy.address));
    for _ in 0..2 {
        assert_eq!(text(&proxied, url.clone()).await.expect("answers"), "200 from the proxy");
    }
    let head = &proxy.heads()[1];
    assert!(
        head.starts_with(
            "GET http://outside.example:99/m?a=b HTTP/1.1\r\nHost: outside.example:99"
        ),
        "{head}"
    );
    assert!(head.contains("Proxy-Authorization: Basic dTpw"), "{head}");

    // A tunnel: everything after CONNECT goes to the server inside.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let tunnel = listener.local_addr().expect("bound");
    let seen = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut outer, _) = listener.accept().await.expect("accepts");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(outer.read_u8().await.expect("head"));
        }
        outer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("writes");
        let mut inner = tokio::net::TcpStream::connect(inside_address).await.expect("connects");
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
        String::from_utf8(head).expect("text")
    });
    let url = Url::parse("https://inside.example/").expect("url");
    let tunneled = client(&config(tunnel));
    assert_eq!(text(&tunneled, url).await.expect("answers"), "200 inside");
    drop(tunneled);
    let head = seen.await.expect("ends");
    assert!(head.starts_with("CONNECT inside.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("X-Via: tunnel\r\n"), "{head}");
}

#[tokio::test]
async fn certificates_are_verified_and_rotated() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let config =
        Arc::new(Mutex::new(Arc::new(servers.server("metrics.example", Some(&clients), false))));
    let server = serve_tls(Arc::clone(&config), |_| ok("text/plain", b"safe")).await;
    let url = Url::parse(&format!("https://{}/", server.address)).expect("url");

    let dir = tempfile::tempdir().expect("dir");
    let file = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("writes");
    let issue = |authority: &Authority| {
        let own = authority.issue("client");
        write("cert", &own.certificate);
        write("key", &own.key);
    };
    write("ca", &servers.pem());
    issue(&clients);
    let mut tls = TlsConfig {
        ca: Some(SecretSource::File(file("ca"))),
        cert: Some(SecretSource::File(file("cert"))),
        key: Some(SecretSource::File(file("key"))),
        server_name: Some("metrics.example".to_owned()),
        ..TlsConfig::default()
    };
    let with = |tls: &TlsConfig| {
        client(&HttpClientConfig { tls: tls.clone(), ..HttpClientConfig::default() })
    };
    let mutual = with(&tls);
    assert_eq!(text(&mutual, url.clone()).await.expect("trusted"), "200 safe");
    // A certificate that the server does not know, then a good one again.
    issue(&strangers);
    assert!(text(&mutual, url.clone()).await.is_err());
    issue(&clients);
    assert_eq!(text(&mutual, url.clone()).await.expect("trusted again"), "200 safe");
    // The server's authority changes, and our file with it.
    let renewed = Authority::new();
    *config.lock().expect("lock") =
        Arc::new(renewed.server("metrics.example", Some(&clients), false));
    write("ca", &renewed.pem());
    assert_eq!(text(&mutual, url.clone()).await.expect("new authority"), "200 safe");

    tls.server_name = None;
    assert!(text(&with(&tls), url.clone()).await.is_err(), "the name is verified");
    tls.insecure_skip_verify = true;
    assert_eq!(text(&with(&tls), url.clone()).await.expect("unverified"), "200 safe");
    tls.min_version = Some(crate::config::TlsVersion::Tls13);
    tls.max_version = Some(crate::config::TlsVersion::Tls12);
    let http = HttpClientConfig { tls, ..HttpClientConfig::default() };
    assert!(matches!(HttpClient::new(&http), Err(ClientError::Tls(_))));
}

#[tokio::test]
async fn http2_is_used_where_the_server_offers_it() {
    let authority = Authority::new();
    let config = Arc::new(authority.server("127.0.0.1", None, true));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(
                    |request: http::Request<hyper::body::Incoming>| async move {
                        let text = format!("{:?} {}", request.version(), request.uri().path());
                        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(
                            Bytes::from(text),
                        )))
                    },
                );
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    let config = HttpClientConfig {
        tls: TlsConfig { ca: Some(inline(&authority.pem())), ..TlsConfig::default() },
        ..HttpClientConfig::default()
    };
    let url = Url::parse(&format!("https://{address}/two")).expect("url");
    let h2 = client(&config);
    for _ in 0..2 {
        assert_eq!(text(&h2, url.clone()).await.expect("answers"), "200 HTTP/2.0 /two");
    }
    task.abort();
}

#[tokio::test]
async fn tokens_are_fetched_once_and_renewed() {
    let answer = |lifetime: u32| {
        move |_: &str| {
            ok(
                "application/json",
                format!(r#"{{"access_token":"tok{lifetime}","expires_in":{lifetime}}}"#).as_bytes(),
            )
        }
    };
    let server = serve(|_| ok("text/plain", b"")).await;
    for (lifetime, fetched) in [(3600, 1), (5, 2)] {
        let tokens = serve(answer(lifetime)).await;
        let config = HttpClientConfig {
            oauth2: Some(Box::new(OAuth2 {
                client_id: "id".to_owned(),
                client_secret: Some(inline("secret")),
                token_url: tokens.url("/token").to_string(),
                scopes: vec!["a".to_owned(), "b".to_owned()],
                endpoint_params: [("audience".to_owned(), "x".to_owned())].into(),
                tls: TlsConfig::default(),
                proxy: ProxyConfig::default(),
            })),
            ..HttpClientConfig::default()
        };
        let client = client(&config);
        for _ in 0..2 {
            text(&client, server.url("/")).await.expect("answers");
        }
        let heads = tokens.heads();
        assert_eq!(heads.len(), fetched);
        assert!(heads[0].contains("authorization: Basic aWQ6c2VjcmV0"), "{heads:?}");
        assert!(
            heads[0].ends_with("grant_type=client_credentials&scope=a+b&audience=x"),
            "{heads:?}"
        );
        assert!(
            server.heads().last().is_some_and(|h| h.contains(&format!("Bearer tok{lifetime}\r\n")))
        );
    }
}
