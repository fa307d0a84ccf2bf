use std::fmt;

use zeroize::Zeroizing;

/// The secret of a client (RFC 6749 §2.3.1).
///
/// `Debug` shows nothing of it, there is no `Display`, and its memory is wiped on drop.
///
/// ```
/// use tower_oauth::ClientSecret;
///
/// let secret = ClientSecret::from("hunter2");
/// assert_eq!(format!("{secret:?}"), "ClientSecret([redacted])");
/// ```
#[derive(Clone)]
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for ClientSecret {
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<&str> for ClientSecret {
    fn from(secret: &str) -> Self {
        Self(Zeroizing::new(secret.to_owned()))
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}
