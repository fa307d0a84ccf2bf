//! The shared token: read without a lock, refreshed by one task for all callers.
//!
//! | file | subject |
//! | --- | --- |
//! | `token_cache` | the public type: read, wait for, invalidate and close |
//! | `builder` | constructors and settings |
//! | `status`, `status_changes` | the public view of a cache, and its changes |
//! | `cached_token` | a token with its generation and its schedule |
//! | `slot` | the token that may be sent now, behind a lock-free pointer |
//! | `core` | slot, state and notification; the only writer of the slot |
//! | `state` | everything that the lock of the core protects |
//! | `single_flight` | the start and the end of a refresh: its guard and its handle |
//! | `fetch_task` | the detached task that calls the token source |
//! | `token_invalidator` | access for responses that arrive later, without keeping the cache open |
//! | `status_snapshot` | all of a cache at one instant |
//! | `freshness` | the instants at which a token becomes stale and expires |
//! | `backoff` | the pause after a failure |
//! | `request_limit` | the number of token requests in a period |
//! | `system_sleep` | the comparison of monotonic and wall clock |
//! | `loom_tests` | `core` and `single_flight` under the thread interleavings that loom explores |

mod backoff;
mod builder;
mod cached_token;
mod core;
mod fetch_task;
mod freshness;
#[cfg(all(test, tower_oauth_loom))]
mod loom_tests;
mod request_limit;
mod single_flight;
mod slot;
mod state;
mod status;
mod status_changes;
mod status_snapshot;
mod system_sleep;
mod token_cache;
mod token_invalidator;

pub use builder::TokenCacheBuilder;
pub use cached_token::CachedToken;
pub(crate) use cached_token::RejectedToken;
pub use status::{RefreshState, Status, TokenState};
pub use status_changes::StatusChanges;
pub use token_cache::TokenCache;
pub(crate) use token_invalidator::TokenInvalidator;
