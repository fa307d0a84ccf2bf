use std::sync::Arc;

use http::{
    HeaderMap, Response,
    header::{AUTHORIZATION, Entry},
};

use super::{Breaker, Origins, Verdict};
use crate::{
    cache::{Generation, TokenCache},
    token::AccessToken,
};

/// What all requests of a service have in common.
pub(crate) struct Policy<R> {
    pub(crate) tokens: TokenCache,
    pub(crate) origins: Origins,
    pub(crate) verdict: Verdict,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) replay: R,
}

pub(crate) type SharedPolicy<R> = Arc<Policy<R>>;

/// What came of the wish to show a token.
pub(crate) enum Presented {
    Token(Generation),
    /// There is none that could be shown.
    NoToken,
    /// The request has the header of its caller, or as many headers as there can be.
    Declined,
}

impl<R> Policy<R> {
    /// Puts the current token on.
    pub(crate) fn present(&self, headers: &mut HeaderMap) -> Presented {
        let Ok(Entry::Vacant(place)) = headers.try_entry(AUTHORIZATION) else { return Presented::Declined };
        let shown = self.tokens.read(|token, generation| {
            place.insert(token.header_value().clone());
            generation
        });
        shown.map_or(Presented::NoToken, Presented::Token)
    }

    pub(crate) fn is_refusal<B>(&self, response: &Response<B>) -> bool {
        let scheme = || self.tokens.current().map_or(AccessToken::BEARER, |token| token.token_type());
        self.verdict.is_refusal(response.status(), response.headers(), scheme)
    }
}
