//! Where in an answer its members stand.

use crate::error::ConfigError;

/// Where in the JSON answer of a token endpoint its members stand, as JSON Pointers (RFC 6901).
///
/// The default is RFC 6749 §5.1: everything at the top level, under the standard's names. A provider that wraps its answers is
/// described in a line:
///
/// ```
/// use tower_oauth::ResponseFormat;
///
/// // {"success": true, "data": {"accessToken": "…", "accessTokenExpiresAt": "2026-01-31T12:00:00.000Z"}}
/// let format = ResponseFormat::default()
///     .access_token("/data/accessToken")?
///     .expires_at("/data/accessTokenExpiresAt")?
///     .success("/success")?;
/// # Ok::<_, tower_oauth::ConfigError>(())
/// ```
///
/// Errors are found under the names of RFC 6749 §5.2, at the top level, unless [`error`](Self::error) and
/// [`error_description`](Self::error_description) say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFormat {
    pub(super) access_token: String,
    pub(super) token_type: String,
    pub(super) expires_in: String,
    pub(super) expires_at: Option<String>,
    pub(super) scope: String,
    pub(super) success: Option<String>,
    pub(super) error: String,
    pub(super) error_description: String,
    pub(super) error_uri: String,
}

impl Default for ResponseFormat {
    fn default() -> Self {
        Self {
            access_token: "/access_token".into(),
            token_type: "/token_type".into(),
            expires_in: "/expires_in".into(),
            expires_at: None,
            scope: "/scope".into(),
            success: None,
            error: "/error".into(),
            error_description: "/error_description".into(),
            error_uri: "/error_uri".into(),
        }
    }
}

macro_rules! pointers {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// [`ConfigError::JsonPointer`] for what is not a JSON Pointer.
            pub fn $name(mut self, pointer: impl Into<String>) -> Result<Self, ConfigError> {
                self.$name = json_pointer(pointer.into())?.into();
                Ok(self)
            }
        )*
    };
}

impl ResponseFormat {
    pointers! {
        /// Where the token is.
        access_token
        /// Where its type is; a type that is not there is `Bearer`.
        token_type
        /// Where its lifetime in seconds is.
        expires_in
        /// Where its expiry is as a point in time: RFC 3339 / ISO 8601 with an offset, or seconds since 1970. It is measured
        /// against the answer's `Date` header, where it has one, so that a wrong clock here does no harm.
        expires_at
        /// Where its scope is.
        scope
        /// Where it says whether the request succeeded: anything but `true` there is a refusal.
        success
        /// Where the error code is.
        error
        /// Where the description of the error is.
        error_description
    }
}

fn json_pointer(pointer: String) -> Result<String, ConfigError> {
    let reason = if !pointer.starts_with('/') {
        "does not begin with a slash"
    } else if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        "has a ~ that is neither ~0 nor ~1"
    } else {
        return Ok(pointer);
    };
    Err(ConfigError::JsonPointer { pointer, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pointer_is_refused() {
        for (pointer, reason) in [
            ("", "slash"),
            ("data/token", "slash"),
            ("/a~b", "neither"),
            ("/a~", "neither"),
            ("/~2", "neither"),
        ] {
            let error = ResponseFormat::default().access_token(pointer).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(ResponseFormat::default().access_token("/a~0b/~1/0/").is_ok());
    }
}
