//! Showing the token and reading the answer (RFC 6750).
//!
//! | file | subject |
//! | --- | --- |
//! | `origins` | which servers may see the token |
//! | `breaker` | whether a refusal may cost a token request |
//! | `challenge` | what `WWW-Authenticate` says |
//! | `verdict` | whether a response refuses it |
//! | `policy` | both, with the cache and the replay of a service |

mod breaker;
mod challenge;
mod origins;
mod policy;
mod verdict;

pub(crate) use breaker::Breaker;
pub(crate) use origins::OriginId;
pub use origins::Origins;
pub(crate) use policy::{Policy, Presented, SharedPolicy, Shown};
pub(crate) use verdict::Verdict;
