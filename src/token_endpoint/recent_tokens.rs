//! The last tokens of an endpoint, which a server may repeat in a later error.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use crate::sync::{Mutex, lock};

/// The last few access tokens that an endpoint returned. Their memory is zeroed on drop.
///
/// A clone is empty, so that tokens are kept only where they were requested: a cache that is closed
/// drops its token source, and with it these tokens.
#[derive(Default)]
pub(super) struct RecentTokens(Mutex<VecDeque<Zeroizing<String>>>);

impl RecentTokens {
    pub(super) const MAX_TOKENS: usize = 4;

    pub(super) fn add(&self, token: &str) {
        let mut tokens = lock(&self.0);
        // A server may return the same token many times.
        tokens.retain(|known| known.as_str() != token);
        if tokens.len() == Self::MAX_TOKENS {
            tokens.pop_front();
        }
        tokens.push_back(Zeroizing::new(token.to_owned()));
    }

    pub(super) fn to_vec(&self) -> Vec<Zeroizing<String>> {
        lock(&self.0).iter().cloned().collect()
    }
}

impl Clone for RecentTokens {
    fn clone(&self) -> Self {
        Self::default()
    }
}
