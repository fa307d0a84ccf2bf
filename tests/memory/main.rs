//! The memory that the layer holds during an upload.
//!
//! This test needs a binary of its own because it replaces the global allocator, which counts for
//! the whole process.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use peak_alloc::PeakAlloc;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache,
    replay::{BufferBody, Buffered},
    source_fn,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const GIB: usize = 1 << 30;
const FRAME: usize = 16 * 1024;
/// The size of the frame that is being sent, plus the memory of one request.
const CONSTANT: usize = FRAME + 8 * 1024;
/// The size of the buffers of the client, the server and the sockets.
const OVER_HTTP: usize = 2 * 1024 * 1024;

#[tokio::test]
async fn upload_of_1_gib_holds_at_most_the_cap_and_a_constant() {
    let cap = BufferBody::DEFAULT_CAP;
    for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
        let inner = service_fn(move |request| read_all(request, status));
        let held = peak_of_upload(inner, "http://localhost").await;
        println!("{status}, in memory: {held} bytes");
        assert!((cap / 2..cap + CONSTANT).contains(&held), "{held} bytes at {status}");
    }
    let server = serve().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let held = peak_of_upload(client, &server).await;
    println!("over HTTP/1: {held} bytes");
    assert!(held < cap + OVER_HTTP, "{held} bytes over HTTP/1");
}

type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// Returns a body without a size hint. The layer keeps the sent part of such a body until that part
/// exceeds the cap.
fn one_gib() -> Upload {
    let frames = (0..GIB / FRAME).map(|_| Ok(Frame::data(Bytes::from(vec![1; FRAME]))));
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}

/// Returns the peak of the memory that is held during an upload.
async fn peak_of_upload<S, B>(inner: S, origin: &str) -> usize
where
    S: Service<Request<Buffered<Upload>>, Response = Response<B>, Error: Into<BoxError>> + Clone,
    B: Body + 'static,
{
    let cache =
        TokenCache::new(source_fn(|_| async { AccessToken::bearer("2YotnFZFEjr1zCsicMWpAA") }));
    cache.token().await.unwrap();
    let oauth = OAuthLayer::new(cache, Origins::new([origin]).unwrap());
    let client = oauth.with_replay(BufferBody::default()).layer(inner);
    let request = Request::put(origin).body(one_gib()).unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    client.oneshot(request).await.unwrap();
    ALLOCATOR.peak_usage() - before
}

async fn read_all<B>(request: Request<B>, status: StatusCode) -> Result<Response<String>, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (mut body, mut bytes) = (std::pin::pin!(request.into_body()), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(bytes, GIB);
    Ok(Response::builder().status(status).body(String::new())?)
}

async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|request| read_all(request, StatusCode::OK));
        let connection = hyper::server::conn::http1::Builder::new();
        connection.serve_connection(TokioIo::new(stream), service).await
    });
    format!("http://{address}")
}
