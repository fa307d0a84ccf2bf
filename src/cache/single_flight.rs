//! The start and the end of a refresh.
//!
//! A caller that needs a token joins the running refresh, or starts one and gets its
//! [`RefreshGuard`]. The guard travels with the task that fetches the token, and it always ends the
//! refresh: with the fetched token, or with an error if a panic or the shutdown of the runtime
//! drops it before. So no caller waits for a refresh that no task works on. A refresh also ends
//! when the cache is closed. Its guard then has nothing left to end.

use std::{future::Future, sync::Arc, thread};

use tokio::{runtime::Handle, time::Instant};

use super::{
    cached_token::CachedToken,
    core::{Core, release},
    state::{Activity, Outcome, OutcomeReceiver, RunningRefresh, State, closed, limit_reached},
    system_sleep::Timestamps,
};
use crate::{
    error::{SettingNames, TokenError, TokenErrorKind},
    source::{FetchContext, FetchReason},
    sync::watch,
    telemetry::{Event, RefreshSpan, RequestCounter},
    token::{AccessToken, Generation, UnreadableLifetime},
};

/// The next step of a caller that has no token.
pub(super) enum Entry {
    /// There is a token by now.
    Cached(CachedToken),
    /// No refresh may start now.
    Blocked(TokenError),
    /// A refresh caused by expiry may start at this instant. The caller waits until then.
    Pausing(Instant),
    /// A refresh is running.
    Joined(RefreshHandle),
    /// A refresh was started: the guard goes to the task that fetches the token.
    Started(Box<RefreshGuard>, RefreshHandle),
}

/// Joins the running refresh of a cache or starts one, for a caller that has no token.
pub(super) fn join_or_start(core: &Arc<Core>) -> Entry {
    let mut state = core.lock();
    if let Some(token) = core.slot.load_valid() {
        return Entry::Cached(token);
    }
    let now = Instant::now();
    // Without a runtime the caller cannot wait for the end of a pause. Its refresh fails without a
    // token request.
    let may_pause = core.slot.generation().is_some() && Handle::try_current().is_ok();
    let activity = if may_pause { state.activity_after_expiry(now) } else { state.activity(now) };
    match (activity, state.refresh(), state.last_error()) {
        (Activity::Closed, ..) => return Entry::Blocked(closed()),
        (Activity::LimitReached(until), ..) => {
            let error = limit_reached(until).with_setting_names(core.setting_names);
            return Entry::Blocked(error);
        }
        (Activity::BackingOff(_), _, Some(error)) => return Entry::Blocked(error.clone()),
        (Activity::Refreshing, Some(outcome), _) => {
            return Entry::Joined(RefreshHandle(outcome.clone()));
        }
        (Activity::Pausing(until), ..) => return Entry::Pausing(until),
        (Activity::Idle | Activity::BackingOff(_) | Activity::Refreshing, ..) => {}
    }
    let context = match (core.slot.generation(), state.last_token()) {
        (Some(_), _) => FetchContext::new(FetchReason::Expired),
        (None, None) => FetchContext::new(FetchReason::First),
        (None, Some(token)) => {
            FetchContext::rejected(AccessToken::clone(token), token.generation())
        }
    };
    let (guard, outcome) = start(core, &mut state, context);
    Entry::Started(guard, RefreshHandle(outcome))
}

/// Starts a refresh of a stale token, if it is due and none is running. Never waits for the lock:
/// the caller has a usable token, and a later request can start the refresh.
pub(super) fn start_if_stale(core: &Arc<Core>) -> Option<Box<RefreshGuard>> {
    let mut state = core.try_lock()?;
    let is_due = core.slot.load_valid().is_some_and(|token| token.is_stale());
    let is_possible = state.activity_after_expiry(Instant::now()) == Activity::Idle;
    let context = FetchContext::new(FetchReason::Stale);
    (is_due && is_possible).then(|| start(core, &mut state, context).0)
}

fn start(
    core: &Arc<Core>,
    state: &mut State,
    context: FetchContext,
) -> (Box<RefreshGuard>, OutcomeReceiver) {
    let (sender, receiver) = watch::channel(None);
    state.set_refresh(RunningRefresh { sender, receiver: receiver.clone() });
    let replaces = state.last_token().map(CachedToken::generation);
    let core = Arc::clone(core);
    let guard = RefreshGuard { core, context, replaces, begin: None, is_ended: false };
    (Box::new(guard), receiver)
}

