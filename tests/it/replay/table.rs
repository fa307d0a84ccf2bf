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
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, OAuthLayer, Origins, TokenCache,
    replay::{BufferBody, CloneBody, Never, Replay},
};

use crate::loopback::serve;

const CHAPTER: &str = include_str!("../../../src/docs/replay.md");
const CAP: usize = BufferBody::DEFAULT_CAP;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    HalfWay,
    After,
}

const WHENS: [When; 3] = [When::Before, When::HalfWay, When::After];

#[tokio::test]
async fn bodies_in_memory() {
    let row = row("in memory");
    for (when, cell) in WHENS.into_iter().zip(row) {
        check(cell, when, CloneBody, || in_memory(Full::from(text(CAP)))).await;
    }
}

#[tokio::test]
async fn empty_bodies() {
    let [before, half_way, after] = row("empty");
    assert_eq!((before, half_way), ("–", "–"));
    check(after, When::After, CloneBody, || in_memory(Full::<Bytes>::default())).await;
    check(after, When::After, BufferBody::default(), || in_memory(Empty::<Bytes>::new())).await;
    #[cfg(feature = "tonic")]
    {
        let replay = tower_oauth::replay::TonicBody::default();
        check(after, When::After, replay, || in_memory(tonic::body::Body::empty())).await;
    }
}

#[tokio::test]
async fn streams_of_which_no_more_than_the_cap_was_sent() {
    let row = row("a stream, no more than the cap of it sent");
    within_the_cap(row, BufferBody::default(), |stream| stream).await;
}

#[tokio::test]
async fn streams_of_which_more_than_the_cap_was_sent() {
    let row = row("a stream, more than the cap of it sent");
    beyond_the_cap(row, BufferBody::default(), |stream| stream).await;
}

#[tokio::test]
async fn bodies_that_say_that_they_are_larger_than_the_cap() {
    let row = row("any that says it is larger than the cap");
    for (when, cell) in WHENS.into_iter().zip(row) {
        check(cell, when, BufferBody::default(), || in_memory(Full::<Bytes>::from(text(CAP + 1)))).await;
    }
}

#[tokio::test]
async fn bodies_that_are_not_kept() {
    let row = row("any");
    for (when, cell) in WHENS.into_iter().zip(row) {
        check(cell, when, Never, || in_memory(Full::<Bytes>::from("small"))).await;
    }
}

#[cfg(feature = "tonic")]
mod calls {
    use tonic::body::Body;
    use tower_oauth::replay::TonicBody;

    use super::*;

    #[tokio::test]
    async fn with_one_message() {
        let row = row("the message of a unary or server-streaming call, no more than the cap");
        for (when, cell) in WHENS.into_iter().zip(row) {
            let body = || in_memory(Body::new(Full::<Bytes>::from(text(CAP))));
            check(cell, when, TonicBody::default(), body).await;
        }
    }

    #[tokio::test]
    async fn of_which_no_more_than_the_cap_was_sent() {
        let row = row("a stream of messages, no more than the cap of it sent");
        within_the_cap(row, TonicBody::default(), Body::new).await;
    }

    #[tokio::test]
    async fn of_which_more_than_the_cap_was_sent() {
        let row = row("the messages of any call, more than the cap of them sent");
        beyond_the_cap(row, TonicBody::default(), Body::new).await;
    }
}

#[test]
fn each_row_of_the_chapter_has_a_test() {
    let tests = include_str!("table.rs");
    assert!(rows().count() > 5);
    for (body, _) in rows() {
        assert!(tests.contains(&format!("row(\"{body}\")")), "no test of: {body}");
    }
}

/// The body of each row, with what comes of it.
fn rows() -> impl Iterator<Item = (&'static str, [&'static str; 3])> {
    let lines = CHAPTER.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    lines.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [body, _, before, half_way, after] = cells[..] else { panic!("{line}") };
        (body, [before, half_way, after])
    })
}

fn row(body: &str) -> [&'static str; 3] {
    rows().find(|(name, _)| *name == body).unwrap_or_else(|| panic!("the chapter has no row {body:?}")).1
}

async fn within_the_cap<R, B>([before, half_way, after]: [&str; 3], replay: R, body: fn(Stream) -> B)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    check(before, When::Before, replay, || stream(body, 0, 3 * CAP)).await;
    check(half_way, When::HalfWay, replay, || stream(body, CAP, 3 * CAP)).await;
    check(after, When::After, replay, || stream(body, CAP, 0)).await;
}

