use std::{error::Error, fmt};

use reqwest::{Response, Url};

use crate::error::{BoxError, TokenError};

/// A failure of an [`OAuthClient`](super::OAuthClient) to send a request or to receive its
/// response.
///
/// Its `source` is the [`TokenError`] if there was no token, so that the request was not sent, or
/// else the [`reqwest::Error`]. A status such as 500 is a response and not an error.
///
/// ```
/// # use tower_oauth::reqwest::RequestError;
/// # fn example(error: RequestError) {
/// if let Some(error) = error.token_error() {
///     eprintln!("no token ({:?}): {error}", error.kind());
/// } else if error.reqwest_error().is_some_and(|error| error.is_timeout()) {
///     eprintln!("the API is slow");
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct RequestError(BoxError);

impl RequestError {
    /// Returns the error of a request that was not sent for lack of a token.
    #[must_use]
    pub fn token_error(&self) -> Option<&TokenError> {
        self.0.downcast_ref()
    }

    /// Returns the error of reqwest. Its own `source` leads to an error of a body that is a stream.
    #[must_use]
    pub fn reqwest_error(&self) -> Option<&reqwest::Error> {
        self.0.downcast_ref()
    }
}

impl From<BoxError> for RequestError {
    fn from(source: BoxError) -> Self {
        Self(source)
    }
}

impl From<reqwest::Error> for RequestError {
    fn from(source: reqwest::Error) -> Self {
        Self(source.into())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.token_error(), self.0.is::<RedirectedError>()) {
            (Some(_), _) => "the request was not sent, because there is no access token",
            (None, true) => "the response was discarded",
            (None, false) => "the request failed",
        })
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// A response from another origin than that of the request: the client followed a redirect, or a
/// middleware changed the URL.
#[derive(Debug)]
pub(super) struct RedirectedError {
    requested: String,
    answered: String,
}

impl RedirectedError {
    /// Checks the origin of a response to a request to `requested`.
    pub(super) fn check(requested: &Url, response: &Response) -> Result<(), Self> {
        let (requested, answered) = (requested.origin(), response.url().origin());
        // A response that another middleware made itself has no address, and its URL may be a
        // placeholder.
        if requested == answered || response.remote_addr().is_none() {
            return Ok(());
        }
        let (requested, answered) =
            (requested.ascii_serialization(), answered.ascii_serialization());
        Err(Self { requested, answered })
    }
}

impl fmt::Display for RedirectedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requested, answered } = self;
        write!(
            f,
            "a request to {requested} was answered by {answered}, whose origin was not checked: \
             build the reqwest client with `.redirect(Policy::none())`, and put a middleware that \
             changes the origin outside of the OAuth middleware"
        )
    }
}

impl Error for RedirectedError {}
