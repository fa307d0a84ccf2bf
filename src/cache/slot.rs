//! The one token that may be sent now.

use std::{fmt, num::NonZeroU64, ops::Deref, ptr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    copies,
    freshness::{Freshness, Schedule},
    lease::{LEAST_LEEWAY, Lease},
    suspend::{COMPARED_EVERY, Lookout, Moment, WallClock},
};
use crate::{
    sync::{Pointer, unique_number},
    telemetry::Attached,
    token::{AccessToken, Scheme},
};
use bytes::BytesMut;
use http::HeaderValue;

/// Which token of a [`TokenCache`](crate::TokenCache) this is: the first one fetched is 1, each later one is greater.
///
/// It names a token where the token itself must not appear, such as in a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token of a [`TokenCache`](crate::TokenCache) with its [`Generation`]. Cheap to clone; `Debug` does not show the token.
#[derive(Clone)]
pub struct CachedToken(Arc<Published>);

/// A token as all who read the slot share it.
pub(super) struct Published {
    token: AccessToken,
    pub(super) credentials: Credentials,
    /// Unlike the generation, another one also where the same token has got older.
    pub(super) edition: u64,
    schedule: Schedule,
    /// What the schedule was drawn with: once for a token.
    chance: f64,
    lookout: Lookout,
}

impl Published {
    /// Not where it is stale for a short time only, in which its keeper might be late.
    fn can_be_leased(&self) -> bool {
        self.schedule.leeway() >= LEAST_LEEWAY
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.schedule.at(now) == Freshness::Fresh
    }
}

/// What a request needs of a token.
pub(crate) struct Credentials {
    /// For its `Authorization` header.
    pub(crate) value: HeaderValue,
    pub(crate) scheme: Scheme,
    pub(crate) generation: Generation,
    /// Counts the requests that have them.
    pub(crate) attached: Attached,
}

impl Credentials {
    /// With a value that is not shared with these.
    pub(super) fn copied(&self) -> Option<Self> {
        let mut bytes = BytesMut::with_capacity(self.value.len() + 1);
        bytes.extend_from_slice(self.value.as_bytes());
        let mut value = HeaderValue::from_maybe_shared(bytes.freeze()).ok()?;
        value.set_sensitive(self.value.is_sensitive());
        Some(Self { value, attached: self.attached.clone(), ..*self })
    }
}

impl CachedToken {
    /// `fetched_at` is no later than the age of the token counts from.
    pub(super) fn new(
        token: AccessToken,
        generation: Generation,
        chance: f64,
        fetched_at: Moment,
        attached: Attached,
    ) -> Self {
        let schedule = Schedule::of(&token, chance);
        let lookout = Lookout::since(fetched_at);
        let (value, scheme) = (token.header_value().clone(), token.scheme());
        let credentials = Credentials { value, scheme, generation, attached };
        let edition = unique_number();
        Self(Arc::new(Published { token, credentials, edition, schedule, chance, lookout }))
    }

    /// The same token by the wall clock, where that says that the machine slept.
    pub(super) fn after_sleep(&self, clock: &WallClock) -> Option<(Duration, Self)> {
        let slept = self.0.lookout.slept(clock)?;
        let older = self.0.token.clone().older_by(slept);
        let attached = self.0.credentials.attached.clone();
        let older = Self::new(older, self.generation(), self.0.chance, Moment::now(clock), attached);
        Some((slept, older))
    }

    /// What to pass to [`TokenCache::invalidate`](crate::TokenCache::invalidate) when this token was refused.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.0.credentials.generation
    }

    /// Whether the token is past its expiry less the margin (see [`AccessToken::MAX_EXPIRY_MARGIN`]) and is not to be
    /// sent any more.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.freshness(Instant::now()) == Freshness::Expired
    }

    /// Whether the token is due for renewal: it may be sent, and the next use of it through the cache has it renewed.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.freshness(Instant::now()) == Freshness::Stale
    }

    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        self.0.schedule.at(now)
    }

    /// When its freshness changes next.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Instant> {
        self.0.schedule.next_turn(now)
    }
}

impl Deref for CachedToken {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0.token
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("generation", &self.generation())
            .field("token", &self.0.token)
            .finish_non_exhaustive()
    }
}

/// Holds the token that may be sent now. Reading takes no lock; writing is serialized by the single flight.
pub(super) struct Slot {
    /// Tells it from others.
    id: u64,
    token: Pointer<Published>,
    lease: Lease,
}

