//! Requests from threads that have a token under lease, on a runtime with threads of its own.

use std::{
    array,
    future::{Ready, ready},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::poll_immediate;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    time::timeout,
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use super::OAuthLayer;
use crate::{
    cache::{RefreshState, TokenCache, TokenCacheBuilder},
    error::{TokenError, TokenErrorKind},
    presentation::Origins,
    replay::Never,
    service::OAuth,
    token::AccessToken,
};

type Body = http_body_util::Empty<bytes::Bytes>;
type Token = Mutex<Option<u64>>;

const THREADS: usize = 3;
const ROUNDS: u64 = 100;
/// For a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cache whose token of generation `n` is `n`.
fn numbered() -> TokenCacheBuilder {
    let last = AtomicU64::new(0);
    TokenCache::builder(move || {
        let number = last.fetch_add(1, SeqCst) + 1;
        ready(
            AccessToken::bearer(number.to_string()).map(|token| token.expires_in(Duration::from_secs(3600))),
        )
    })
}

fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn origins() -> Origins {
    Origins::new(["https://api.test"]).unwrap()
}

fn get() -> Request<Body> {
    Request::get("https://api.test/").body(Body::new()).unwrap()
}

fn number_on<B>(request: &Request<B>) -> Option<u64> {
    let value = request.headers().get(AUTHORIZATION)?;
    value.to_str().unwrap().strip_prefix("Bearer ")?.parse().ok()
}

/// Whose requests end at once, and who tells of the token on the last one.
#[derive(Clone, Default)]
struct Api(Arc<Token>);

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        Ok(()).into()
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        *self.0.lock().unwrap() = number_on(&request);
        ready(Ok(Response::new(Body::new())))
    }
}

/// A client of one thread.
struct Client(OAuth<Api, Never>);

impl Client {
    fn of(cache: &TokenCache) -> Self {
        Self(OAuthLayer::new(cache.clone(), origins()).replay(Never).layer(Api::default()))
    }

    /// The token that a request carries. On the runtime that this thread has entered.
    fn send(&mut self) -> Result<u64, TokenErrorKind> {
        let answer = Handle::current().block_on(async { self.0.ready().await?.call(get()).await });
        match answer {
            Ok(_) => Ok(self.0.get_ref().0.lock().unwrap().take().expect("a token")),
            Err(error) => Err(error.downcast_ref::<TokenError>().expect("no other error").kind()),
        }
    }
}

/// Threads that send without end, until this is dropped.
struct Crew {
    cache: TokenCache,
    runtime: Runtime,
    /// The newest token that is known to be out of use.
    refused: AtomicU64,
    /// The newest token that each thread has a copy of.
    copied: [AtomicU64; THREADS],
    is_closed: AtomicBool,
    is_over: AtomicBool,
}

impl Crew {
    /// Has threads send, while `direct` makes trouble. Who sends after it was known that a token is out of use, does not show it.
    fn at_work(direct: impl FnOnce(&Self)) {
        struct Over<'a>(&'a AtomicBool);

        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }

        let crew = Self {
            cache: numbered().build(),
            runtime: threads(),
            refused: AtomicU64::new(0),
            copied: array::from_fn(|_| AtomicU64::new(0)),
            is_closed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            for copied in &crew.copied {
                scope.spawn(|| {
                    let _over = Over(&crew.is_over);
                    crew.send(copied);
                });
            }
            let _over = Over(&crew.is_over);
            direct(&crew);
        });
    }

    fn send(&self, copied: &AtomicU64) {
        let _entered = self.runtime.enter();
        let mut client = Client::of(&self.cache);
        while !self.is_over.load(SeqCst) {
            let (refused, is_closed) = (self.refused.load(SeqCst), self.is_closed.load(SeqCst));
            match client.send() {
                Ok(number) => {
                    assert!(number > refused, "token {number} was shown when {refused} was out of use");
                    assert!(!is_closed, "token {number} was shown by a closed cache");
                }
                Err(kind) => return assert_eq!(kind, TokenErrorKind::Closed),
            }
            if let Some(number) = self.cache.leased_generation() {
                copied.store(number.get(), SeqCst);
            }
        }
    }

    /// Until all threads have a copy of this token, which is under lease.
    fn until_copied(&self, number: u64) {
        let start = Instant::now();
        while self.copied.iter().any(|copied| copied.load(SeqCst) < number) {
            assert!(!self.is_over.load(SeqCst), "a thread has failed");
            assert!(start.elapsed() < PATIENCE, "there is no lease of token {number}");
            thread::yield_now();
        }
    }

    fn token(&self) -> u64 {
        self.runtime.block_on(self.cache.token()).unwrap().generation().get()
    }
}

