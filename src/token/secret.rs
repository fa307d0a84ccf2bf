use std::{fmt, path::PathBuf};

use bytes::Bytes;
use http::{HeaderValue, header::InvalidHeaderValue};
use zeroize::Zeroizing;

use super::read_secret_file::read_secret_file;
use crate::error::TokenError;

/// A client secret (RFC 6749 §2.3.1) or a password: a value, or a file that is read for each token
/// request.
///
/// `Debug` does not show the value, there is no `Display`, and the memory of the value is zeroed on
/// drop.
///
/// ```
/// use tower_oauth::Secret;
///
/// let secret = Secret::from("hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret([redacted])");
///
/// // A mounted secret, which may be rotated while the program runs:
/// let secret = Secret::from_file("/run/secrets/orders-client");
/// ```
#[derive(Clone)]
pub struct Secret(Kind);

#[derive(Clone)]
enum Kind {
    Value(Zeroizing<String>),
    File(PathBuf),
}

impl Secret {
    /// Creates a secret that is read from a file for each token request, so that a rotated secret
    /// is picked up.
    ///
    /// The file holds UTF-8 text of at most 64 KiB without control characters. Line breaks at its
    /// end and a byte order mark at its beginning are not part of the secret.
    ///
    /// # Errors
    ///
    /// This function does not open the file. If the file cannot be used later, the token request
    /// fails with an error of kind [`Configuration`](crate::TokenErrorKind::Configuration) that
    /// names the file. The kind is [`Transport`](crate::TokenErrorKind::Transport) if the file does
    /// not exist or is empty: another process may still have to write it.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// Returns true if the value has a control character. Returns false for a file, which is checked
    /// when it is read.
    pub(crate) fn has_control_character(&self) -> bool {
        matches!(&self.0, Kind::Value(secret) if secret.contains(char::is_control))
    }

    /// Returns the secret, and reads its file if there is one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn read(&self) -> Result<Zeroizing<String>, TokenError> {
        match &self.0 {
            Kind::Value(secret) => Ok(secret.clone()),
            Kind::File(path) => read_secret_file(path.clone()).await,
        }
    }
}

/// Returns a header value that is marked sensitive. The memory is zeroed when its last clone is
/// dropped.
pub(crate) fn sensitive_header(
    value: Zeroizing<String>,
) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))?;
    value.set_sensitive(true);
    Ok(value)
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(Kind::Value(Zeroizing::new(secret)))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self::from(secret.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Value(_) => f.write_str("Secret([redacted])"),
            Kind::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}
