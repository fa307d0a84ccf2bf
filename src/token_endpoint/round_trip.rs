//! One request and its whole answer, within limits.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError};
use tower::BoxError;

use super::transport::{AnyBody, MAX_RESPONSE_BYTES, Transport};
use crate::{
    error::{TokenError, TokenErrorKind},
    token_request::Redactor,
};

#[derive(Clone)]
pub(super) struct RoundTrip {
    pub(super) transport: Transport,
    pub(super) timeout: Duration,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl RoundTrip {
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        redactor: &Redactor,
    ) -> Result<Answer, TokenError> {
        let exchange = async {
            let response =
                self.transport.send(request).await.map_err(|error| unreachable(error, redactor))?;
            read_body(response, redactor).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(TokenError::new(
                TokenErrorKind::Timeout,
                format!("no complete answer within {:?}", self.timeout),
            )),
        }
    }
}

async fn read_body(response: Response<AnyBody>, redactor: &Redactor) -> Result<Answer, TokenError> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(TokenError::new(
            TokenErrorKind::InvalidResponse,
            format!("the answer is larger than {MAX_RESPONSE_BYTES} bytes"),
        )
        .with_status(head.status)),
        Err(error) => {
            let what = format!("the answer broke off: {}", root_cause(&*error, redactor));
            Err(with_cause(
                TokenError::new(TokenErrorKind::Transport, what).with_status(head.status),
                error,
                redactor,
            ))
        }
    }
}

fn unreachable(error: BoxError, redactor: &Redactor) -> TokenError {
    let what = format!("it cannot be reached: {}", root_cause(&*error, redactor));
    with_cause(TokenError::new(TokenErrorKind::Transport, what), error, redactor)
}

/// Keeps the cause, unless it shows a secret anywhere: some clients put the whole URL into their errors.
fn with_cause(error: TokenError, cause: BoxError, redactor: &Redactor) -> TokenError {
    let mut next: Option<&(dyn Error + 'static)> = Some(&*cause);
    while let Some(link) = next {
        if !redactor.is_clean(&format!("{link} {link:?}")) {
            return error;
        }
        next = link.source();
    }
    error.with_source(cause)
}

/// HTTP clients say "client error (Connect)" and keep what helps at the end of the chain.
fn root_cause(mut error: &(dyn Error + 'static), redactor: &Redactor) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    redactor.clean(&error.to_string())
}
