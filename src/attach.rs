//! Puts the current token on a request.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    cache::TokenCache,
    origins::OriginId,
    telemetry::SkipReason,
    token::{Generation, Scheme},
};

/// The token that a request carries, and the origin that it was sent to.
#[derive(Clone, Copy)]
pub(crate) struct AttachedToken {
    pub(crate) generation: Generation,
    pub(crate) scheme: Scheme,
    pub(crate) origin: OriginId,
}

/// The result of [`attach`].
pub(crate) enum Attachment {
    Attached(AttachedToken),
    /// There is no valid token.
    NoToken,
    /// The request must not or cannot carry a token.
    Skipped(SkipReason),
}

/// Puts the current token of a cache on a request to an allowed origin.
#[inline]
pub(crate) fn attach(tokens: &TokenCache, origin: OriginId, headers: &mut HeaderMap) -> Attachment {
    let inserted = tokens.read(|record| {
        headers.try_insert(AUTHORIZATION, record.header_value.clone()).ok()?;
        #[cfg(feature = "metrics")]
        record.request_counter.increment(1);
        Some(AttachedToken { generation: record.generation, scheme: record.scheme, origin })
    });
    match inserted {
        Some(Some(token)) => Attachment::Attached(token),
        Some(None) => Attachment::Skipped(SkipReason::HeaderMapFull),
        // The header map is full, so a token could not be attached anyway.
        None if headers.try_reserve(1).is_err() => Attachment::Skipped(SkipReason::HeaderMapFull),
        None => Attachment::NoToken,
    }
}
