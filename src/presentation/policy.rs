use std::sync::Arc;

use http::{
    HeaderMap, Response,
    header::{AUTHORIZATION, Entry},
};

use super::{Breaker, Consequence, Origins, Refusal, Verdict};
use crate::{
    cache::{Generation, Published, TokenCache},
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
    pub(crate) fn present(&self, headers: &mut HeaderMap) -> Presented {
        let Ok(Entry::Vacant(place)) = headers.try_entry(AUTHORIZATION) else { return Presented::Declined };
        let shown = self.tokens.read(|Published { token, generation, attached, .. }| {
            place.insert(token.header_value().clone());
            attached.count();
            Shown { generation: *generation, scheme: token.scheme() }
        });
        shown.map_or(Presented::NoToken, Presented::Token)
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
