//! The successful response of a token endpoint.

use std::fmt;

use serde_json::Value;

use crate::token::AccessToken;

/// A successful response of a token endpoint (RFC 6749 §5.1): the access token, and all other
/// members of the JSON object.
///
/// Members are named by JSON Pointers (RFC 6901), such as `/id_token` or `/data/refreshToken`.
/// `Debug` shows no values of members.
#[derive(Clone)]
pub struct TokenResponse {
    access_token: AccessToken,
    members: Value,
}

impl TokenResponse {
    pub(super) fn new(access_token: AccessToken, members: Value) -> Self {
        Self { access_token, members }
    }

    /// Returns the access token. Its lifetime is that of the response, or
    /// [`TokenEndpoint::default_lifetime`](crate::TokenEndpoint::default_lifetime), counted from
    /// the moment at which the request was sent. A token without lifetime left has
    /// [`TokenEndpoint::MIN_LIFETIME`](crate::TokenEndpoint::MIN_LIFETIME) from now on.
    #[must_use]
    pub fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// Returns the access token and drops the other members.
    #[must_use]
    pub fn into_access_token(self) -> AccessToken {
        self.access_token
    }

    /// Returns the refresh token (RFC 6749 §1.5): the member `/refresh_token`, if it is a string.
    /// A secret: keep it out of logs.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.text_at("/refresh_token")
    }

    /// Returns the text of the member at a JSON Pointer. Returns `None` if there is no such member,
    /// or if it is not a string.
    ///
    /// The members include the access token, a refresh token and other secrets: keep them out of
    /// logs.
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> Option<&str> {
        self.members.pointer(pointer)?.as_str()
    }

    /// Returns the value of the member at a JSON Pointer, rounded to an `f64`. Returns `None` if
    /// there is no such member, or if it is not a number.
    #[must_use]
    pub fn number_at(&self, pointer: &str) -> Option<f64> {
        self.members.pointer(pointer)?.as_f64()
    }

    /// Returns the member at a JSON Pointer as JSON, whatever its type. Returns `None` if there is
    /// no such member. The empty pointer names the whole response.
    ///
    /// The JSON includes the access token, a refresh token and other secrets: keep it out of logs.
    #[must_use]
    pub fn json_at(&self, pointer: &str) -> Option<String> {
        self.members.pointer(pointer).map(Value::to_string)
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("access_token", &self.access_token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_by_json_pointer_and_type() {
        let members = serde_json::json!({
            "refresh_token": "r3fresh", "a/b": { "c": [1, 2.5, true] }, "expires_in": 3600,
        });
        let response = TokenResponse::new(AccessToken::bearer("t").unwrap(), members);
        assert_eq!(response.refresh_token(), Some("r3fresh"));
        assert_eq!(response.text_at("/expires_in"), None);
        assert_eq!(response.number_at("/expires_in"), Some(3600.0));
        assert_eq!(response.number_at("/a~1b/c/1"), Some(2.5));
        assert_eq!(response.number_at("/refresh_token"), None);
        assert_eq!(response.json_at("/a~1b").as_deref(), Some(r#"{"c":[1,2.5,true]}"#));
        assert_eq!(response.json_at("/absent"), None);
        assert!(!format!("{response:?}").contains("r3fresh"), "{response:?}");
    }
}
