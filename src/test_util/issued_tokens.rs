//! The tokens of a fake authorization server.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::watch, time::Instant};

/// The tokens that were issued and not revoked, each with the time of its issue and its lifetime.
/// Clones share them.
#[derive(Clone, Default)]
pub(super) struct IssuedTokens(watch::Sender<HashMap<String, (Instant, Duration)>>);

/// The reason why a token is not accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    NoToken,
    Unknown,
    Expired,
}

impl IssuedTokens {
    /// Issues a token. It has a random part, so that no other fake server accepts it.
    pub(super) fn issue(&self, lifetime: Duration) -> String {
        let token = format!("fake-{:032x}", fastrand::u128(..));
        let issued = (Instant::now(), lifetime);
        self.0.send_modify(|tokens| tokens.extend([(token.clone(), issued)]));
        token
    }

    pub(super) fn revoke(&self, token: &str) {
        self.0.send_if_modified(|tokens| tokens.remove(token).is_some());
    }

    pub(super) fn revoke_all(&self) {
        self.0.send_modify(HashMap::clear);
    }

    pub(super) fn expire_all(&self) {
        self.0.send_modify(|tokens| {
            for (_, lifetime) in tokens.values_mut() {
                *lifetime = Duration::ZERO;
            }
        });
    }

    pub(super) fn check(&self, token: Option<&str>) -> Result<(), Rejection> {
        match self.0.borrow().get(token.ok_or(Rejection::NoToken)?) {
            None => Err(Rejection::Unknown),
            Some((issued, lifetime)) if issued.elapsed() >= *lifetime => Err(Rejection::Expired),
            Some(_) => Ok(()),
        }
    }
}
