//! The instants at which a token becomes stale and expires: a pure function of the token.

use std::time::Duration;

use tokio::time::Instant;

use crate::token::{AccessToken, RefreshTiming, usable_age};

/// The longest time before its expiry at which a token becomes stale. For a shorter-lived token it
/// is half of the lifetime. It survives an outage of the authorization server of 15 minutes.
const MAX_STALE_WINDOW: Duration = Duration::from_secs(20 * 60);

/// The share of that window that is random, so that a fleet does not refresh at the same instant.
const JITTER: f64 = 0.1;

/// The smallest age at which a token is refreshed: an age of zero would refresh with every request.
const MIN_REFRESH_AGE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Usable.
    Fresh,
    /// Usable and due for a background refresh.
    Stale,
    /// No longer sent.
    Expired,
}

/// The instants at which the freshness of one token changes. `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) stale_at: Option<Instant>,
    expired_at: Option<Instant>,
}

impl Schedule {
    /// Creates the schedule of a token. `jitter` is in 0..1 and drawn once per token.
    pub(super) fn new(token: &AccessToken, jitter: f64) -> Self {
        let at = |age| token.issued_at().checked_add(age);
        let timing = token.refresh_timing();
        let ages =
            token.lifetime().map(|lifetime| stale_and_expired_ages(lifetime, timing, jitter));
        let stale_by_lifetime = ages.and_then(|(stale, _)| at(stale));
        let stale_by_age = match timing {
            RefreshTiming::AtAge(age) => at(age.max(MIN_REFRESH_AGE)),
            RefreshTiming::ByLifetime | RefreshTiming::BeforeExpiry(_) => None,
        };
        Self {
            stale_at: stale_by_lifetime.into_iter().chain(stale_by_age).min(),
            expired_at: ages.and_then(|(_, expired)| at(expired)),
        }
    }

    /// Returns the first change after `now`.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.stale_at, self.expired_at].into_iter().flatten().filter(|at| *at > now).min()
    }

    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        if self.expired_at.is_some_and(|at| at <= now) {
            Freshness::Expired
        } else if self.stale_at.is_some_and(|at| at <= now) {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

/// Returns the ages at which a token of this lifetime becomes stale and expires.
fn stale_and_expired_ages(
    lifetime: Duration,
    timing: RefreshTiming,
    jitter: f64,
) -> (Duration, Duration) {
    let expired = usable_age(lifetime);
    let margin = lifetime.saturating_sub(expired);
    let window = match timing {
        RefreshTiming::BeforeExpiry(window) => window.max(2 * margin).min(lifetime / 2),
        RefreshTiming::ByLifetime | RefreshTiming::AtAge(_) => {
            (lifetime / 2).min(MAX_STALE_WINDOW).mul_f64(1.0 - JITTER * jitter)
        }
    };
    (lifetime.saturating_sub(window), expired)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns the ages in seconds, for the lowest and the highest jitter.
    fn ages(lifetime: u64, timing: RefreshTiming) -> [(u64, u64); 2] {
        [0.0, 1.0].map(|jitter| {
            let lifetime = Duration::from_secs(lifetime);
            let (stale, expired) = stale_and_expired_ages(lifetime, timing, jitter);
            (stale.as_secs(), expired.as_secs())
        })
    }

    #[test]
    fn long_lived_token_is_stale_20_min_and_expired_30_s_before() {
        assert_eq!(ages(86_400, RefreshTiming::ByLifetime), [(85_200, 86_370), (85_320, 86_370)]);
        assert_eq!(ages(3600, RefreshTiming::ByLifetime), [(2400, 3570), (2520, 3570)]);
    }

    #[test]
    fn windows_of_a_short_lived_token_scale_with_its_lifetime() {
        assert_eq!(ages(100, RefreshTiming::ByLifetime), [(50, 90), (55, 90)]);
        assert_eq!(ages(10, RefreshTiming::ByLifetime), [(5, 9), (5, 9)]);
        assert_eq!(ages(0, RefreshTiming::ByLifetime), [(0, 0), (0, 0)]);
    }

    #[test]
    fn refresh_before_expiry_stays_in_second_half_of_lifetime() {
        let before_expiry = |seconds| RefreshTiming::BeforeExpiry(Duration::from_secs(seconds));
        assert_eq!(ages(3600, before_expiry(600)), [(3000, 3570); 2]);
        assert_eq!(ages(600, before_expiry(3600)), [(300, 570); 2]);
        assert_eq!(ages(3600, before_expiry(5)), [(3540, 3570); 2], "time is left for the refresh");
    }

    #[test]
    fn refresh_at_an_age_is_not_later_than_the_default() {
        let stale_at = |lifetime: Option<Duration>, age| {
            let token = AccessToken::bearer("t").unwrap();
            let token = token.with_refresh_timing(RefreshTiming::AtAge(age));
            let start = token.issued_at();
            let token = match lifetime {
                Some(lifetime) => token.expires_in_from(start, lifetime),
                None => token,
            };
            Schedule::new(&token, 0.0).stale_at.unwrap() - start
        };
        assert_eq!(stale_at(Some(25 * HOUR), 24 * HOUR), 24 * HOUR);
        assert_eq!(stale_at(Some(HOUR), 24 * HOUR), HOUR.saturating_sub(MAX_STALE_WINDOW));
        assert_eq!(stale_at(None, HOUR), HOUR, "an unknown expiry makes no difference");
        assert_eq!(stale_at(None, Duration::ZERO), MIN_REFRESH_AGE);
    }

    #[test]
    fn freshness_changes_exactly_at_the_scheduled_instants() {
        let token = AccessToken::bearer("t").unwrap().expires_in(Duration::from_secs(100));
        let (schedule, start) = (Schedule::new(&token, 0.0), token.issued_at());
        let at = |millis| schedule.freshness(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(49_999)], [Freshness::Fresh; 2]);
        assert_eq!([at(50_000), at(89_999)], [Freshness::Stale; 2]);
        assert_eq!([at(90_000), at(1_000_000)], [Freshness::Expired; 2]);
        let next = |seconds| {
            Some((schedule.next_change(start + Duration::from_secs(seconds))? - start).as_secs())
        };
        assert_eq!([next(0), next(50), next(90)], [Some(50), Some(90), None]);
    }

    #[test]
    fn token_without_a_known_expiry_stays_fresh() {
        let token = AccessToken::bearer("t").unwrap();
        let far = token.issued_at() + 100 * 365 * 24 * HOUR;
        assert_eq!(Schedule::new(&token, 0.0).freshness(far), Freshness::Fresh);
    }
}
