use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};

use super::{Answers, Origins};
use crate::{
    cache::{Generation, TokenCache},
    telemetry::{Happening, Without},
    token::Scheme,
};

/// What all requests of a service have in common.
///
/// On a cache line of its own: that of its reference count is written with each clone of the service.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Policy {
    pub(crate) tokens: TokenCache,
    pub(crate) origins: Origins,
    pub(crate) answers: Arc<Answers>,
}

/// Which token a request carries.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) generation: Generation,
    pub(super) scheme: Scheme,
}

/// What came of the wish to show a token.
pub(crate) enum Presented {
    Token(Shown),
    /// There is none that could be shown.
    NoToken,
    /// The request has the header of its caller, or as many headers as there can be.
    Declined,
}

impl Policy {
    /// Puts the current token on.
    #[inline]
    pub(crate) fn present(&self, headers: &mut HeaderMap) -> Presented {
        if has_authorization(headers) {
            return Presented::Declined;
        }
        let shown = self.tokens.read(|credentials| {
            headers.try_insert(AUTHORIZATION, credentials.value.clone()).ok()?;
            credentials.attached.count();
            Some(Shown { generation: credentials.generation, scheme: credentials.scheme })
        });
        match shown {
            Some(Some(shown)) => Presented::Token(shown),
            Some(None) => Presented::Declined,
            // It would be waited for in vain.
            None if headers.try_reserve(1).is_err() => Presented::Declined,
            None => Presented::NoToken,
        }
    }

    pub(crate) fn tell_without(&self, reason: Without) {
        self.tokens.telemetry().tell(Happening::Without { reason });
    }
}

/// For the few headers that requests have, this is faster than to look it up.
#[inline]
fn has_authorization(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == AUTHORIZATION)
}
