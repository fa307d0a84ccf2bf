//! When a token is to be renewed, and when it is not to be sent any more: a pure function of the token and of time.

use std::time::Duration;

use tokio::time::Instant;

use crate::token::{AccessToken, Renewal};

/// The most time before its expiry at which a token begins to be renewed; of a shorter-lived token it is half its lifetime.
/// Long enough to sit out an authorization server that is gone for a quarter of an hour.
const MAX_STALE_WINDOW: Duration = Duration::from_secs(20 * 60);

/// How much of that window is left to chance, so that a fleet does not renew at the same moment.
const JITTER: f64 = 0.1;

/// The youngest age at which a token is renewed: an age of zero would renew it with every request.
const LEAST_AGE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// To be used.
    Fresh,
    /// To be used, and to be renewed behind.
    Stale,
    /// Not to be sent.
    Expired,
}

/// The turning points of one token. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    stale_at: Option<Instant>,
    expired_at: Option<Instant>,
}

impl Schedule {
    /// `chance` is in 0..1, and drawn once for each token.
    pub(super) fn of(token: &AccessToken, chance: f64) -> Self {
        let at = |age| token.since().checked_add(age);
        let turning_points =
            token.lifetime().map(|lifetime| turning_points(lifetime, token.renewal(), chance));
        let stale_by_lifetime = turning_points.and_then(|(stale, _)| at(stale));
        let stale_by_age = match token.renewal() {
            Renewal::AtAge(age) => at(age.max(LEAST_AGE)),
            Renewal::ByLifetime | Renewal::BeforeExpiry(_) => None,
        };
        Self {
            stale_at: stale_by_lifetime.into_iter().chain(stale_by_age).min(),
            expired_at: turning_points.and_then(|(_, expired)| at(expired)),
        }
    }

    /// The next turning point after `now`.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Instant> {
        [self.stale_at, self.expired_at].into_iter().flatten().filter(|at| *at > now).min()
    }

    pub(super) fn stale_at(&self) -> Option<Instant> {
        self.stale_at
    }

    /// For how long the token may be used after it became stale.
    pub(super) fn leeway(&self) -> Duration {
        match (self.stale_at, self.expired_at) {
            (_, None) => Duration::MAX,
            (None, Some(_)) => Duration::ZERO,
            (Some(stale), Some(expired)) => expired.saturating_duration_since(stale),
        }
    }

    pub(super) fn at(&self, now: Instant) -> Freshness {
        if self.expired_at.is_some_and(|at| at <= now) {
            Freshness::Expired
        } else if self.stale_at.is_some_and(|at| at <= now) {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

/// The ages at which a token of this lifetime is stale, and expired.
fn turning_points(lifetime: Duration, renewal: Renewal, chance: f64) -> (Duration, Duration) {
    let margin = (lifetime / 10).min(AccessToken::MAX_EXPIRY_MARGIN);
    let (window, margin) = match renewal {
        Renewal::BeforeExpiry(window) => (window.max(2 * margin).min(lifetime / 2), margin),
        Renewal::ByLifetime | Renewal::AtAge(_) => {
            let window = (lifetime / 2).min(MAX_STALE_WINDOW);
            (window.mul_f64(1.0 - JITTER * chance), margin)
        }
    };
    (lifetime.saturating_sub(window), lifetime.saturating_sub(margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// In seconds, for both ends of chance.
    fn ages(lifetime: u64, renewal: Renewal) -> [(u64, u64); 2] {
        [0.0, 1.0].map(|chance| {
            let (stale, expired) = turning_points(Duration::from_secs(lifetime), renewal, chance);
            (stale.as_secs(), expired.as_secs())
        })
    }

    #[test]
    fn a_long_lived_token_is_stale_twenty_minutes_before_its_expiry_less_jitter_and_expired_thirty_seconds_before()
     {
        assert_eq!(ages(86_400, Renewal::ByLifetime), [(85_200, 86_370), (85_320, 86_370)]);
        assert_eq!(ages(3600, Renewal::ByLifetime), [(2400, 3570), (2520, 3570)]);
    }

    #[test]
    fn the_windows_of_a_short_lived_token_scale_with_its_lifetime() {
        assert_eq!(ages(100, Renewal::ByLifetime), [(50, 90), (55, 90)]);
        assert_eq!(ages(10, Renewal::ByLifetime), [(5, 9), (5, 9)]);
        assert_eq!(ages(0, Renewal::ByLifetime), [(0, 0), (0, 0)]);
    }

    #[test]
    fn a_renewal_before_the_expiry_is_as_it_was_set_but_within_the_second_half_of_the_lifetime() {
        assert_eq!(ages(3600, Renewal::BeforeExpiry(Duration::from_secs(600))), [(3000, 3570); 2]);
        assert_eq!(ages(600, Renewal::BeforeExpiry(HOUR)), [(300, 570); 2]);
        assert_eq!(
            ages(3600, Renewal::BeforeExpiry(Duration::from_secs(5))),
            [(3540, 3570); 2],
            "not without time"
        );
    }

    #[test]
    fn a_renewal_at_an_age_comes_no_later_than_by_default() {
        let stale_at = |lifetime: Option<Duration>, age| {
            let token = AccessToken::bearer("t").unwrap().renewed(Renewal::AtAge(age));
            let start = token.since();
            let token = match lifetime {
                Some(lifetime) => token.expires_in_from(start, lifetime),
                None => token,
            };
            Schedule::of(&token, 0.0).stale_at.unwrap() - start
        };
        assert_eq!(stale_at(Some(25 * HOUR), 24 * HOUR), 24 * HOUR);
        assert_eq!(stale_at(Some(HOUR), 24 * HOUR), HOUR.saturating_sub(MAX_STALE_WINDOW));
        assert_eq!(stale_at(None, HOUR), HOUR, "also where no expiry is known");
        assert_eq!(stale_at(None, Duration::ZERO), LEAST_AGE);
    }

    #[test]
    fn time_decides_and_the_turning_points_belong_to_what_follows() {
        let token = AccessToken::bearer("t").unwrap().expires_in(Duration::from_secs(100));
        let (schedule, start) = (Schedule::of(&token, 0.0), token.since());
        let at = |millis| schedule.at(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(49_999)], [Freshness::Fresh; 2]);
        assert_eq!([at(50_000), at(89_999)], [Freshness::Stale; 2]);
        assert_eq!([at(90_000), at(1_000_000)], [Freshness::Expired; 2]);
        let turn = |seconds| Some(schedule.next_turn(start + Duration::from_secs(seconds))? - start);
        assert_eq!(
            [turn(0), turn(50), turn(90)],
            [Some(50), Some(90), None].map(|s| s.map(Duration::from_secs))
        );
    }

    #[test]
    fn a_token_without_a_known_expiry_stays_fresh() {
        let token = AccessToken::bearer("t").unwrap();
        let far = token.since() + 100 * 365 * 24 * HOUR;
        assert_eq!(Schedule::of(&token, 0.0).at(far), Freshness::Fresh);
    }
}
