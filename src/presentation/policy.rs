use std::sync::Arc;

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};

use super::{Origins, Verdict};
use crate::cache::{Generation, TokenCache};

/// What all requests of a service have in common.
pub(crate) struct Policy<R> {
    pub(crate) tokens: TokenCache,
    pub(crate) origins: Origins,
    pub(crate) verdict: Verdict,
    pub(crate) replay: R,
}

pub(crate) type SharedPolicy<R> = Arc<Policy<R>>;

impl<R> Policy<R> {
    pub(crate) fn is_for<B>(&self, request: &Request<B>) -> bool {
        self.origins.allow(request.uri()) && !request.headers().contains_key(AUTHORIZATION)
    }

    /// Puts the current token on, if there is one.
    pub(crate) fn present(&self, headers: &mut HeaderMap) -> Option<Generation> {
        self.tokens.read(|token, generation| {
            headers.insert(AUTHORIZATION, token.header_value().clone());
            generation
        })
    }

    pub(crate) fn is_refusal<B>(&self, response: &Response<B>) -> bool {
        self.verdict.is_refusal(response.status(), response.headers())
    }
}
