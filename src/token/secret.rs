use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::error::{TokenError, TokenErrorKind};

/// The secret of a client (RFC 6749 §2.3.1): a value, or a file that is read for each token request.
///
/// `Debug` shows nothing of a value, there is no `Display`, and its memory is wiped on drop.
///
/// ```
/// use tower_oauth::ClientSecret;
///
/// let secret = ClientSecret::from("hunter2");
/// assert_eq!(format!("{secret:?}"), "ClientSecret([redacted])");
///
/// // A mounted secret that is rotated under way:
/// let secret = ClientSecret::from_file("/run/secrets/orders-client");
/// ```
#[derive(Clone)]
pub struct ClientSecret(Kind);

#[derive(Clone)]
enum Kind {
    Value(Zeroizing<String>),
    File(PathBuf),
}

impl ClientSecret {
    /// Reads the secret from a file, anew for every token request, so that a rotated secret is picked up. Line breaks at its
    /// end are not part of it.
    ///
    /// A file that cannot be read then, or that is larger than 64 KiB, is a [`TokenErrorKind::Configuration`] error that names the file.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

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

/// The content of a small file without the line breaks at its end.
pub(crate) async fn read_secret_file(path: PathBuf) -> Result<Zeroizing<String>, TokenError> {
    let read = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || read_small_file(&path))
    };
    let unreadable = |error: io::Error| {
        let what = format!("the secret file {} cannot be read: {error}", path.display());
        TokenError::new(TokenErrorKind::Configuration, what)
    };
    let bytes = read.await.map_err(io::Error::other).and_then(|read| read).map_err(unreadable)?;
    let text = str::from_utf8(&bytes)
        .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What is no plain file may never end, or never begin.
fn read_small_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        let what = format!("it is larger than {MAX_SECRET_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(bytes)
}

impl From<String> for ClientSecret {
    fn from(secret: String) -> Self {
        Self(Kind::Value(Zeroizing::new(secret)))
    }
}

impl From<&str> for ClientSecret {
    fn from(secret: &str) -> Self {
        Self::from(secret.to_owned())
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Value(_) => f.write_str("ClientSecret([redacted])"),
            Kind::File(path) => write!(f, "ClientSecret(file {})", path.display()),
        }
    }
}
