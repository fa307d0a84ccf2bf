//! The token that the cache is expected to hold.

use std::time::Duration;

use tokio::time::Instant;
use tower_oauth::{AccessToken, CachedToken, TokenError};

use super::{MINUTE, SECOND, model::Model};

/// A token as the authorization server issued it.
#[derive(Clone, Copy, Debug)]
pub(super) struct IssuedToken {
    pub(super) number: u64,
    /// The start of the fetch that returned the token.
    pub(super) requested_at: Instant,
    pub(super) issued_at: Instant,
    pub(super) lifetime: Option<Duration>,
}

impl IssuedToken {
    pub(super) fn access_token(self) -> Result<AccessToken, TokenError> {
        let token = AccessToken::bearer(self.number.to_string())?;
        Ok(match self.lifetime {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    fn expires_at(&self) -> Option<Instant> {
        let usable = |lifetime: Duration| lifetime.saturating_sub((lifetime / 10).min(30 * SECOND));
        self.lifetime.map(|lifetime| self.issued_at + usable(lifetime))
    }

    /// Returns the earliest and the latest moment at which the token may become stale.
    fn stale_between(&self) -> Option<(Instant, Instant)> {
        self.lifetime.map(|lifetime| {
            let window = (lifetime / 2).min(20 * MINUTE);
            let stale_after = |window| self.issued_at + lifetime - window;
            (stale_after(window), stale_after(window.mul_f64(0.9)))
        })
    }
}

/// The token that the cache is expected to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentToken {
    pub(super) generation: u64,
    pub(super) token: IssuedToken,
    /// True after the token was first seen stale. A stale token never becomes fresh again.
    pub(super) was_stale: bool,
}

impl CurrentToken {
    pub(super) fn change_times(&self) -> impl Iterator<Item = Instant> {
        let stale_between = self.token.stale_between();
        let middle = stale_between.map(|(earliest, latest)| earliest + (latest - earliest) / 2);
        let limits = stale_between.into_iter().flat_map(|(earliest, latest)| [earliest, latest]);
        limits.chain(middle).chain(self.token.expires_at())
    }
}

impl Model {
    /// Returns the current token, unless it has expired.
    pub(super) fn usable_token(&self) -> Option<CurrentToken> {
        let has_expired =
            |token: &IssuedToken| token.expires_at().is_some_and(|at| at <= Instant::now());
        self.current_token.filter(|current| !has_expired(&current.token))
    }

    /// Makes `token` the current one. A token that is current already keeps its generation.
    pub(super) fn publish(&mut self, token: IssuedToken) {
        let same = self.usable_token().filter(|current| current.token.number == token.number);
        let generation = same.map_or(self.last_generation + 1, |same| same.generation);
        self.last_generation = generation;
        self.current_token = Some(CurrentToken { generation, token, was_stale: false });
        self.log(format_args!("generation {generation} is current"));
    }

    /// Returns true if `generation` was current, including after its expiry.
    pub(super) fn invalidate(&mut self, generation: u64) -> bool {
        let removed = self.current_token.take_if(|current| current.generation == generation);
        removed.inspect(|_| self.log(format_args!("generation {generation} invalidated"))).is_some()
    }

    /// Compares the token of the cache with the expected one.
    pub(super) fn check_current_token(&mut self, found: Option<&CachedToken>) {
        let expected =
            self.usable_token().map(|current| (current.generation, current.token.number));
        let actual = found.map(|token| (token.generation().get(), number(token.expose_secret())));
        if actual != expected {
            let name = |token: Option<(u64, u64)>| match token {
                Some((generation, number)) => format!("generation {generation} (token {number})"),
                None => "none".to_owned(),
            };
            return self.fail(format_args!(
                "the current token is {}, expected {}",
                name(actual),
                name(expected)
            ));
        }
        if let Some(found) = found {
            self.check_staleness(found.is_stale());
        }
    }

    fn check_staleness(&mut self, is_stale: bool) {
        let now = Instant::now();
        let Some(current) = &mut self.current_token else { return };
        let was_stale = current.was_stale;
        current.was_stale |= is_stale;
        let (may_be_stale, may_be_fresh) = current
            .token
            .stale_between()
            .map_or((false, true), |(earliest, latest)| (earliest <= now, now < latest));
        match is_stale {
            false if was_stale => self.fail("a stale token became fresh again"),
            false if !may_be_fresh => self.fail("a token became stale too late"),
            true if !may_be_stale => self.fail("a token became stale too early"),
            _ => {}
        }
    }
}

/// Returns the number of a token from its text.
pub(super) fn number(secret: &str) -> u64 {
    secret.parse().unwrap()
}
