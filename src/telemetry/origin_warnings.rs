//! The origins of requests that were sent without a token and a warning.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use http::{Uri, uri::Authority};

/// Remembers for which origins a warning was emitted, so that there is one for each.
#[derive(Debug, Default)]
pub(super) struct OriginWarnings {
    hasher: RandomState,
    /// The hashes of the origins.
    warned: Mutex<Vec<u64>>,
}

impl OriginWarnings {
    /// The largest number of origins with a warning. A client that may choose the origin must not
    /// fill the log.
    const MAX: usize = 100;

    /// Returns true for the first request to the origin of `uri`, for the first
    /// [`MAX`](Self::MAX) origins.
    pub(super) fn is_first(&self, uri: &Uri) -> bool {
        let origin = (uri.scheme(), uri.authority().map(Authority::as_str));
        let hash = self.hasher.hash_one(origin);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = warned.len() < Self::MAX && !warned.contains(&hash);
        if is_first {
            warned.push(hash);
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_request_to_each_of_the_first_origins_is_found() {
        let warnings = OriginWarnings::default();
        let is_first = |uri: &str| warnings.is_first(&uri.parse().unwrap());
        assert!(is_first("https://a.test/1") && !is_first("https://a.test/2"));
        assert!(is_first("http://a.test/") && is_first("https://a.test:8443/") && is_first("/"));
        for number in 4..OriginWarnings::MAX {
            assert!(is_first(&format!("https://{number}.test/")));
        }
        assert!(!is_first("https://one-more.test/"));
    }
}
