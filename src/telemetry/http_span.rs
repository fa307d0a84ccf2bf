use std::future::Future;

use http::{Request, StatusCode};
#[cfg(feature = "tracing")]
use tracing::{Instrument, Span, debug_span, field::Empty};

#[cfg(feature = "tracing")]
use super::{current::current_cache, tracing_events::TARGET};
#[cfg(feature = "tracing")]
use crate::{log_text::without_query, url_check::effective_port};

/// The span of one HTTP request of the token source. Its fields have the names that OpenTelemetry
/// defines for HTTP client spans. Without the feature `tracing`, it does nothing.
///
/// A span that is dropped before its end is known ends as cancelled.
pub(crate) struct HttpSpan {
    #[cfg(feature = "tracing")]
    span: Span,
    #[cfg(feature = "tracing")]
    is_ended: bool,
}

impl HttpSpan {
    /// Creates a span, as a child of the current span. `clean` removes secrets from a text.
    /// `resend_count` is 0 for the first attempt to send the request.
    #[cfg(feature = "tracing")]
    pub(crate) fn new<B>(
        request: &Request<B>,
        resend_count: usize,
        clean: impl Fn(&str) -> String,
    ) -> Self {
        let (method, uri) = (request.method().as_str(), request.uri());
        let port = uri.scheme().zip(uri.authority());
        let port = port.and_then(|(scheme, authority)| effective_port(scheme, authority));
        let span = debug_span!(
            target: TARGET,
            "http_request",
            cache = current_cache().as_deref(),
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = method,
            http.request.resend_count = (resend_count > 0).then_some(resend_count),
            http.response.status_code = Empty,
            url.full = without_query(&clean(&uri.to_string())),
            server.address = uri.host().map(clean),
            server.port = port,
            error.r#type = Empty,
        );
        Self { span, is_ended: false }
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn new<B>(_: &Request<B>, _: usize, _: impl Fn(&str) -> String) -> Self {
        Self {}
    }

    /// Returns a future that polls `exchange` within the span.
    pub(crate) fn instrument<F: Future>(&self, exchange: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let exchange = exchange.instrument(self.span.clone());
        exchange
    }

    /// Records the status of the response. A status of 400 or more is an error.
    pub(crate) fn record_status(&self, status: StatusCode) {
        #[cfg(feature = "tracing")]
        {
            self.span.record("http.response.status_code", status.as_u16());
            if status.is_client_error() || status.is_server_error() {
                self.record_error(status.as_str());
            }
        }
        let _ = status;
    }

    /// Ends the span. `error` is the kind of the error if there is no complete response.
    pub(crate) fn end(self, error: Option<&'static str>) {
        #[cfg(feature = "tracing")]
        {
            let mut span = self;
            span.is_ended = true;
            if let Some(kind) = error {
                span.record_error(kind);
            }
        }
        let _ = error;
    }

    #[cfg(feature = "tracing")]
    fn record_error(&self, kind: &str) {
        self.span.record("error.type", kind);
        self.span.record("otel.status_code", "ERROR");
    }
}

#[cfg(feature = "tracing")]
impl Drop for HttpSpan {
    fn drop(&mut self) {
        // During a panic nothing is recorded: the subscriber may be the code that panicked.
        if !self.is_ended && !std::thread::panicking() {
            self.record_error("cancelled");
        }
    }
}
