//! The parameters of a token request, and the secrets among them.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use zeroize::Zeroizing;

use super::request_format::RequestFormat;
use crate::{
    error::{TokenError, TokenErrorKind},
    redact::Redactor,
};

/// A token request (RFC 6749 §3.2): a grant type and its parameters. Sent with
/// [`TokenEndpoint::send`](crate::TokenEndpoint::send), which has an example.
///
/// `Debug` shows the names of the parameters and no values.
#[derive(Clone)]
pub struct TokenRequest {
    parameters: Vec<(String, Zeroizing<String>)>,
    authorization: Option<HeaderValue>,
    secrets: Vec<Zeroizing<String>>,
    has_encoded_credentials: bool,
}

impl TokenRequest {
    /// Creates a request with a `grant_type` (RFC 6749 §4), such as `refresh_token` or
    /// `urn:ietf:params:oauth:grant-type:token-exchange`, and no other parameter.
    #[must_use]
    pub fn new(grant_type: impl Into<String>) -> Self {
        let request = Self {
            parameters: Vec::new(),
            authorization: None,
            secrets: Vec::new(),
            has_encoded_credentials: false,
        };
        request.parameter("grant_type", grant_type)
    }

    /// Adds a parameter that is not secret: an error shows its value if the server repeats it. A
    /// name can be added more than once, for parameters such as `resource` (RFC 8707 §2). A
    /// parameter with an empty value is not sent (RFC 6749 §3.2).
    ///
    /// The parameters of client authentication are added by
    /// [`TokenEndpoint::send`](crate::TokenEndpoint::send).
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), Zeroizing::new(value.into())));
        self
    }

    /// Adds a parameter with a secret value, such as a refresh token or an assertion. No error
    /// shows the value, even if the server or the transport repeats it.
    #[must_use]
    pub fn secret_parameter(self, name: impl Into<String>, secret: impl Into<String>) -> Self {
        let secret = Zeroizing::new(secret.into());
        self.register_secret(&secret).parameter(name, secret.as_str())
    }

    /// Sets the `Authorization` header.
    pub(super) fn authorization(mut self, value: HeaderValue) -> Self {
        self.authorization = Some(value);
        self
    }

    /// Records that form-encoding changed the credentials of HTTP Basic authentication.
    pub(super) fn with_encoded_credentials(mut self) -> Self {
        self.has_encoded_credentials = true;
        self
    }

    pub(super) fn has_encoded_credentials(&self) -> bool {
        self.has_encoded_credentials
    }

    /// Adds a secret that no error may show, in any form in which it is sent.
    pub(super) fn register_secret(mut self, secret: &str) -> Self {
        self.secrets.push(Zeroizing::new(secret.to_owned()));
        self
    }

    /// Returns the requested scope (RFC 6749 §3.3).
    pub(super) fn scope(&self) -> Option<&str> {
        let scope = self.parameters.iter().find(|(name, _)| name == "scope");
        scope.map(|(_, value)| value.as_str())
    }

    pub(super) fn register_secrets(
        mut self,
        secrets: impl IntoIterator<Item = Zeroizing<String>>,
    ) -> Self {
        self.secrets.extend(secrets);
        self
    }

    /// Returns a redactor for the secrets that are registered so far.
    pub(super) fn redactor(&self) -> Redactor {
        Redactor::new(self.secrets.clone())
    }

    /// Rejects a second `grant_type`, and a second client authentication (RFC 6749 §2.3: at most
    /// one method in a request).
    pub(super) fn check_parameters(&self) -> Result<(), TokenError> {
        let error = |name: &str, reason: &str| {
            let message = format!("the token request parameter {name:?} {reason}");
            Err(TokenError::new(TokenErrorKind::Configuration, message)
                .with_advice("remove the parameter from the TokenRequest"))
        };
        for (name, _) in self.parameters.iter().skip(1) {
            if name == "grant_type" {
                return error(name, "is set by TokenRequest::new and cannot be added");
            }
            if is_client_auth_parameter(name) {
                return error(name, "is set by ClientAuth and cannot be added");
            }
        }
        Ok(())
    }

    /// Returns the HTTP request, and a redactor for the secrets in it.
    pub(super) fn into_http_request(
        mut self,
        uri: &Uri,
        format: RequestFormat,
        headers: &HeaderMap,
    ) -> (Request<Bytes>, Redactor) {
        // Servers must treat a parameter without a value as if it were omitted (RFC 6749 §3.2), but
        // some reject it.
        self.parameters.retain(|(_, value)| !value.is_empty());
        let mut request = Request::new(Bytes::from_owner(format.encode(&self.parameters)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        let mut headers = headers.clone();
        headers.insert(CONTENT_TYPE, format.content_type());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.authorization.map(|value| (AUTHORIZATION, value)));
        *request.headers_mut() = headers;
        (request, Redactor::new(self.secrets))
    }
}

/// Returns true if `name` is a parameter of client authentication (RFC 6749 §2.3.1, RFC 7521 §4.2).
pub(crate) fn is_client_auth_parameter(name: &str) -> bool {
    ["client_id", "client_secret", "client_assertion", "client_assertion_type"].contains(&name)
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("TokenRequest").field("parameters", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn into_parts(request: TokenRequest, format: RequestFormat) -> (Request<Bytes>, Redactor) {
        request.into_http_request(&Uri::from_static("https://as.test/"), format, &HeaderMap::new())
    }

    #[test]
    fn secret_is_redacted_in_each_form_in_which_it_is_sent() {
        let request = TokenRequest::new("x").register_secret("s3cr+et ~").register_secret("a\"b\\");
        let (_, redactor) = into_parts(request, RequestFormat::Form);
        let clean = redactor.clean("s3cr+et ~, s3cr%2Bet+%7E, s3cr%2bet+%7e, S3CR+ET ~");
        assert_eq!(clean, "[redacted], [redacted], [redacted], [redacted]");
        assert_eq!(redactor.clean(r#"{"k":"a\"b\\"}, a"b\"#), r#"{"k":"[redacted]"}, [redacted]"#);
    }

    #[test]
    fn json_encodes_a_repeated_parameter_as_an_array() {
        let request = TokenRequest::new("client_credentials")
            .parameter("resource", "urn:1")
            .parameter("resource", "urn:2")
            .parameter("resource", "urn:3")
            .parameter("quoted", "\"\n");
        let (request, _) = into_parts(request, RequestFormat::Json);
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        let expected = serde_json::json!({
            "grant_type": "client_credentials",
            "resource": ["urn:1", "urn:2", "urn:3"],
            "quoted": "\"\n",
        });
        assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), expected);
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let request = TokenRequest::new("v4lue").parameter("scope", "v4lue");
        let shown = format!("{:?}", request.secret_parameter("refresh_token", "v4lue"));
        assert!(shown.contains("refresh_token") && !shown.contains("v4lue"), "{shown}");
    }
}
