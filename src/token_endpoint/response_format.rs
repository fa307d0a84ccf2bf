//! The positions of the members in a response.

use super::response_body::ResponseEncoding;
use crate::error::ConfigError;

/// The positions of the members in the JSON response of a token endpoint, as JSON Pointers
/// (RFC 6901).
///
/// The default is RFC 6749 §5.1: a JSON object with all members at the top level, with the names of
/// the standard. Responses in other encodings are read with [`form`](Self::form) and
/// [`text`](Self::text). For a provider that wraps its responses:
///
/// ```
/// use tower_oauth::ResponseFormat;
///
/// // {"success": true, "data": {"accessToken": "…", "expiresAt": "2026-01-31T12:00:00.000Z"}}
/// let format = ResponseFormat::default()
///     .access_token("/data/accessToken")?
///     .expires_at("/data/expiresAt")?
///     .success("/success")?;
/// # Ok::<_, tower_oauth::ConfigError>(())
/// ```
///
/// Errors are read from the members of RFC 6749 §5.2 at the top level, unless
/// [`error`](Self::error) and [`error_description`](Self::error_description) are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFormat {
    pub(super) encoding: ResponseEncoding,
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
            encoding: ResponseEncoding::Json,
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
            /// [`ConfigError::JsonPointer`] if `pointer` is not a JSON Pointer, or is empty.
            pub fn $name(mut self, pointer: impl Into<String>) -> Result<Self, ConfigError> {
                self.$name = check_pointer(pointer.into())?.into();
                Ok(self)
            }
        )*
    };
}

impl ResponseFormat {
    /// Creates a format for responses that are forms, such as `access_token=t&expires=5184000`. Its
    /// pointers name the members of the form, all of which are strings:
    ///
    /// ```
    /// use tower_oauth::ResponseFormat;
    ///
    /// let format = ResponseFormat::form().expires_in("/expires")?;
    /// # Ok::<_, tower_oauth::ConfigError>(())
    /// ```
    ///
    /// A response that is a JSON object, such as an error, is read as JSON.
    #[must_use]
    pub fn form() -> Self {
        Self::with_encoding(ResponseEncoding::Form)
    }

    /// Creates a format for responses that are the access token alone, with no other text than
    /// white space around it. The lifetime of a token is
    /// [`TokenEndpoint::default_lifetime`](crate::TokenEndpoint::default_lifetime).
    ///
    /// A response that is a JSON object, such as an error, is read as JSON.
    #[must_use]
    pub fn text() -> Self {
        Self::with_encoding(ResponseEncoding::Text)
    }

    pub(crate) fn with_encoding(encoding: ResponseEncoding) -> Self {
        Self { encoding, ..Self::default() }
    }

    pointers! {
        /// Sets the position of the access token. Default: `/access_token`.
        access_token
        /// Sets the position of the token type. Default: `/token_type`. A missing type means
        /// `Bearer`. To ignore a type that the server calls otherwise, set a position without a
        /// member, such as `/none`.
        token_type
        /// Sets the position of the lifetime in seconds: a number, or a string with a number.
        /// Default: `/expires_in`.
        ///
        /// A value that cannot be read is treated like a missing one, and the cache emits a
        /// warning: the lifetime is then
        /// [`TokenEndpoint::default_lifetime`](crate::TokenEndpoint::default_lifetime).
        expires_in
        /// Sets the position of the expiry as a point in time. Default: none. Where it is present,
        /// it is used instead of [`expires_in`](Self::expires_in).
        ///
        /// The expiry is a date of RFC 3339 with an offset, a date of RFC 2822, or a number of
        /// seconds, milliseconds or microseconds since 1970, also as a string. The size of the
        /// number tells its unit. An expiry that cannot be read, or that passed more than a minute
        /// ago, is treated like a missing one, and the cache emits a warning.
        ///
        /// The lifetime is the difference to the `Date` header of the response, so that a wrong
        /// local clock has no effect. The local clock is used if the response has no `Date`.
        expires_at
        /// Sets the position of the granted scope. Default: `/scope`.
        scope
        /// Sets the position of a success flag. Default: none. The values `true`, `"true"`, `"ok"`
        /// and `"success"` mean success, and so does `0` in a response with a token. With any other
        /// value there, the response is an error. A flag that is missing from a response with an
        /// error status is no further problem.
        ///
        /// For a member that is an error code in a failed response, use [`error`](Self::error).
        success
        /// Sets the position of the error code. Default: `/error`.
        ///
        /// A text, a number, an object or an array there is an error. The values `null`, `false`,
        /// `0`, `"0"`, `"ok"` and `"success"`, and empty ones, mean that there is no error. For a
        /// server that numbers its errors, such as `{"code": 10014, "msg": "app secret invalid"}`,
        /// the position is `/code`. The code of an object is its member `code`.
        error
        /// Sets the position of the error description. Default: `/error_description`.
        ///
        /// If it is missing, the text of the error is read from the first of these members that is
        /// a text: `/error_description`, `/message`, `message` in the object at the position of the
        /// [`error`](Self::error), `/detail` and `/msg`.
        error_description
    }
}

fn check_pointer(pointer: String) -> Result<String, ConfigError> {
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
    fn invalid_json_pointer_is_rejected_with_its_reason() {
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
