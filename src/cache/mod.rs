//! The shared token: read without a lock, refreshed by one task for everybody.
//!
//! | file | subject |
//! | --- | --- |
//! | `token_cache` | what users see |
//! | `freshness` | when a token is to be renewed, and when it is not to be sent any more |
//! | `backoff` | when the next attempt may be made after a failure |
//! | `limit` | how many attempts a period may see |
//! | `suspend` | whether the machine slept |
//! | `slot` | the one token that may be sent now, lock-free |
//! | `lease` | whether it may be read without a look at the clock |
//! | `copies` | what each thread has of it for itself |
//! | `keeper` | the task that watches the clocks meanwhile |
//! | `ledger` | the tokens and the attempts so far |
//! | `single_flight` | at most one refresh, its outcome for all who wait |
//! | `status` | what there is to see of all that |
//! | `model` | `slot` and `single_flight` under all interleavings of their threads |

mod backoff;
mod copies;
mod freshness;
mod keeper;
mod lease;
mod ledger;
mod limit;
#[cfg(all(test, tower_oauth_loom))]
mod model;
mod single_flight;
mod slot;
mod status;
mod suspend;
mod token_cache;

pub use slot::{CachedToken, Generation};
pub use status::{RefreshState, Status, StatusChanges, TokenState};
pub(crate) use token_cache::{PendingToken, TokensInUse};
pub use token_cache::{TokenCache, TokenCacheBuilder};
