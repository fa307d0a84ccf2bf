//! The table of the chapter on replay, cell by cell, over HTTP/1 and HTTP/2.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_oauth::{
    OAuthLayer, Origins,
    replay::{BufferBody, CloneBody, NoReplay, Replay},
};

use super::cache_of_numbered_tokens;
use crate::{chapter_table::ChapterTable, loopback::serve};

const CAP: usize = BufferBody::DEFAULT_CAP;

/// The part of the request body that has been sent when the server rejects the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Part,
    All,
}

const COLUMNS: [Sent; 3] = [Sent::Nothing, Sent::Part, Sent::All];

/// The columns are: body, kept by, and one for each variant of [`Sent`].
fn table() -> ChapterTable<5> {
    ChapterTable::read(include_str!("../../../src/docs/replay.md"))
}

/// Returns the cells of this body, in the order of [`COLUMNS`].
fn row(body: &str) -> [&'static str; 3] {
    let [_, _, nothing_sent, part_sent, all_sent] = table().row(body);
    [nothing_sent, part_sent, all_sent]
}

#[test]
fn each_row_of_the_chapter_has_a_test() {
    table().assert_each_row_is_tested(include_str!("table.rs"), 6);
}

#[tokio::test]
async fn body_in_memory() {
    let row = row("in memory");
    for (sent, cell) in COLUMNS.into_iter().zip(row) {
        check(cell, sent, CloneBody, || in_memory(Full::from(text(CAP)))).await;
    }
}

#[tokio::test]
async fn empty_body() {
    let [nothing_sent, part_sent, all_sent] = row("empty");
    assert_eq!((nothing_sent, part_sent), ("–", "–"));
    check(all_sent, Sent::All, CloneBody, || in_memory(Full::<Bytes>::default())).await;
    check(all_sent, Sent::All, BufferBody::default(), || in_memory(Empty::<Bytes>::new())).await;
    #[cfg(feature = "tonic")]
    {
        let replay = tower_oauth::replay::TonicBody::default();
        check(all_sent, Sent::All, replay, || in_memory(tonic::body::Body::empty())).await;
    }
}

#[tokio::test]
async fn stream_up_to_the_cap() {
    let row = row("a stream, no more than the cap of it sent");
    check_up_to_the_cap(row, BufferBody::default(), |stream| stream).await;
}

#[tokio::test]
async fn stream_above_the_cap() {
    let row = row("a stream, more than the cap of it sent");
    check_above_the_cap(row, BufferBody::default(), |stream| stream).await;
}

#[tokio::test]
async fn body_with_a_known_size_above_the_cap() {
    let row = row("any with a known size above the cap");
    for (sent, cell) in COLUMNS.into_iter().zip(row) {
        let body = || in_memory(Full::<Bytes>::from(text(CAP + 1)));
        check(cell, sent, BufferBody::default(), body).await;
    }
}

#[tokio::test]
async fn body_without_replay() {
    let row = row("any");
    for (sent, cell) in COLUMNS.into_iter().zip(row) {
        check(cell, sent, NoReplay, || in_memory(Full::<Bytes>::from("small"))).await;
    }
}

#[cfg(feature = "tonic")]
mod grpc_call {
    use tonic::body::Body;
    use tower_oauth::replay::TonicBody;

    use super::*;

    #[tokio::test]
    async fn with_one_message() {
        let row = row("the message of a unary or server-streaming call, no more than the cap");
        for (sent, cell) in COLUMNS.into_iter().zip(row) {
            let body = || in_memory(Body::new(Full::<Bytes>::from(text(CAP))));
            check(cell, sent, TonicBody::default(), body).await;
        }
    }

    #[tokio::test]
    async fn with_messages_up_to_the_cap() {
        let row = row("a stream of messages, no more than the cap of it sent");
        check_up_to_the_cap(row, TonicBody::default(), Body::new).await;
    }

    #[tokio::test]
    async fn with_messages_above_the_cap() {
        let row = row("the messages of any call, more than the cap of them sent");
        check_above_the_cap(row, TonicBody::default(), Body::new).await;
    }
}

#[cfg(feature = "reqwest")]
mod over_reqwest {
    use reqwest::Body;
    use tower_oauth::{replay::ReqwestBody, reqwest::OAuthClient};

    use super::*;

