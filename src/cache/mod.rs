//! The shared token: read without a lock, refreshed by one task for everybody.
//!
//! | file | subject |
//! | --- | --- |
//! | `token_cache` | what users see |
//! | `freshness` | when a token is to be renewed, and when it is not to be sent any more |
//! | `backoff` | when the next attempt may be made after a failure |
//! | `slot` | the one token that may be sent now, lock-free |
//! | `single_flight` | at most one refresh, its outcome for all who wait |

mod backoff;
mod freshness;
mod single_flight;
mod slot;
mod token_cache;

pub use slot::{CachedToken, Generation};
pub(crate) use token_cache::PendingToken;
pub use token_cache::{TokenCache, TokenCacheBuilder};