async fn beyond_the_cap<R, B>([before, half_way, after]: [&str; 3], replay: R, body: fn(Stream) -> B)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    assert_eq!(before, "–");
    check(half_way, When::HalfWay, replay, || stream(body, CAP + 1, 1)).await;
    check(after, When::After, replay, || stream(body, CAP + 1, 0)).await;
}

/// A body, what of it is there at once, and the rest, which comes after the refusal.
struct Upload<B> {
    body: B,
    at_once: usize,
    whole: Bytes,
    rest: Option<UnboundedSender<Result<Frame<Bytes>, Infallible>>>,
}

type Stream = UnsyncBoxBody<Bytes, Infallible>;

fn text(size: usize) -> Bytes {
    (0..=u8::MAX).cycle().step_by(7).take(size).collect()
}

fn in_memory<B: Body<Data = Bytes>>(body: B) -> Upload<B> {
    let size = usize::try_from(body.size_hint().exact().unwrap()).unwrap();
    let whole = if size == 5 { Bytes::from("small") } else { text(size) };
    Upload { body, at_once: size, whole, rest: None }
}

fn stream<B>(body: fn(Stream) -> B, at_once: usize, later: usize) -> Upload<B> {
    let (sender, frames) = unbounded_channel();
    let whole = text(at_once + later);
    if at_once > 0 {
        sender.send(Ok(Frame::data(whole.slice(..at_once)))).unwrap();
    }
    let stream = StreamBody::new(UnboundedReceiverStream::new(frames)).boxed_unsync();
    Upload { body: body(stream), at_once, whole, rest: (later > 0).then_some(sender) }
}

/// What the client of this test sends.
trait RequestBody: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static> RequestBody for B {}

async fn check<R, B>(cell: &str, when: When, replay: R, upload: impl Fn() -> Upload<B>)
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    for is_http2 in [false, true] {
        let came_of_it = send(when, replay, upload(), is_http2).await;
        assert_eq!(came_of_it, cell, "{when:?}, over HTTP/{}", 1 + u8::from(is_http2));
    }
}

/// Answers 401, with so much of the body read.
async fn refuse(mut body: Incoming, when: When, at_once: usize) -> Response<String> {
    let mut read = 0;
    while when == When::After || when == When::HalfWay && read < at_once.min(CAP / 2) {
        let Some(frame) = body.frame().await else { break };
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    Response::builder().status(StatusCode::UNAUTHORIZED).body(String::new()).unwrap()
}

/// What came of it, in the words of the table.
async fn send<R, B>(when: When, replay: R, upload: Upload<B>, is_http2: bool) -> &'static str
where
    R: Replay<B, Body: RequestBody, Kept: Send> + Copy + Send + Sync + 'static,
    B: Send + 'static,
{
    let Upload { body, at_once, whole, rest } = upload;
    let (retried, mut comes_again) = unbounded_channel();
    let (seen, mut bodies) = unbounded_channel();
    let attempts = Arc::new(AtomicUsize::new(0));
    let api = serve(move |request| {
        let is_retry = attempts.fetch_add(1, Ordering::SeqCst) > 0;
        let (retried, seen) = (retried.clone(), seen.clone());
        async move {
            if !is_retry {
                return refuse(request.into_body(), when, at_once).await;
            }
            retried.send(()).ok();
            seen.send(request.into_body().collect().await.unwrap().to_bytes()).ok();
            Response::new(String::new())
        }
    })
    .await;

    let numbers = AtomicUsize::new(0);
    let tokens = TokenCache::new(move || {
        let token = AccessToken::bearer(format!("token-{}", numbers.fetch_add(1, Ordering::SeqCst)));
        async move { token }
    });
    let oauth = OAuthLayer::new(tokens, Origins::new([format!("http://{api}")]).unwrap());
    let http_client = Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http();
    let client = ServiceBuilder::new().layer(oauth.replay(replay)).service(http_client);

    let (is_stream, later) = (rest.is_some(), whole.slice(at_once..));
    let request = Request::put(format!("http://{api}/")).body(body).unwrap();
    let answer = tokio::spawn(client.oneshot(request));
    let feeding = tokio::spawn(async move {
        let Some(rest) = rest else { return };
        if comes_again.recv().await.is_some() {
            rest.send(Ok(Frame::data(later))).unwrap();
        }
    });
    let status = answer.await.unwrap().unwrap().status();
    feeding.abort();
    if status == StatusCode::UNAUTHORIZED {
        assert!(bodies.try_recv().is_err());
        return "401";
    }
    assert_eq!(status, StatusCode::OK);
    assert!(bodies.recv().await.unwrap() == whole, "the second server did not see the body");
    match (when, is_stream) {
        (When::Before, true) => "on",
        (When::HalfWay, true) => "again, then on",
        _ => "again",
    }
}
