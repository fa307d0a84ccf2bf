use std::{path::PathBuf, time::Duration};

use crate::{
    error::TokenError,
    source::TokenSource,
    token::{AccessToken, Renewal, read_secret_file},
};

/// A bearer token in a file that another process keeps fresh, such as a mounted service account token.
///
/// The file is read when a token is first needed, again after [`reread_after`](Self::reread_after), and when the token is
/// refused. A token that was read is used until the next one is. Line breaks at its end are not part of the token.
///
/// ```
/// use tower_oauth::{TokenCache, TokenFile};
///
/// let tokens = TokenCache::new(TokenFile::new("/var/run/secrets/tokens/api"));
/// ```
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    reread_after: Duration,
}

impl TokenFile {
    /// When the file is read again, unless [`reread_after`](Self::reread_after) says otherwise.
    pub const DEFAULT_REREAD_AFTER: Duration = Duration::from_secs(60);

    /// The token in this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reread_after: Self::DEFAULT_REREAD_AFTER }
    }

    /// The age at which a request has the file read again; by default [`DEFAULT_REREAD_AFTER`](Self::DEFAULT_REREAD_AFTER).
    #[must_use]
    pub fn reread_after(mut self, age: Duration) -> Self {
        self.reread_after = age;
        self
    }
}

/// A file that cannot be read, or has no token in it, is an error that names the file.
impl TokenSource for TokenFile {
    async fn fetch(&self) -> Result<AccessToken, TokenError> {
        let token = read_secret_file(self.path.clone()).await?;
        let token = AccessToken::bearer(&*token).map_err(|error| {
            TokenError::new(
                error.kind(),
                format!("{} in the token file {}", error.what(), self.path.display()),
            )
        })?;
        Ok(token.renewed(Renewal::AtAge(self.reread_after)))
    }
}
