use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
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
    AccessToken, CachedToken, ClientCredentials, FetchContext, OAuth, OAuthLayer, Origins,
    TokenCache, TokenCacheBuilder, TokenEndpoint, TokenError, TokenSource,
};

use super::{endpoint::TICK, table};
use crate::{
    loopback::{Authority, HyperClient, http1_client},
    support::{Body, StoppedClock, token_error},
};

/// The outcome of a request that took longer says for how long.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// A user of a real HTTP client under the layer. Records the outcome of each request.
pub(super) struct Caller {
    cache: TokenCache,
    client: OAuth<HyperClient>,
    api: Uri,
    token_requests: Arc<RequestCounter>,
    /// The outcomes in order. Equal outcomes in a row are recorded once.
    outcomes: Vec<String>,
    /// The number of occurrences of each outcome.
    counts: BTreeMap<String, usize>,
    last_error: Option<TokenError>,
    fault_ended_at: Option<Instant>,
    _clock: StoppedClock,
}

impl Caller {
    /// Builds a caller of an API that accepts the tokens of `authority`.
    pub(super) async fn new(endpoint: TokenEndpoint, authority: &Authority) -> Self {
        Self::of_api(authority.api().await, endpoint)
    }

    pub(super) fn of_api(api: SocketAddr, endpoint: TokenEndpoint) -> Self {
        Self::with_settings(api, endpoint, |cache| cache)
    }

    pub(super) fn with_settings(
        api: SocketAddr,
        endpoint: TokenEndpoint,
        settings: impl FnOnce(TokenCacheBuilder) -> TokenCacheBuilder,
    ) -> Self {
        let clock = StoppedClock::new();
        let token_requests = Arc::default();
        let grant = ClientCredentials::new(endpoint);
        let source = CountingSource { grant, counter: Arc::clone(&token_requests) };
        let cache = settings(TokenCache::builder(source)).build();
        let api = format!("http://{api}");
        let layer = OAuthLayer::new(cache.clone(), Origins::new([&*api]).unwrap());
        Self {
            cache,
            client: ServiceBuilder::new().layer(layer).service(http1_client()),
            api: api.parse().unwrap(),
            token_requests,
            outcomes: Vec::new(),
            counts: BTreeMap::new(),
            last_error: None,
            fault_ended_at: None,
            _clock: clock,
        }
    }

    pub(super) fn token_requests(&self) -> usize {
        self.token_requests.started.load(Ordering::SeqCst)
    }

    pub(super) fn token(&self) -> CachedToken {
        self.cache.current().expect("a usable token")
    }

    /// Sends one request and records its outcome.
    pub(super) async fn get(&mut self) {
        let started = Instant::now();
        let (outcome, error) = self.send().await;
        let took = started.elapsed();
        let outcome = if took < SHORT_WAIT {
            outcome
        } else {
            format!("{outcome} after {:.0} s", took.as_secs_f64())
        };
        self.last_error = error;
        *self.counts.entry(outcome.clone()).or_default() += 1;
        if self.outcomes.last() != Some(&outcome) {
            self.outcomes.push(outcome);
        }
        // The request may have started a background refresh. Its token request must end before the
        // test moves the clock.
        while self.token_requests.is_busy() {
            tokio::task::yield_now().await;
        }
    }

    fn send(&self) -> impl Future<Output = (String, Option<TokenError>)> + use<> {
        let request = Request::get(self.api.clone()).body(Body::default()).unwrap();
        let response = self.client.clone().oneshot(request);
        async {
            match response.await {
                Ok(response) => (response.status().as_u16().to_string(), None),
                Err(error) => {
                    let error = token_error(&error);
                    (format!("`{:?}`", error.kind()), Some(error.clone()))
                }
            }
        }
    }

    /// Sends a request that hangs. Checks that it fails at its time limit and not earlier.
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
            () = self.get() => assert!(started.elapsed() >= limit, "failed before {limit:?}"),
            () = time_passes => panic!("did not fail within {limit:?}"),
        }
    }

    /// Waits until the last error allows the next attempt. Checks that a request one tick earlier
    /// gets the same error without a token request.
    pub(super) async fn wait(&mut self) {
        let error = self.error().clone();
        let left = error.next_attempt_in().expect("the error has a back-off");
        let token_requests = self.token_requests();
        advance(left.saturating_sub(TICK)).await;
        let (_, still) = self.send().await;
        assert_eq!(still.expect("an error").to_string(), error.to_string());
        assert_eq!(self.token_requests(), token_requests);
        advance(TICK).await;
    }

    /// Replaces the sequence of outcomes by their counts, for a fault that comes and goes.
    pub(super) fn summarize_outcomes(&mut self) {
        let failures = self.counts.iter().filter(|(outcome, _)| *outcome != "200");
        self.outcomes =
            failures.map(|(outcome, count)| format!("{outcome} to {count} requests")).collect();
        self.outcomes.push("200".to_owned());
    }

    /// Records that the fault ends now.
    pub(super) fn end_fault(&mut self) {
        self.fault_ended_at = Some(Instant::now());
    }

    /// Returns the error of the last request.
    pub(super) fn error(&self) -> &TokenError {
        self.last_error.as_ref().expect("an error")
    }

    /// Records that the fault ends now, and sends the next request when the last error allows it.
    pub(super) async fn recover(&mut self) {
        self.end_fault();
        self.wait().await;
        self.get().await;
    }

    /// Checks that the last request succeeded, and compares all outcomes, the number of token
    /// requests and the time until recovery with the row of this fault.
    pub(super) fn assert_row(&self, fault: &str) {
        let [_, callers_see, token_requests, recovers_after] = table().row(fault);
        assert_eq!(self.outcomes.last().map(String::as_str), Some("200"), "{fault}");
        assert_eq!(self.outcomes.join(", then "), callers_see, "{fault}");
        let started = u32::try_from(self.token_requests()).unwrap();
        assert!(
            range(token_requests).contains(&started.into()),
            "{fault}: {started} token requests"
        );
        let ended_at = self.fault_ended_at.expect("the end of the fault");
        let took = (ended_at.elapsed() + TICK / 2).as_millis();
        let took = f64::from(u32::try_from(took).unwrap()) / 1000.0;
        assert!(range(recovers_after).contains(&took), "{fault}: recovered after {took} s");
    }
}

/// Reads a cell with a number or a range, such as `3` or `0.8–1.2 s`.
fn range(cell: &str) -> RangeInclusive<f64> {
    let cell = cell.trim_end_matches(" s");
    let (least, most) = cell.split_once('–').unwrap_or((cell, cell));
    let number =
        |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("not a range: {cell:?}"));
    number(least)..=number(most)
}

/// Lets all tasks continue that do not wait for the network or the clock.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[derive(Default)]
struct RequestCounter {
    started: AtomicUsize,
    /// Each token request in progress holds a clone.
    in_progress: Arc<()>,
}

impl RequestCounter {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.in_progress) > 1
    }
}

/// A source that counts the token requests of a grant.
struct CountingSource {
    grant: ClientCredentials,
    counter: Arc<RequestCounter>,
}

impl TokenSource for CountingSource {
    async fn fetch(&self, context: FetchContext) -> Result<AccessToken, TokenError> {
        let _in_progress = Arc::clone(&self.counter.in_progress);
        self.counter.started.fetch_add(1, Ordering::SeqCst);
        self.grant.fetch(context).await
    }
}
