//! Showing the token and reading the answer (RFC 6750).
//!
//! | file | subject |
//! | --- | --- |
//! | `origins` | which servers may see the token |
//! | `verdict` | whether a response refuses it |
//! | `policy` | both, with the cache and the replay of a service |

mod origins;
mod policy;
mod verdict;

pub use origins::Origins;
pub(crate) use policy::{Policy, Presented, SharedPolicy};
pub(crate) use verdict::Verdict;
