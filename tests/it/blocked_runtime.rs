//! The use of tokens while every worker thread of a runtime is blocked.
//!
//! A token must not be sent after its expiry, and not after its invalidation. This holds on every
//! thread, even if the runtime that fetched the token runs no task and no timer.
//!
//! These tests use real time, because tokio can pause the clock of a current-thread runtime only.

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::Instant,
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneService};
use tower_oauth::{OAuthLayer, Origins, TokenErrorKind};

use crate::support::{
    API, Body, Client, Reply, ScriptedSource, TestSetup, bearer, get, token_error,
};

const WORKERS: usize = 2;
const SENDERS: usize = 4;
/// The number of attempts that each sender makes after the end of the token.
const ATTEMPTS_AFTER_END: usize = 200;
/// The number of requests on the first runtime before it is blocked.
const REQUESTS_BEFORE_BLOCK: usize = 200;

const LIFETIME: Duration = Duration::from_millis(400);
/// The lifetime less the expiry margin of 10 %.
const USABLE_LIFETIME: Duration = Duration::from_millis(360);

/// The time limit of each wait. It is reached only if a test fails.
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn second_runtime_does_not_send_an_expired_token() {
    check_token_is_not_sent_after(TokenEnd::Expiry, Place::SecondRuntime);
}

#[test]
fn plain_thread_does_not_send_an_expired_token() {
    check_token_is_not_sent_after(TokenEnd::Expiry, Place::PlainThread);
}

#[test]
fn second_runtime_does_not_send_an_invalidated_token() {
    check_token_is_not_sent_after(TokenEnd::Invalidation, Place::SecondRuntime);
}

#[test]
fn plain_thread_does_not_send_an_invalidated_token() {
    check_token_is_not_sent_after(TokenEnd::Invalidation, Place::PlainThread);
}

/// The event after which the token must not be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenEnd {
    Expiry,
    Invalidation,
}

/// The place of the senders while the worker threads of the first runtime are blocked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In tasks of another runtime.
    SecondRuntime,
    /// On threads without a runtime context.
    PlainThread,
}

fn check_token_is_not_sent_after(end: TokenEnd, place: Place) {
    // On a machine that stalls for the whole lifetime of the token, no request is sent before the
    // expiry. Such a run shows nothing and is repeated.
    let is_conclusive = (0..10).any(|_| sent_while_valid(end, place) > 0);
    assert!(is_conclusive, "in no run was a request sent before the end of the token");
}

/// Runs the senders until well after the end of the token. Returns the number of requests that they
/// sent before it.
fn sent_while_valid(end: TokenEnd, place: Place) -> usize {
    let setup = TestSetup::new();
    let client = client(&setup);
    let (first, second) = (runtime(), runtime());

    setup.source.script([Reply::Issue(match end {
        TokenEnd::Expiry => LIFETIME,
        TokenEnd::Invalidation => ScriptedSource::LIFETIME,
    })]);
    let requested_at = Instant::now();
    let token = first.block_on(setup.cache.token()).unwrap();
    let validity = Arc::new(Validity::default());
    if end == TokenEnd::Expiry {
        validity.set_end(requested_at + USABLE_LIFETIME, Instant::now() + USABLE_LIFETIME);
    }
    // A background refresh would replace the token before its expiry.
    setup.source.hold_requests();
    first.block_on(first.spawn(use_token(client.clone()))).unwrap();
    if token.is_stale() || token.is_expired() {
        // The first runtime may have started a refresh, which cannot end while it is blocked.
        return 0;
    }
    let blocked = BlockedWorkers::of(&first);

    let (first_sent, first_sends) = mpsc::channel();
    let (finished, results) = mpsc::channel();
    for _ in 0..SENDERS {
        let mut sender = Sender::new(&client, &validity, place, first_sent.clone());
        let finished = finished.clone();
        match place {
            Place::SecondRuntime => drop(second.spawn(async move {
                while !sender.is_finished() {
                    sender.send();
                    yield_now().await;
                }
                finished.send(sender.sent_while_valid).unwrap();
            })),
            Place::PlainThread => drop(thread::spawn(move || {
                while !sender.is_finished() {
                    sender.send();
                }
                finished.send(sender.sent_while_valid).unwrap();
            })),
        }
    }
    // A sender that panics closes its end of both channels.
    drop((first_sent, finished));
    if end == TokenEnd::Invalidation {
        for _ in 0..SENDERS {
            first_sends.recv_timeout(TIMEOUT).expect("each sender sends a request");
        }
        let earliest = Instant::now();
        validity.earliest_end.set(earliest).unwrap();
        assert!(setup.cache.invalidate(token.generation()));
        validity.latest_end.set(Instant::now()).unwrap();
    }
    let sent = (0..SENDERS).map(|_| results.recv_timeout(TIMEOUT).expect("no sender fails")).sum();

    setup.source.release_requests(SENDERS);
    if place == Place::SecondRuntime {
        assert_eq!(second.block_on(send(&client)), "token-2", "the first runtime is still blocked");
    }
    drop(blocked);
    assert_eq!(first.block_on(send(&client)), "token-2");
    sent
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap()
}

