use std::sync::Arc;

use http::{HeaderMap, Response, header::AUTHORIZATION};

use super::{Breaker, Consequence, Origins, Refusal, Verdict};
use crate::{
    cache::{Generation, TokenCache},
    telemetry::{Happening, Without},
    token::Scheme,
};

/// What all requests of a service have in common.
pub(crate) struct Policy {
    pub(crate) tokens: TokenCache,
    pub(crate) origins: Origins,
    pub(crate) verdict: Verdict,
    pub(crate) breaker: Arc<Breaker>,
}

/// Which token a request carries.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) generation: Generation,
    scheme: Scheme,
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
            None => Presented::NoToken,
        }
    }

    pub(crate) fn tell_without(&self, reason: Without) {
        self.tokens.telemetry().tell(Happening::Without { reason });
    }

    pub(crate) fn is_refusal<B>(&self, shown: Shown, response: &Response<B>) -> bool {
        self.verdict.is_refusal(response.status(), response.headers(), shown.scheme)
    }

    /// Takes a refused token out of use, where that may help.
    pub(crate) fn heed(&self, refusal: Refusal) -> Consequence {
        refusal.heed(&self.tokens, &self.breaker)
    }

    /// Whether the end of a response is looked at, too.
    pub(crate) fn watches_ends(&self) -> bool {
        cfg!(feature = "tonic") && self.verdict.grpc
    }

    /// Has it heeded, if the end of the response turns out to be this `refusal`.
    pub(crate) fn watch_end<B: 'static>(&self, response: &mut Response<B>, refusal: Refusal) {
        if !self.watches_ends() {
            return;
        }
        #[cfg(feature = "tonic")]
        {
            let (tokens, breaker) = (self.tokens.clone(), Arc::clone(&self.breaker));
            super::grpc::watch(response, move || {
                refusal.heed(&tokens, &breaker);
            });
        }
        let _ = (response, refusal);
    }
}

/// For the few headers that requests have, this is faster than to look it up.
#[inline]
fn has_authorization(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == AUTHORIZATION)
}