/// A guard that ends its refresh, at the latest when it is dropped.
pub(super) struct RefreshGuard {
    core: Arc<Core>,
    context: FetchContext,
    replaces: Option<Generation>,
    begin: Option<Begin>,
    is_ended: bool,
}

/// The start of the fetch.
struct Begin {
    at: Timestamps,
    span: RefreshSpan,
}

/// A fetched token, with everything that needs user code and is prepared before the lock is taken.
struct Fetched {
    token: AccessToken,
    requested_at: Timestamps,
    request_counter: RequestCounter,
}

impl RefreshGuard {
    pub(super) fn context(&self) -> FetchContext {
        self.context.clone()
    }

    pub(super) fn setting_names(&self) -> SettingNames {
        self.core.setting_names
    }

    /// Records the start of the fetch: opens its span and counts the token request.
    pub(super) fn begin(&mut self) {
        let core = &*self.core;
        let (reason, replaces) = (self.context.reason().as_str(), self.replaces);
        let span = core.telemetry.refresh_span(reason, replaces.map(Generation::get));
        self.begin = Some(Begin { at: Timestamps::now(&core.wall_clock), span });
        let blocked_until = core.lock().count_request(Instant::now());
        core.notify();
        if let Some(until) = blocked_until {
            let next_request_in = until.saturating_duration_since(Instant::now());
            core.telemetry.emit(Event::LimitReached { next_request_in });
        }
    }

    /// Completes when the cache is closed.
    pub(super) async fn closed(&self) {
        self.core.closed().await;
    }

    /// Returns a future that polls `fetch` within the span and the telemetry of the refresh.
    pub(super) fn instrument<F: Future>(&self, fetch: F) -> impl Future<Output = F::Output> {
        self.core.telemetry.scope(self.span().instrument(fetch))
    }

    /// Ends the refresh with the result of the fetch.
    pub(super) fn finish(&mut self, mut fetched: Result<AccessToken, TokenError>) {
        self.is_ended = true;
        let unreadable = fetched.as_mut().ok().and_then(AccessToken::take_unreadable_lifetime);
        let fetched = fetched.map(|token| Fetched {
            token,
            requested_at: match &self.begin {
                Some(begin) => begin.at,
                None => Timestamps::now(&self.core.wall_clock),
            },
            request_counter: self.core.telemetry.request_counter(),
        });
        let mut state = self.core.lock();
        let outcome = match fetched {
            // The refresh ended when the cache was closed.
            _ if state.is_closed() => return,
            Ok(fetched) => publish(&self.core, &mut state, fetched),
            Err(error) => Err(error),
        };
        let ended = state.end_refresh(outcome, Instant::now(), fastrand::f64());
        release(state);
        let Some((sender, outcome)) = ended else { return };
        sender.send_replace(Some(outcome.clone()));
        self.core.notify();
        // During a panic no event is emitted: the subscriber may be the code that panicked.
        if !thread::panicking() {
            self.report(&outcome, unreadable.as_deref());
        }
    }

    fn report(&self, outcome: &Outcome, unreadable: Option<&UnreadableLifetime>) {
        let begin = self.begin.as_ref();
        let duration = begin.map(|begin| begin.at.monotonic.elapsed()).unwrap_or_default();
        let reason = self.context.reason().as_str();
        let event = match outcome {
            Ok(token) => Event::Refreshed {
                generation: token.generation().get(),
                reason,
                lifetime: token.lifetime(),
                duration,
            },
            Err(error) => {
                Event::RefreshFailed { kind: error.kind().as_str(), reason, error, duration }
            }
        };
        self.span().in_scope(|| {
            if let Some(unreadable) = unreadable {
                self.report_unreadable_lifetime(unreadable);
            }
            self.core.telemetry.emit(event);
        });
    }

    fn report_unreadable_lifetime(&self, unreadable: &UnreadableLifetime) {
        let UnreadableLifetime { member, replaced_by, setting } = unreadable;
        let expand = |text: &str| self.core.setting_names.expand(text, "");
        let default = || expand("{TokenEndpoint::default_lifetime|default_lifetime}");
        let used = replaced_by.clone().unwrap_or_else(default);
        let setting = expand(setting);
        self.core.telemetry.emit(Event::LifetimeUnreadable {
            member,
            used: &used,
            setting: &setting,
        });
    }

    fn span(&self) -> RefreshSpan {
        self.begin.as_ref().map(|begin| begin.span.clone()).unwrap_or_default()
    }
}

impl Drop for RefreshGuard {
    fn drop(&mut self) {
        if !self.is_ended {
            self.finish(Err(if thread::panicking() { panicked() } else { shut_down() }));
        }
    }
}

