//! A token in a file.

use std::{path::PathBuf, time::Duration};

use super::{fetch_context::FetchContext, token_source::TokenSource};
use crate::{
    error::TokenError,
    token::{AccessToken, RefreshTiming, read_secret_file},
};

/// A bearer token in a file that another process updates, such as a mounted service account token.
///
/// The file is read when a token is first needed, in the background when the token reaches the age
/// of [`reread_after`](Self::reread_after), and after a rejection. The file holds at most 64 KiB.
/// Line breaks at its end and a byte order mark at its beginning are not part of the token.
///
/// If the file does not exist or is empty, the error is of the kind [`TokenErrorKind::Transport`]:
/// another process may still have to write it. [`TokenCache::warm_up`] waits for it, as it waits
/// for a server that is down. A token that was read before stays in use meanwhile.
///
/// [`TokenCache::warm_up`]: crate::TokenCache::warm_up
/// [`TokenErrorKind::Transport`]: crate::TokenErrorKind::Transport
///
/// ```
/// use tower_oauth::{TokenCache, TokenFile};
///
/// let cache = TokenCache::new(TokenFile::new("/var/run/secrets/tokens/api"));
/// ```
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    reread_after: Duration,
}

impl TokenFile {
    /// The default of [`reread_after`](Self::reread_after).
    pub const DEFAULT_REREAD_AFTER: Duration = Duration::from_secs(60);

    /// Creates a source that reads the token from the file at `path`. Does not open the file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reread_after: Self::DEFAULT_REREAD_AFTER }
    }

    /// Sets the age of the token at which the next request causes the file to be read again.
    /// Default: [`DEFAULT_REREAD_AFTER`](Self::DEFAULT_REREAD_AFTER).
    #[must_use]
    pub fn reread_after(mut self, age: Duration) -> Self {
        self.reread_after = age;
        self
    }
}

/// Fails with an error that names the file, if the file cannot be read or contains no token.
impl TokenSource for TokenFile {
    async fn fetch(&self, _: FetchContext) -> Result<AccessToken, TokenError> {
        let token = read_secret_file(self.path.clone()).await?;
        let token = AccessToken::bearer(&*token).map_err(|error| {
            let message = format!("{} in the token file {}", error.message(), self.path.display());
            TokenError::new(error.kind(), message).with_advice("correct the token in the file")
        })?;
        Ok(token.with_refresh_timing(RefreshTiming::AtAge(self.reread_after)))
    }
}
