//! What a refusal costs in HTTP/1 connections, by the body that it has.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind};

use crate::{
    loopback::{Authority, http1_client},
    support::StoppedClock,
};

/// The body of a refusal, as it is written to the wire.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Empty,
    Sized(usize),
    /// So many chunks of 100 bytes.
    Chunked(usize),
    /// Head and body in packets of their own.
    HeadFirst(usize),
    /// Never ends, and gives no more than its first byte.
    Endless,
}

#[tokio::test(start_paused = true)]
async fn a_small_refusal_costs_no_connection() {
    use Refusal::{Chunked, Empty, HeadFirst, Sized};
    let _clock = StoppedClock::new(); // a busy machine must not use up the time for reading
    let most = 64 * 1024;
    let small = [Empty, Sized(100), HeadFirst(100), Chunked(1), Chunked(2), Chunked(100), HeadFirst(4000)];
    for refusal in small.into_iter().chain([Sized(16 * 1024), Sized(most)]) {
        assert_eq!(connections(refusal).await, 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_large_or_endless_refusal_costs_its_connection_and_delays_nothing() {
    for refusal in [Refusal::Sized(1024 * 1024), Refusal::Chunked(10_000), Refusal::Endless] {
        assert_eq!(connections(refusal).await, REQUESTS, "{refusal:?}");
    }
}

#[tokio::test]
async fn a_refusal_that_stays_the_answer_is_whole() {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", api.local_addr().unwrap());
    tokio::spawn(async move {
        serve(api.accept().await.unwrap().0, Authority::default(), Refusal::Chunked(50)).await
    });
    let first = AtomicUsize::new(0);
    let tokens = TokenCache::new(move || {
        let is_first = first.fetch_add(1, Ordering::SeqCst) == 0;
        let failure = TokenError::new(TokenErrorKind::Transport, "nobody there");
        async move { if is_first { AccessToken::bearer("revoked") } else { Err(failure) } }
    });
    let oauth = OAuthLayer::new(tokens, Origins::new([&origin]).unwrap());
    let client = ServiceBuilder::new().layer(oauth).service(http1_client());
    let response = client.oneshot(Request::get(&origin).body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 5000);
}

/// The refusals among them are as many as an origin is allowed before it has to wait.
const REQUESTS: usize = 5;

/// How many connections are made for the requests, one after the other, each but the first refused once.
async fn connections(refusal: Refusal) -> usize {
    let authority = Authority::default();
    let connections = Arc::new(AtomicUsize::new(0));
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = api.local_addr().unwrap();
    let serving = tokio::spawn({
        let (authority, connections) = (authority.clone(), Arc::clone(&connections));
        async move {
            loop {
                let (stream, _) = api.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, authority.clone(), refusal));
            }
        }
    });
    let client = ServiceBuilder::new().layer(authority.layer(address).await).service(http1_client());
    for _ in 0..REQUESTS {
        let request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
        authority.revoke_all();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(authority.refusals(), REQUESTS - 1);
    serving.abort();
    connections.load(Ordering::SeqCst)
}

async fn serve(mut stream: TcpStream, authority: Authority, refusal: Refusal) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(headers) = head(&mut stream).await? {
        if authority.accepts(&headers) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        } else {
            refuse(&mut stream, refusal).await?;
        }
    }
    Ok(())
}

/// The headers of the next request, which has no body.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<http::HeaderMap>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8(head).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let headers = lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Ok(Some(headers.collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect()))
}

async fn refuse(stream: &mut TcpStream, refusal: Refusal) -> std::io::Result<()> {
    let mut head = b"HTTP/1.1 401 Unauthorized\r\n".to_vec();
    let sized = |size: usize| format!("content-length: {size}\r\n\r\n").into_bytes();
    match refusal {
        Refusal::Empty => head.extend(sized(0)),
        Refusal::Sized(size) => {
            head.extend(sized(size));
            head.extend(vec![b'x'; size]);
        }
        Refusal::HeadFirst(size) => {
            head.extend(sized(size));
            stream.write_all(&head).await?;
            tokio::task::yield_now().await;
            head = vec![b'x'; size];
        }
        Refusal::Chunked(count) => {
            head.extend(b"transfer-encoding: chunked\r\n\r\n");
            for _ in 0..count {
                head.extend(format!("64\r\n{}\r\n", "x".repeat(100)).into_bytes());
            }
            head.extend(b"0\r\n\r\n");
        }
        Refusal::Endless => {
            head.extend(b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
            stream.write_all(&head).await?;
            return std::future::pending().await;
        }
    }
    stream.write_all(&head).await
}