/// Puts a fetched token into the slot.
fn publish(core: &Core, state: &mut State, fetched: Fetched) -> Outcome {
    let Fetched { token, requested_at, request_counter } = fetched;
    // A source that returns the current token again gives it no new generation. Otherwise a
    // rejection of that token would be taken for a late one.
    let current = core.slot.load_valid();
    let current = current.filter(|current| current.header_value() == token.header_value());
    let generation =
        current.map_or_else(|| state.next_generation(), |current| current.generation());
    let jitter = fastrand::f64();
    let token = CachedToken::new(token, generation, jitter, requested_at, request_counter);
    if token.is_expired() {
        state.drop_later(Some(token));
        return Err(expired_on_arrival());
    }
    state.drop_later(core.slot.replace(Some(&token)));
    state.add_token(token.clone());
    Ok(token)
}

/// Waits for the outcome of a refresh.
pub(super) struct RefreshHandle(OutcomeReceiver);

impl RefreshHandle {
    /// Returns the outcome of the refresh.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the refresh goes on without this caller.
    pub(super) async fn finished(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(shut_down()),
        }
    }
}

fn expired_on_arrival() -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, "the new access token has already expired")
        .with_advice("let the token source return a token with a longer lifetime")
}

pub(super) fn panicked() -> TokenError {
    TokenError::new(TokenErrorKind::Panicked, "the token source panicked")
}

fn shut_down() -> TokenError {
    TokenError::new(
        TokenErrorKind::Runtime,
        "the tokio runtime that fetched the token was shut down",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{core::InvalidationCause, system_sleep::WallClock},
        telemetry::Telemetry,
    };

    fn start(core: &Arc<Core>) -> Box<RefreshGuard> {
        match join_or_start(core) {
            Entry::Started(guard, _) => guard,
            Entry::Joined(_) => panic!("a refresh is running already"),
            Entry::Cached(_) => panic!("there is a token already"),
            Entry::Blocked(error) => panic!("{error}"),
            Entry::Pausing(_) => panic!("a refresh was started a moment ago"),
        }
    }

    fn core() -> Arc<Core> {
        Arc::new(Core::new(None, WallClock::default(), Telemetry::new("test".into())))
    }

    fn token() -> Result<AccessToken, TokenError> {
        AccessToken::bearer("t")
    }

    #[test]
    fn caller_after_the_refresh_gets_its_token() {
        let core = core();
        start(&core).finish(token());
        assert!(matches!(join_or_start(&core), Entry::Cached(_)));
    }

    #[test]
    fn caller_during_the_refresh_joins_it() {
        let core = core();
        let mut guard = start(&core);
        assert!(matches!(join_or_start(&core), Entry::Joined(_)));
        guard.finish(token());
    }

    #[test]
    fn refresh_that_lost_its_guard_allows_the_next_one() {
        let core = core();
        drop(start(&core));
        start(&core).finish(token());
    }

    #[test]
    fn failed_refresh_blocks_the_next_one_during_the_backoff() {
        let core = core();
        start(&core).finish(Err(panicked()));
        let entry = join_or_start(&core);
        assert!(matches!(entry, Entry::Blocked(error) if error.next_attempt_in().is_some()));
    }

    #[test]
    fn rejection_during_the_refresh_spares_its_token() {
        let core = core();
        start(&core).finish(token());
        let rejected = core.slot.generation().unwrap();
        assert!(core.invalidate(rejected, InvalidationCause::Call));
        let mut guard = start(&core);
        assert!(!core.invalidate(rejected, InvalidationCause::Call));
        guard.finish(token());
        assert!(!core.invalidate(rejected, InvalidationCause::Call));
        assert_eq!(core.slot.generation(), Some(rejected.next()));
    }

    #[test]
    fn token_fetched_before_the_cache_was_closed_is_dropped() {
        let core = core();
        let mut guard = start(&core);
        core.close();
        guard.finish(token());
        assert!(core.slot.load().is_none());
    }

    #[test]
    fn context_names_the_reason_and_the_rejected_token() {
        let core = core();
        let mut first = start(&core);
        assert_eq!(first.context().reason(), FetchReason::First);
        first.finish(token());
        let generation = core.slot.generation().unwrap();
        core.invalidate(generation, InvalidationCause::Call);
        let context = start(&core).context();
        assert_eq!(context.reason(), FetchReason::Rejected);
        assert_eq!(context.rejected_token().unwrap().expose_secret(), "t");
        assert_eq!(context.rejected_generation(), Some(generation));
    }
}
