use std::{fmt, num::NonZeroU64};

/// The number of a token in its [`TokenCache`](crate::TokenCache): 1 for the first token, and
/// greater for each later one.
///
/// It identifies a token where the token itself must not appear, such as in a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    /// Returns the generation of the next token.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_count_from_one() {
        let next = Generation::FIRST.next();
        assert_eq!((Generation::FIRST.get(), next.get()), (1, 2));
        assert!(Generation::FIRST < next);
        assert_eq!(next.to_string(), "2");
    }
}