/// The token with which a request was sent, as an extension of the response.
#[derive(Clone)]
struct SentToken(String);

/// Returns a client over a service that answers at once.
fn client(setup: &TestSetup) -> Client {
    let layer = OAuthLayer::new(setup.cache.clone(), Origins::new([API]).unwrap());
    let service = service_fn(|request: Request<Body>| {
        let mut response = Response::new(Body::default());
        response.extensions_mut().insert(SentToken(bearer(&request).unwrap()));
        ready(Ok::<_, Infallible>(response))
    });
    BoxCloneService::new(layer.layer(service))
}

fn sent_token(response: &Response<Body>) -> String {
    response.extensions().get::<SentToken>().unwrap().0.clone()
}

/// Sends a request, waits for its response, and returns the token that was attached.
async fn send(client: &Client) -> String {
    sent_token(&client.clone().oneshot(get("/")).await.unwrap())
}

/// Sends many requests, so that a background task of the cache, if there is one, has started before
/// the worker threads are blocked.
async fn use_token(client: Client) {
    for _ in 0..REQUESTS_BEFORE_BLOCK {
        // This does not wait, because the token may have expired on a machine that stalls.
        client.clone().oneshot(get("/")).now_or_never();
        yield_now().await;
    }
}

/// The interval in which the token ends. It is empty until an invalidation starts.
#[derive(Default)]
struct Validity {
    earliest_end: OnceLock<Instant>,
    latest_end: OnceLock<Instant>,
}

impl Validity {
    fn set_end(&self, earliest: Instant, latest: Instant) {
        self.earliest_end.set(earliest).unwrap();
        self.latest_end.set(latest).unwrap();
    }

    fn has_certainly_ended(&self) -> bool {
        self.latest_end.get().is_some_and(|end| *end <= Instant::now())
    }

    fn is_certainly_valid(&self) -> bool {
        self.earliest_end.get().is_none_or(|end| Instant::now() < *end)
    }
}

/// Sends requests one after another, and checks each of them.
struct Sender {
    client: Client,
    validity: Arc<Validity>,
    place: Place,
    first_sent: mpsc::Sender<()>,
    deadline: Instant,
    sent_while_valid: usize,
    attempts_after_end: usize,
}

impl Sender {
    fn new(
        client: &Client,
        validity: &Arc<Validity>,
        place: Place,
        first_sent: mpsc::Sender<()>,
    ) -> Self {
        Self {
            client: client.clone(),
            validity: Arc::clone(validity),
            place,
            first_sent,
            deadline: Instant::now() + TIMEOUT,
            sent_while_valid: 0,
            attempts_after_end: 0,
        }
    }

    fn is_finished(&self) -> bool {
        self.attempts_after_end >= ATTEMPTS_AFTER_END
    }

    /// Polls a request once. The service answers at once, so a request that is pending waits for a
    /// token.
    fn send(&mut self) {
        assert!(Instant::now() < self.deadline, "the token has not ended within {TIMEOUT:?}");
        let had_ended = self.validity.has_certainly_ended();
        let result = self.client.clone().oneshot(get("/")).now_or_never();
        let is_still_valid = self.validity.is_certainly_valid();
        match result {
            Some(Ok(response)) => {
                assert_eq!(sent_token(&response), "token-1");
                assert!(!had_ended, "a token was sent after its end");
                if is_still_valid {
                    self.sent_while_valid += 1;
                    if self.sent_while_valid == 1 {
                        self.first_sent.send(()).ok();
                    }
                }
            }
            Some(Err(error)) => {
                let error = token_error(&error);
                assert!(self.place == Place::PlainThread, "failed in a runtime: {error}");
                assert_eq!(error.kind(), TokenErrorKind::Runtime, "{error}");
                assert!(!is_still_valid, "failed with a valid token: {error}");
            }
            None => assert!(!is_still_valid, "pending with a valid token"),
        }
        self.attempts_after_end += usize::from(had_ended);
    }
}

/// Blocks every worker thread of a runtime until it is dropped.
struct BlockedWorkers {
    _releases: Vec<mpsc::Sender<()>>,
}

impl BlockedWorkers {
    fn of(runtime: &Runtime) -> Self {
        let (blocked, all_blocked) = mpsc::channel();
        let block_one = || {
            let blocked = blocked.clone();
            let (release, released) = mpsc::channel();
            runtime.spawn(async move {
                blocked.send(()).unwrap();
                // Returns an error when `release` is dropped.
                released.recv().ok();
            });
            release
        };
        let releases = (0..WORKERS).map(|_| block_one()).collect();
        for _ in 0..WORKERS {
            all_blocked.recv_timeout(TIMEOUT).expect("each worker thread runs one of the tasks");
        }
        Self { _releases: releases }
    }
}
