/// The counter of requests with a token attached.
///
/// It is incremented for each request, so its lookup by name happens once for each token.
#[cfg(feature = "metrics")]
pub(crate) use metrics::Counter as RequestCounter;

/// A stand-in for the counter, which does nothing.
#[cfg(not(feature = "metrics"))]
#[derive(Clone)]
pub(crate) struct RequestCounter;
