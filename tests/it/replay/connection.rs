//! The number of HTTP/1 connections that a rejection costs, depending on its body.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, source_fn,
};

use crate::{
    loopback::{Authority, http1_client},
    support::StoppedClock,
};

/// The body of a rejection, as it is written to the socket.
#[derive(Clone, Copy, Debug)]
enum RejectionBody {
    Empty,
    /// This many bytes.
    Sized(usize),
    /// This many chunks of 100 bytes.
    Chunked(usize),
    /// This many bytes. Head and body are written separately.
    HeadFirst(usize),
    /// One byte, and then neither data nor an end.
    Endless,
}

#[tokio::test(start_paused = true)]
async fn small_rejection_costs_no_connection() {
    use RejectionBody::{Chunked, Empty, HeadFirst, Sized};
    // The time limit for reading the body must not expire on a busy machine.
    let _clock = StoppedClock::new();
    let limit = 64 * 1024;
    let bodies = [
        Empty,
        Sized(100),
        HeadFirst(100),
        Chunked(1),
        Chunked(2),
        Chunked(100),
        HeadFirst(4000),
        Sized(16 * 1024),
        Sized(limit),
    ];
    for body in bodies {
        assert_eq!(count_connections(body).await, 1, "{body:?}");
    }
}

#[tokio::test]
async fn large_or_endless_rejection_costs_its_connection() {
    use RejectionBody::{Chunked, Endless, Sized};
    for body in [Sized(1024 * 1024), Chunked(10_000), Endless] {
        assert_eq!(count_connections(body).await, REQUESTS, "{body:?}");
    }
}

#[tokio::test]
async fn rejection_that_is_not_retried_keeps_its_whole_body() {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", api.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = api.accept().await.unwrap();
        serve(stream, Authority::default(), RejectionBody::Chunked(50)).await
    });
    let request_count = AtomicUsize::new(0);
    let tokens = TokenCache::new(source_fn(move |_| {
        let is_first = request_count.fetch_add(1, Ordering::SeqCst) == 0;
        let failure = TokenError::new(TokenErrorKind::Transport, "server unreachable");
        async move { if is_first { AccessToken::bearer("revoked") } else { Err(failure) } }
    }));
    let oauth = OAuthLayer::new(tokens, Origins::new([&origin]).unwrap());
    let client = ServiceBuilder::new().layer(oauth).service(http1_client());
    let request = Request::get(&origin).body(Full::default()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 5000);
}

/// The first request gets a valid token and the other three are rejected. The circuit breaker would
/// suppress the refresh for a fourth rejection.
const REQUESTS: usize = 4;

/// Sends [`REQUESTS`] requests one after the other, and returns the number of connections. Each
/// request but the first is rejected once.
async fn count_connections(body: RejectionBody) -> usize {
    let authority = Authority::default();
    let connections = Arc::new(AtomicUsize::new(0));
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = api.local_addr().unwrap();
    let server = tokio::spawn({
        let (authority, connections) = (authority.clone(), Arc::clone(&connections));
        async move {
            loop {
                let (stream, _) = api.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, authority.clone(), body));
            }
        }
    });
    let oauth = authority.layer(address).await;
    let client = ServiceBuilder::new().layer(oauth).service(http1_client());
    for _ in 0..REQUESTS {
        let request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
        authority.revoke_all();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(authority.refusals(), REQUESTS - 1);
    server.abort();
    connections.load(Ordering::SeqCst)
}

async fn serve(
    mut stream: TcpStream,
    authority: Authority,
    body: RejectionBody,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(headers) = read_headers(&mut stream).await? {
        if authority.accepts(&headers) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        } else {
            reject(&mut stream, body).await?;
        }
    }
    Ok(())
}

/// Reads the next request, which has no body, and returns its headers. Returns `None` at the end of
/// the connection.
async fn read_headers(stream: &mut TcpStream) -> std::io::Result<Option<HeaderMap>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8(head).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let headers = lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Ok(Some(headers.collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect()))
}

async fn reject(stream: &mut TcpStream, body: RejectionBody) -> std::io::Result<()> {
    let mut bytes = b"HTTP/1.1 401 Unauthorized\r\n".to_vec();
    let content_length = |size: usize| format!("content-length: {size}\r\n\r\n").into_bytes();
    match body {
        RejectionBody::Empty => bytes.extend(content_length(0)),
        RejectionBody::Sized(size) => {
            bytes.extend(content_length(size));
            bytes.extend(vec![b'x'; size]);
        }
        RejectionBody::HeadFirst(size) => {
            bytes.extend(content_length(size));
            stream.write_all(&bytes).await?;
            tokio::task::yield_now().await;
            bytes = vec![b'x'; size];
        }
        RejectionBody::Chunked(count) => {
            bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
            for _ in 0..count {
                bytes.extend(format!("64\r\n{}\r\n", "x".repeat(100)).into_bytes());
            }
            bytes.extend(b"0\r\n\r\n");
        }
        RejectionBody::Endless => {
            bytes.extend(b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
            stream.write_all(&bytes).await?;
            return std::future::pending().await;
        }
    }
    stream.write_all(&bytes).await
}
