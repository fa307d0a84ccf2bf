//! The shared token: read without a lock, refreshed by one task for all callers.
//!
//! | file | subject |
//! | --- | --- |
//! | `token_cache` | the public type: read, wait for, invalidate and close |
//! | `builder` | constructors and settings |
//! | `status`, `subscription` | the public view of a cache, and its changes |
//! | `cached_token` | a token with its generation and its schedule |
//! | `slot` | the token that may be sent now, behind a lock-free pointer |
//! | `core` | slot, state and notification; the only writer of the slot |
//! | `state` | everything that the lock of the core protects |
//! | `refresh` | the start and the end of a refresh: its guard and its handle |
//! | `fetch` | the detached task that calls the token source |
//! | `invalidator` | access for responses that arrive later, without keeping the cache open |
//! | `snapshot` | all of a cache at one instant |
//! | `freshness` | the instants at which a token becomes stale and expires |
//! | `backoff` | the pause after a failure |
//! | `request_limit` | the number of token requests in a period |
//! | `system_sleep` | the comparison of monotonic and wall clock |
//! | `loom_tests` | `core` and `refresh` under the thread interleavings that loom explores |

mod backoff;
mod builder;
mod cached_token;
mod core;
mod fetch;
mod freshness;
mod invalidator;
#[cfg(all(test, tower_oauth_loom))]
mod loom_tests;
mod refresh;
mod request_limit;
mod slot;
mod snapshot;
mod state;
mod status;
mod subscription;
mod system_sleep;
mod token_cache;

pub use builder::TokenCacheBuilder;
pub use cached_token::CachedToken;
pub(crate) use invalidator::TokenInvalidator;
pub use status::{RefreshState, Status, TokenState};
pub use subscription::StatusChanges;
pub(crate) use token_cache::PendingToken;
pub use token_cache::TokenCache;