/// What a reader finds.
pub(super) enum Glance<T> {
    Token(T, Freshness),
    /// None that may be sent.
    Nothing,
    /// The clocks are to be compared first.
    ClocksAreDue,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { id: unique_number(), token: Pointer::default(), lease: Lease::default() }
    }

    /// Without a look at the clock and at what threads share: the copy that this thread has of a token under lease.
    #[inline]
    pub(super) fn leased<T>(&self, read: &mut impl FnMut(&Credentials) -> T) -> Option<T> {
        let seen = copies::read(self.lease.edition()?, read)?;
        self.lease.used();
        Some(seen)
    }

    /// Whether the token may be used without a look at the clock.
    pub(super) fn is_leased(&self) -> bool {
        let is_leased = self.lease.edition().is_some();
        if is_leased {
            self.lease.used();
        }
        is_leased
    }

    /// By the clock. Takes no share of the token.
    pub(super) fn glance<T>(&self, read: &mut impl FnMut(&Credentials) -> T) -> Glance<T> {
        self.token.read(|published| {
            let Some(published) = published else { return Glance::Nothing };
            let now = Instant::now();
            match published.schedule.at(now) {
                Freshness::Expired => Glance::Nothing,
                _ if published.lookout.is_due(now) => Glance::ClocksAreDue,
                freshness => {
                    if self.lease.edition() == Some(published.edition) {
                        self.lease.used();
                        copies::missed(self.id, published);
                    }
                    Glance::Token(read(&published.credentials), freshness)
                }
            }
        })
    }

    /// Asked with each read by the clock: whether a lease is missed.
    pub(super) fn wants_lease(&self) -> bool {
        self.lease.edition().is_none()
            && self.lease.is_wanted()
            && self.token.read(|published| published.is_some_and(Published::can_be_leased))
    }

    pub(super) fn has_outlived_lease(&self, now: Instant) -> bool {
        let is_fresh =
            || self.token.read(|published| published.is_some_and(|published| published.is_fresh(now)));
        self.lease.edition().is_some() && !is_fresh()
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Leases the token, and says until when that is to be looked at again. `None`: there is none to be leased.
    pub(super) fn extend_lease(&self, now: Instant) -> Option<Instant> {
        let lease = self.token.read(|published| {
            let published = published.filter(|published| published.is_fresh(now))?;
            let until = [published.schedule.stale_at(), now.checked_add(COMPARED_EVERY)]
                .into_iter()
                .flatten()
                .min()?;
            published.can_be_leased().then_some((published.edition, until))
        });
        match lease {
            Some((edition, _)) => self.lease.grant(edition),
            None => self.lease.end(),
        }
        lease.map(|(_, until)| until)
    }

    /// The token, unless it has expired.
    pub(super) fn load(&self) -> Option<CachedToken> {
        self.get().filter(|token| !token.is_expired())
    }

    /// Whatever its age: also an expired token is there until it is replaced.
    pub(super) fn get(&self) -> Option<CachedToken> {
        self.token.load().map(CachedToken)
    }

    /// Whether this is the token that is there, and not merely an equal one.
    pub(super) fn holds(&self, token: &CachedToken) -> bool {
        self.token
            .read(|published| published.is_some_and(|published| ptr::eq(published, Arc::as_ptr(&token.0))))
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.token.read(|published| published.map(|published| published.credentials.generation))
    }

    pub(super) fn publish(&self, token: &CachedToken) {
        self.lease.end();
        self.token.store(Some(Arc::clone(&token.0)));
    }

    pub(super) fn clear(&self) {
        self.lease.end();
        self.token.store(None);
    }
}

#[cfg(test)]
impl Slot {
    /// The edition under lease, and that of the token.
    pub(super) fn editions(&self) -> (Option<u64>, Option<u64>) {
        (self.lease.edition(), self.token.read(|published| published.map(|published| published.edition)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::SeqCst},
        thread,
    };

    use super::*;
    use crate::telemetry::Telemetry;

    fn read(slot: &Slot) -> (Generation, bool) {
        let mut generation = |seen: &Credentials| seen.generation;
        match slot.leased(&mut generation) {
            Some(seen) => (seen, true),
            None => match slot.glance(&mut generation) {
                Glance::Token(seen, _) => (seen, false),
                Glance::Nothing | Glance::ClocksAreDue => panic!("there is a fresh token"),
            },
        }
    }

    /// What a thread has read so far: the newest token by the clock, and the newest under lease.
    #[derive(Default)]
    struct Reader {
        seen: AtomicU64,
        copied: AtomicU64,
    }

    impl Reader {
        fn read_until(&self, slot: &Slot, published: &AtomicU64, last: u64) {
            while self.seen.load(SeqCst) < last {
                let known = published.load(SeqCst);
                let (seen, is_leased) = read(slot);
                assert!(seen.get() >= known, "{seen} was read when {known} was there");
                self.seen.store(seen.get(), SeqCst);
                if is_leased {
                    self.copied.store(seen.get(), SeqCst);
                }
            }
        }
    }

    #[test]
    fn a_read_that_begins_when_a_newer_token_is_there_sees_no_older_one() {
        const LAST: u64 = 100;

        let (slot, published, readers) =
            (Slot::new(), AtomicU64::new(0), [Reader::default(), Reader::default()]);
        let publish = |generation: Generation| {
            let attached = Telemetry::of("test".into()).attached();
            let fetched_at = Moment::now(&WallClock::default());
            let token = AccessToken::bearer("t").unwrap();
            slot.publish(&CachedToken::new(token, generation, 0.0, fetched_at, attached));
            published.store(generation.get(), SeqCst);
        };
        publish(Generation::FIRST);
        thread::scope(|scope| {
            let threads: Vec<_> = readers
                .iter()
                .map(|reader| scope.spawn(|| reader.read_until(&slot, &published, LAST)))
                .collect();
            let until = |number: u64, of: fn(&Reader) -> &AtomicU64| {
                while readers.iter().any(|reader| of(reader).load(SeqCst) < number) {
                    if threads.iter().any(thread::ScopedJoinHandle::is_finished) {
                        return;
                    }
                    thread::yield_now();
                }
            };
            let mut generation = Generation::FIRST;
            while generation.get() < LAST {
                until(generation.get(), |reader| &reader.seen);
                slot.extend_lease(Instant::now()).unwrap();
                until(generation.get(), |reader| &reader.copied);
                generation = generation.next();
                publish(generation);
            }
        });
    }
}