    #[tokio::test]
    async fn body_in_memory() {
        let row = row("in memory");
        for (sent, cell) in COLUMNS.into_iter().zip(row) {
            check(cell, sent, CloneBody, || in_memory(Body::from(text(CAP + 1)))).await;
        }
    }

    #[tokio::test]
    async fn empty_body() {
        let [_, _, all_sent] = row("empty");
        check(all_sent, Sent::All, CloneBody, || in_memory(Body::default())).await;
        let stream = || in_memory(Body::wrap(Empty::<Bytes>::new()));
        check(all_sent, Sent::All, CloneBody, stream).await;
    }

    #[tokio::test]
    async fn stream_up_to_the_cap() {
        let [nothing_sent, part_sent, all_sent] = row("a stream, no more than the cap of it sent");
        check(nothing_sent, Sent::Nothing, CloneBody, || upload(0, 3 * CAP)).await;
        check(part_sent, Sent::Part, CloneBody, || upload(CAP, 3 * CAP)).await;
        check(all_sent, Sent::All, CloneBody, || upload(CAP, 0)).await;
        let replay = BufferBody::with_cap(2 * CAP);
        check(part_sent, Sent::Part, replay, || upload(2 * CAP, CAP)).await;
    }

    #[tokio::test]
    async fn stream_above_the_cap() {
        let [_, part_sent, all_sent] = row("a stream, more than the cap of it sent");
        check(part_sent, Sent::Part, CloneBody, || upload(CAP + 1, 1)).await;
        check(all_sent, Sent::All, CloneBody, || upload(CAP + 1, 0)).await;
    }

    #[tokio::test]
    async fn stream_with_a_known_size_above_the_cap() {
        let row = row("any with a known size above the cap");
        for (sent, cell) in COLUMNS.into_iter().zip(row) {
            let body = || in_memory(Body::wrap(Full::<Bytes>::from(text(CAP + 1))));
            check(cell, sent, CloneBody, body).await;
        }
    }

    #[tokio::test]
    async fn body_without_replay() {
        let row = row("any");
        for (sent, cell) in COLUMNS.into_iter().zip(row) {
            check(cell, sent, NoReplay, || in_memory(Body::from("small"))).await;
        }
    }

    fn upload(available: usize, later: usize) -> Upload<Body> {
        stream(Body::wrap, available, later)
    }

    async fn check<R>(cell: &str, sent: Sent, replay: R, upload: impl Fn() -> Upload<Body>)
    where
        R: Into<ReqwestBody> + Copy,
    {
        for is_http2 in [false, true] {
            let builder = reqwest::Client::builder().no_proxy();
            let builder = if is_http2 { builder.http2_prior_knowledge() } else { builder };
            let put = |oauth: OAuthLayer, url, body| {
                let client = OAuthClient::new(builder, oauth.with_replay(replay)).unwrap();
                let response = client.send(client.get_ref().put::<String>(url).body(body));
                async { response.await.unwrap().status() }
            };
            let outcome = outcome(sent, upload(), put).await;
            assert_eq!(outcome, cell, "{sent:?}, over HTTP/{}", 1 + u8::from(is_http2));
        }
    }
}

async fn check_up_to_the_cap<R, B>(row: [&str; 3], replay: R, body: fn(Stream) -> B)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    let [nothing_sent, part_sent, all_sent] = row;
    check(nothing_sent, Sent::Nothing, replay, || stream(body, 0, 3 * CAP)).await;
    check(part_sent, Sent::Part, replay, || stream(body, CAP, 3 * CAP)).await;
    check(all_sent, Sent::All, replay, || stream(body, CAP, 0)).await;
}

async fn check_above_the_cap<R, B>(row: [&str; 3], replay: R, body: fn(Stream) -> B)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    let [nothing_sent, part_sent, all_sent] = row;
    assert_eq!(nothing_sent, "–");
    check(part_sent, Sent::Part, replay, || stream(body, CAP + 1, 1)).await;
    check(all_sent, Sent::All, replay, || stream(body, CAP + 1, 0)).await;
}

/// A request body. Its first part is available immediately, and its rest after the rejection.
struct Upload<B> {
    body: B,
    available: usize,
    whole: Bytes,
    /// The sender of the rest. `None` if the whole body is available immediately.
    rest: Option<UnboundedSender<Result<Frame<Bytes>, Infallible>>>,
}

