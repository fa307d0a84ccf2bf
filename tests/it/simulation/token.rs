//! Which token is to be in use now.

use std::time::Duration;

use tokio::time::Instant;
use tower_oauth::{AccessToken, CachedToken, TokenError};

use super::{MINUTE, SECOND, world::World};

/// As it was issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) lifetime: Option<Duration>,
}

impl Token {
    pub(super) fn issued(self) -> Result<AccessToken, TokenError> {
        let token = AccessToken::bearer(self.number.to_string())?;
        Ok(match self.lifetime {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    fn expires_at(&self) -> Option<Instant> {
        self.lifetime.map(|lifetime| self.at + lifetime.saturating_sub((lifetime / 10).min(30 * SECOND)))
    }

    /// When it becomes stale is drawn from between these.
    fn ages_between(&self) -> Option<(Instant, Instant)> {
        self.lifetime.map(|lifetime| {
            let window = (lifetime / 2).min(20 * MINUTE);
            (self.at + lifetime - window, self.at + lifetime - window.mul_f64(0.9))
        })
    }
}

/// The token that the cache is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct InUse {
    pub(super) generation: u64,
    pub(super) token: Token,
    /// Whether it was seen to be stale. Then it stays so.
    pub(super) was_stale: bool,
}

impl InUse {
    pub(super) fn turning_points(&self) -> impl Iterator<Item = Instant> {
        let ages_between = self.token.ages_between();
        let in_between = ages_between.map(|(earliest, latest)| earliest + (latest - earliest) / 2);
        let ages = ages_between.into_iter().flat_map(|(earliest, latest)| [earliest, latest]);
        ages.chain(in_between).chain(self.token.expires_at())
    }
}

impl World {
    pub(super) fn in_use(&self) -> Option<InUse> {
        let is_expired = |token: &Token| token.expires_at().is_some_and(|at| at <= Instant::now());
        self.in_use.filter(|in_use| !is_expired(&in_use.token))
    }

    /// A token that is in use already is none of a new generation.
    pub(super) fn comes_into_use(&mut self, token: Token) {
        let same = self.in_use().filter(|in_use| in_use.token.number == token.number);
        let generation = same.map_or(self.last_generation + 1, |same| same.generation);
        self.last_generation = generation;
        self.in_use = Some(InUse { generation, token, was_stale: false });
        self.note(format_args!("generation {generation} is in use"));
    }

    /// Whether it was in use, be it past its expiry.
    pub(super) fn goes_out_of_use(&mut self, generation: u64) -> bool {
        let refused = self.in_use.take_if(|in_use| in_use.generation == generation);
        refused.inspect(|_| self.note(format_args!("generation {generation} is out of use"))).is_some()
    }

    /// Compares the cache with what it is to be.
    pub(super) fn look(&mut self, current: Option<&CachedToken>) {
        let expected = self.in_use().map(|in_use| (in_use.generation, in_use.token.number));
        let found = current.map(|token| (token.generation().get(), number(token.expose_secret())));
        if found != expected {
            let name = |token: Option<(u64, u64)>| match token {
                Some((generation, number)) => format!("generation {generation} (token {number})"),
                None => "none".to_owned(),
            };
            return self.wrong(format_args!("in use is {}, and should be {}", name(found), name(expected)));
        }
        if let Some(current) = current {
            self.look_at_age(current.is_stale());
        }
    }

    fn look_at_age(&mut self, is_stale: bool) {
        let now = Instant::now();
        let Some(in_use) = &mut self.in_use else { return };
        let was_stale = in_use.was_stale;
        in_use.was_stale |= is_stale;
        let (may_be_stale, may_be_fresh) =
            in_use.token.ages_between().map_or((false, true), |(from, to)| (from <= now, now < to));
        match is_stale {
            false if was_stale => self.wrong("a stale token is fresh again"),
            false if !may_be_fresh => self.wrong("a token is not yet stale"),
            true if !may_be_stale => self.wrong("a token is stale already"),
            _ => {}
        }
    }
}

pub(super) fn number(secret: &str) -> u64 {
    secret.parse().unwrap()
}
