//! One request and its complete response, within limits of time and size. An attempt that cannot
//! connect is repeated.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::USER_AGENT};
use http_body_util::{BodyExt, LengthLimitError};

use tokio::time::{sleep, timeout};

use super::{
    connect_error::{is_connect_retryable, is_refused_by_proxy},
    transport::{MAX_RESPONSE_BYTES, ResponseBody, Transport},
};
use crate::{
    error::{BoxError, TokenError, TokenErrorKind},
    redact::Redactor,
    telemetry::{Event, HttpSpan, emit_current},
};

/// The pauses before the second and the third attempt to connect.
pub(super) const CONNECT_RETRY_DELAYS: [Duration; 2] =
    [Duration::from_millis(100), Duration::from_millis(400)];

pub(super) const DEFAULT_USER_AGENT: &str = concat!("tower-oauth/", env!("CARGO_PKG_VERSION"));

#[derive(Clone)]
pub(super) struct RoundTrip {
    pub(super) transport: Transport,
    pub(super) timeout: Duration,
    /// The `User-Agent` of all requests. `None`: [`DEFAULT_USER_AGENT`].
    pub(super) user_agent: Option<HeaderValue>,
}

/// A complete response with an uninterpreted body.
pub(super) struct RawResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl RoundTrip {
    /// Sends a request and returns the complete response.
    ///
    /// # Panics
    ///
    /// Panics if the tokio runtime has no time driver.
    pub(super) async fn send(
        &self,
        mut request: Request<Bytes>,
        redactor: &Redactor,
    ) -> Result<RawResponse, TokenError> {
        let user_agent = self.user_agent.clone();
        let user_agent = user_agent.unwrap_or(HeaderValue::from_static(DEFAULT_USER_AGENT));
        request.headers_mut().insert(USER_AGENT, user_agent);
        let exchange = self.connect_and_send(request, redactor);
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            let message = format!("no complete response within {:?}", self.timeout);
            Err(TokenError::new(TokenErrorKind::Timeout, message))
        })
    }

    /// Sends a request and reads its response, with up to two more attempts if the transport cannot
    /// connect. A request that was sent is not repeated.
    async fn connect_and_send(
        &self,
        request: Request<Bytes>,
        redactor: &Redactor,
    ) -> Result<RawResponse, TokenError> {
        let mut delays = CONNECT_RETRY_DELAYS.into_iter();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match (self.attempt(request.clone(), attempt, redactor).await, delays.next()) {
                (Ok(response), _) => return response,
                (Err(error), Some(retry_in)) if is_connect_retryable(&*error) => {
                    let error = &root_cause(&*error, redactor);
                    emit_current(Event::ConnectFailed { attempt, error, retry_in });
                    sleep(retry_in).await;
                }
                (Err(error), _) => return Err(request_failed(error, redactor)),
            }
        }
    }

    /// Sends a request once and reads its response, in a span of its own. An error of the transport
    /// is returned unchanged.
    async fn attempt(
        &self,
        request: Request<Bytes>,
        attempt: usize,
        redactor: &Redactor,
    ) -> Result<Result<RawResponse, TokenError>, BoxError> {
        let span = HttpSpan::new(&request, attempt - 1, |text| redactor.clean(text));
        match span.instrument(self.transport.send(request)).await {
            Ok(response) => {
                span.record_status(response.status());
                let response = span.instrument(read_body(response, redactor)).await;
                span.end(response.as_ref().err().map(|error| error.kind().as_str()));
                Ok(response)
            }
            Err(error) => {
                span.end(Some(kind_of_failure(&*error).as_str()));
                Err(error)
            }
        }
    }
}

async fn read_body(
    response: Response<ResponseBody>,
    redactor: &Redactor,
) -> Result<RawResponse, TokenError> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            Ok(RawResponse { status: head.status, headers: head.headers, body: body.to_bytes() })
        }
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the response is larger than {MAX_RESPONSE_BYTES} bytes");
            let error = TokenError::new(TokenErrorKind::InvalidResponse, message);
            Err(error.with_status(head.status))
        }
        Err(cause) => {
            let message = format!("the response broke off: {}", root_cause(&*cause, redactor));
            let error = TokenError::new(TokenErrorKind::Transport, message);
            Err(with_clean_source(error.with_status(head.status), cause, redactor))
        }
    }
}

fn request_failed(cause: BoxError, redactor: &Redactor) -> TokenError {
    let message = format!("the request failed: {}", root_cause(&*cause, redactor));
    with_clean_source(TokenError::new(kind_of_failure(&*cause), message), cause, redactor)
}

/// Returns the kind of an error of the transport. The refusal of a proxy has a final one: further
/// attempts with a wrong password may block its user name.
fn kind_of_failure(error: &(dyn Error + 'static)) -> TokenErrorKind {
    if is_refused_by_proxy(error) {
        TokenErrorKind::Configuration
    } else {
        TokenErrorKind::Transport
    }
}

/// Adds the cause as the source, unless a text of its chain contains a secret: some clients put the
/// complete URL into their errors.
fn with_clean_source(error: TokenError, cause: BoxError, redactor: &Redactor) -> TokenError {
    let mut next: Option<&(dyn Error + 'static)> = Some(&*cause);
    while let Some(link) = next {
        if !redactor.is_clean(&format!("{link} {link:?}")) {
            return error;
        }
        next = link.source();
    }
    error.with_source(cause)
}

/// Returns the message of the last error in the chain. HTTP clients say "client error (Connect)"
/// first, and the helpful message stands at the end.
fn root_cause(mut error: &(dyn Error + 'static), redactor: &Redactor) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    redactor.clean(&error.to_string())
}