type Stream = BoxBody<Bytes, Infallible>;

fn text(size: usize) -> Bytes {
    (0..=u8::MAX).cycle().step_by(7).take(size).collect()
}

fn in_memory<B: Body<Data = Bytes>>(body: B) -> Upload<B> {
    let size = usize::try_from(body.size_hint().exact().unwrap()).unwrap();
    let whole = if size == 5 { Bytes::from("small") } else { text(size) };
    Upload { body, available: size, whole, rest: None }
}

fn stream<B>(body: fn(Stream) -> B, available: usize, later: usize) -> Upload<B> {
    let (sender, frames) = unbounded_channel();
    let whole = text(available + later);
    if available > 0 {
        sender.send(Ok(Frame::data(whole.slice(..available)))).unwrap();
    }
    let stream = StreamBody::new(UnboundedReceiverStream::new(frames)).boxed();
    Upload { body: body(stream), available, whole, rest: (later > 0).then_some(sender) }
}

/// A body that the HTTP client can send.
trait RequestBody: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static> RequestBody for B {}

async fn check<R, B>(cell: &str, sent: Sent, replay: R, upload: impl Fn() -> Upload<B>)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    for is_http2 in [false, true] {
        let http_client = Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http();
        let put = |oauth: OAuthLayer, url, body| {
            let oauth = oauth.with_replay(replay);
            let client = ServiceBuilder::new().layer(oauth).service(http_client);
            let response = client.oneshot(Request::put(url).body(body).unwrap());
            async { response.await.unwrap().status() }
        };
        let outcome = outcome(sent, upload(), put).await;
        assert_eq!(outcome, cell, "{sent:?}, over HTTP/{}", 1 + u8::from(is_http2));
    }
}

/// Answers 401 after reading the part of the body that `sent` requires.
async fn reject(mut body: Incoming, sent: Sent, available: usize) -> Response<String> {
    let mut read = 0;
    while sent == Sent::All || sent == Sent::Part && read < available.min(CAP / 2) {
        let Some(frame) = body.frame().await else { break };
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    Response::builder().status(StatusCode::UNAUTHORIZED).body(String::new()).unwrap()
}

/// Sends an upload with `put` that is rejected once, and returns the outcome as the table names it.
async fn outcome<B, F>(
    sent: Sent,
    upload: Upload<B>,
    put: impl FnOnce(OAuthLayer, String, B) -> F,
) -> &'static str
where
    F: Future<Output = StatusCode> + Send + 'static,
{
    let Upload { body, available, whole, rest } = upload;
    let (retry_started, mut retry) = unbounded_channel();
    let (retry_body, mut retry_bodies) = unbounded_channel();
    let attempts = Arc::new(AtomicUsize::new(0));
    let api = serve(move |request| {
        let is_retry = attempts.fetch_add(1, Ordering::SeqCst) > 0;
        let (retry_started, retry_body) = (retry_started.clone(), retry_body.clone());
        async move {
            if !is_retry {
                return reject(request.into_body(), sent, available).await;
            }
            retry_started.send(()).ok();
            retry_body.send(request.into_body().collect().await.unwrap().to_bytes()).ok();
            Response::new(String::new())
        }
    })
    .await;

    let origins = Origins::new([format!("http://{api}")]).unwrap();
    let oauth = OAuthLayer::new(cache_of_numbered_tokens(), origins);
    let (is_stream, later) = (rest.is_some(), whole.slice(available..));
    let response = tokio::spawn(put(oauth, format!("http://{api}/"), body));
    let sender_of_rest = tokio::spawn(async move {
        let Some(rest) = rest else { return };
        if retry.recv().await.is_some() {
            rest.send(Ok(Frame::data(later))).unwrap();
        }
    });
    let status = response.await.unwrap();
    sender_of_rest.abort();
    if status == StatusCode::UNAUTHORIZED {
        assert!(retry_bodies.try_recv().is_err());
        return "401";
    }
    assert_eq!(status, StatusCode::OK);
    let retry_body = retry_bodies.recv().await.unwrap();
    assert!(retry_body == whole, "the body of the retry differs");
    match (sent, is_stream) {
        (Sent::Nothing, true) => "live",
        (Sent::Part, true) => "again, then live",
        _ => "again",
    }
}
