use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Uri};
use tokio::time::{Instant, advance};
use tower::{ServiceBuilder, ServiceExt};
use tower_oauth::{
    AccessToken, CachedToken, ClientCredentials, OAuth, OAuthLayer, Origins, TokenCache, TokenCacheBuilder,
    TokenEndpoint, TokenError, TokenSource,
};

use super::{range, row};
use crate::{
    loopback::{Authority, HyperClient, http1_client},
    support::{Body, StoppedClock, token_error},
};

/// The least that is told apart.
const TICK: Duration = Duration::from_millis(1);

/// Somebody with a real HTTP client under the layer, who keeps a record of what it sees.
pub(super) struct Caller {
    cache: TokenCache,
    client: OAuth<HyperClient>,
    api: Uri,
    token_requests: Arc<Counter>,
    seen: Vec<String>,
    counts: BTreeMap<String, usize>,
    blocked: Option<TokenError>,
    over: Option<Instant>,
    _clock: StoppedClock,
}

impl Caller {
    /// Of an API that takes the tokens of the authority.
    pub(super) async fn new(endpoint: TokenEndpoint, authority: &Authority) -> Self {
        Self::of_api(authority.api().await, endpoint)
    }

    pub(super) fn of_api(api: SocketAddr, endpoint: TokenEndpoint) -> Self {
        Self::with(api, endpoint, |cache| cache)
    }

    /// Whose cache has settings of its own.
    pub(super) fn with(
        api: SocketAddr,
        endpoint: TokenEndpoint,
        settings: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> Self {
        let clock = StoppedClock::new();
        let token_requests = Arc::default();
        let source = Counted(ClientCredentials::new(endpoint), Arc::clone(&token_requests));
        let cache = settings(TokenCache::builder(source)).build();
        let api = format!("http://{api}");
        let layer = OAuthLayer::new(cache.clone(), Origins::new([&*api]).unwrap());
        Self {
            cache,
            client: ServiceBuilder::new().layer(layer).service(http1_client()),
            api: api.parse().unwrap(),
            token_requests,
            seen: Vec::new(),
            counts: BTreeMap::new(),
            blocked: None,
            over: None,
            _clock: clock,
        }
    }

    pub(super) fn token_requests(&self) -> usize {
        self.token_requests.begun.load(Ordering::SeqCst)
    }

    pub(super) fn token(&self) -> CachedToken {
        self.cache.current().expect("a token that can be used")
    }

    /// One request. What it comes to is noted, where it is news.
    pub(super) async fn get(&mut self) {
        let started = Instant::now();
        let (what, blocked) = self.answer().await;
        let took = started.elapsed();
        let what = if took.is_zero() { what } else { format!("{what} after {:.0} s", took.as_secs_f64()) };
        self.blocked = blocked;
        *self.counts.entry(what.clone()).or_default() += 1;
        if self.seen.last() != Some(&what) {
            self.seen.push(what);
        }
        // A renewal behind belongs to it, too.
        while self.token_requests.is_busy() {
            tokio::task::yield_now().await;
        }
    }

    fn answer(&self) -> impl Future<Output = (String, Option<TokenError>)> + use<> {
        let request = Request::get(self.api.clone()).body(Body::default()).unwrap();
        let answer = self.client.clone().oneshot(request);
        async {
            match answer.await {
                Ok(response) => (response.status().as_u16().to_string(), None),
                Err(error) => {
                    let error = token_error(&error);
                    (format!("`{:?}`", error.kind()), Some(error.clone()))
                }
            }
        }
    }

    /// [`get`](Self::get) of what hangs: given up at its time limit, and not a moment before.
    pub(super) async fn get_until(&mut self, limit: Duration, hangs: impl Future<Output = ()>) {
        let started = Instant::now();
        let time_passes = async {
            hangs.await;
            advance(limit.saturating_sub(TICK)).await;
            settle().await;
            advance(2 * TICK).await;
            settle().await;
        };
        tokio::select! {
            biased;
            () = self.get() => assert!(started.elapsed() >= limit, "given up too early"),
            () = time_passes => panic!("not given up within {limit:?}"),
        }
    }

    /// Waits for as long as the error says. A moment before that it is still the answer, and costs nothing.
    pub(super) async fn wait(&mut self) {
        let error = self.error().clone();
        let (left, token_requests) = (error.next_attempt_in().expect("a back-off"), self.token_requests());
        advance(left.saturating_sub(TICK)).await;
        let (_, still) = self.answer().await;
        assert_eq!(still.expect("an error").to_string(), error.to_string());
        assert_eq!(self.token_requests(), token_requests);
        advance(TICK).await;
    }

    /// Notes how many requests came to what, in the place of what came after what: for a fault that comes and goes.
    pub(super) fn in_sum(&mut self) {
        let not_well = self.counts.iter().filter(|(what, _)| *what != "200");
        self.seen = not_well.map(|(what, count)| format!("{what} to {count} requests")).collect();
        self.seen.push("200".to_owned());
    }

    /// From now on all is well.
    pub(super) fn fault_is_over(&mut self) {
        self.over = Some(Instant::now());
    }

    /// What the last request ended with.
    pub(super) fn error(&self) -> &TokenError {
        self.blocked.as_ref().expect("an error")
    }

    /// From now on all is well, and the next request is made as soon as it helps.
    pub(super) async fn recovers(&mut self) {
        self.fault_is_over();
        self.wait().await;
        self.get().await;
    }

    /// The last request was good: everything is as the chapter says.
    pub(super) fn is_row(&self, fault: &str) {
        let [callers_see, token_requests, recovers] = row(fault);
        assert_eq!(self.seen.last().map(String::as_str), Some("200"), "{fault}");
        assert_eq!(self.seen.join(", then "), callers_see, "{fault}");
        let asked = u32::try_from(self.token_requests()).unwrap();
        assert!(range(token_requests).contains(&asked.into()), "{fault}: {asked} token requests");
        let took = (self.over.expect("its end").elapsed() + TICK / 2).as_millis();
        let took = f64::from(u32::try_from(took).unwrap()) / 1000.0;
        assert!(range(recovers).contains(&took), "{fault}: recovered after {took} s");
    }
}

/// Lets everything run that can run without the network.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[derive(Default)]
struct Counter {
    begun: AtomicUsize,
    /// A share of it for each that has not ended.
    under_way: Arc<()>,
}

impl Counter {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.under_way) > 1
    }
}

struct Counted(ClientCredentials, Arc<Counter>);

impl TokenSource for Counted {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        let _under_way = Arc::clone(&self.1.under_way);
        self.1.begun.fetch_add(1, Ordering::SeqCst);
        self.0.fetch().await
    }
}
