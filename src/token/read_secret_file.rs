use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::error::{TokenError, TokenErrorKind};

/// The largest file that is read.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Returns the content of a small text file, without a byte order mark and without the line breaks
/// at its end.
///
/// Fails with [`TokenErrorKind::Transport`] if the file does not exist or is empty: another process
/// may still have to write it. Fails with [`TokenErrorKind::Configuration`] if it cannot be read,
/// is not UTF-8, has other control characters, or is larger than 64 KiB. The error names the file.
///
/// # Cancel safety
///
/// Cancel safe.
pub(crate) async fn read_secret_file(path: PathBuf) -> Result<Zeroizing<String>, TokenError> {
    let read = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || read_small_file(&path))
    };
    let unreadable = |error: io::Error| {
        let (kind, advice) = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                (TokenErrorKind::Transport, "write the file, or correct its path")
            }
            _ => {
                let advice = "correct the path, the permissions or the content of the file";
                (TokenErrorKind::Configuration, advice)
            }
        };
        let message = format!("the file {} cannot be read: {error}", path.display());
        TokenError::new(kind, message).with_advice(advice)
    };
    let bytes = read.await.map_err(io::Error::other).and_then(|read| read).map_err(unreadable)?;
    let text = str::from_utf8(&bytes)
        .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
    let (kind, problem) = match text {
        "" => (io::ErrorKind::UnexpectedEof, "it is empty"),
        text if text.contains(char::is_control) => {
            let problem = "it has a control character that is not a line break at its end";
            (io::ErrorKind::InvalidData, problem)
        }
        text => return Ok(Zeroizing::new(text.to_owned())),
    };
    Err(unreadable(io::Error::new(kind, problem)))
}

/// Rejects FIFOs and devices: opening or reading them may block forever.
fn read_small_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let size = metadata.len().min(MAX_SECRET_BYTES);
    // Larger than the file, so that the vector does not grow and leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 64));
    File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        let message = format!("it is larger than {MAX_SECRET_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}