#[test]
fn no_request_that_begins_after_a_refusal_carries_the_refused_token() {
    Crew::at_work(|crew| {
        for number in 1..=ROUNDS {
            crew.until_copied(number);
            let token = crew.cache.current().unwrap();
            assert_eq!(token.generation().get(), number);
            assert!(crew.cache.invalidate(token.generation()));
            crew.refused.store(number, SeqCst);
        }
    });
}

#[test]
fn no_request_that_begins_after_a_newer_token_is_known_carries_an_older_one() {
    Crew::at_work(|crew| {
        for number in 1..=ROUNDS {
            crew.until_copied(number);
            assert!(crew.cache.invalidate(crew.cache.current().unwrap().generation()));
            let newer = crew.token();
            assert_eq!(newer, number + 1);
            crew.refused.store(newer - 1, SeqCst);
        }
    });
}

#[test]
fn no_request_that_begins_after_the_end_of_the_cache_carries_a_token() {
    for _ in 0..ROUNDS / 10 {
        Crew::at_work(|crew| {
            crew.until_copied(1);
            crew.cache.close();
            crew.is_closed.store(true, SeqCst);
            let start = Instant::now();
            while !crew.is_over.load(SeqCst) {
                assert!(start.elapsed() < PATIENCE, "nobody has heard of it");
                thread::yield_now();
            }
            // Each of them ends by itself.
            let mut client = Client::of(&crew.cache);
            let _entered = crew.runtime.enter();
            assert_eq!(client.send(), Err(TokenErrorKind::Closed));
        });
    }
}

#[test]
fn a_cache_ends_with_its_last_clone_whatever_threads_keep_of_it() {
    let runtime = threads();
    let cache = numbered().build();
    let mut changes = cache.subscribe();
    let (ready, until_ready) = mpsc::channel();
    let stay = Mutex::new(());
    thread::scope(|scope| {
        let _stay = stay.lock().unwrap();
        for _ in 0..THREADS {
            let (cache, ready, runtime, stay) = (cache.clone(), ready.clone(), &runtime, &stay);
            scope.spawn(move || {
                let entered = runtime.enter();
                let mut client = Client::of(&cache);
                let start = Instant::now();
                while cache.leased_generation().is_none() {
                    assert!(start.elapsed() < PATIENCE, "there is no lease");
                    client.send().unwrap();
                }
                drop((client, cache, entered));
                ready.send(()).unwrap();
                drop(stay.lock().unwrap());
            });
        }
        for _ in 0..THREADS {
            until_ready.recv_timeout(2 * PATIENCE).expect("all threads have a copy");
        }
        drop(cache);
        let last = runtime.block_on(async {
            let mut last = None;
            while let Some(status) = timeout(PATIENCE, changes.next()).await.expect("an end") {
                last = Some(status.refresh);
            }
            last
        });
        assert_eq!(last, Some(RefreshState::Closed));
    });
}

/// A service whose one answer is sent by hand.
fn by_hand() -> (
    oneshot::Sender<StatusCode>,
    impl Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone,
) {
    let (answer, answered) = oneshot::channel();
    let answered = Arc::new(Mutex::new(Some(answered)));
    let service = service_fn(move |_| {
        let answered = answered.lock().unwrap().take().expect("one request");
        async { Ok(Response::builder().status(answered.await?).body(Body::new())?) }
    });
    (answer, service)
}

#[tokio::test]
async fn a_refusal_that_comes_after_the_end_of_its_service_takes_the_token_out_of_use() {
    let (cache, other) = (numbered().build(), numbered().build());
    cache.token().await.unwrap();
    other.token().await.unwrap();
    let (answer, api) = by_hand();
    let layer = OAuthLayer::new(cache.clone(), origins()).replay(Never);
    let mut service = layer.layer(api);
    let mut response = pin!(service.ready().await.unwrap().call(get()));
    assert!(poll_immediate(&mut response).await.is_none());
    drop((service, layer));
    // What this request leaves to the next one is not what the first one waits with.
    let others = OAuthLayer::new(other.clone(), origins()).replay(Never).layer(Api::default());
    others.oneshot(get()).await.unwrap();

    answer.send(StatusCode::UNAUTHORIZED).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(cache.current().is_none());
    assert!(other.current().is_some());
}

#[tokio::test]
async fn each_service_learns_from_its_own_answers_whichever_was_used_before_on_the_thread() {
    for refused in [0, 1] {
        let caches = [numbered().build(), numbered().build()];
        for cache in &caches {
            cache.token().await.unwrap();
            let layer = OAuthLayer::new(cache.clone(), origins()).replay(Never);
            layer.layer(Api::default()).oneshot(get()).await.unwrap();
        }
        let (answer, api) = by_hand();
        answer.send(StatusCode::UNAUTHORIZED).unwrap();
        let refusing = OAuthLayer::new(caches[refused].clone(), origins()).replay(Never).layer(api);
        refusing.oneshot(get()).await.unwrap();
        assert!(caches[refused].current().is_none());
        assert!(caches[1 - refused].current().is_some());
    }
}
