//! Showing the token and reading the answer (RFC 6750).
//!
//! | file | subject |
//! | --- | --- |
//! | `origins` | which servers may see the token |
//! | `breaker` | whether a refusal may cost a token request |
//! | `challenge` | what `WWW-Authenticate` says |
//! | `verdict` | whether a response refuses it |
//! | `grpc` | whether the end of a stream does |
//! | `refusal` | what a refusal comes to |
//! | `answers` | what is learnt from answers |
//! | `policy` | what the requests of a service have in common |

mod answers;
mod breaker;
mod challenge;
#[cfg(feature = "tonic")]
mod grpc;
mod origins;
mod policy;
mod refusal;
mod verdict;

pub(crate) use answers::{Answers, SharedAnswers};
pub(crate) use breaker::Breaker;
pub(crate) use origins::OriginId;
pub use origins::Origins;
pub(crate) use policy::{Policy, Presented, Shown};
pub(crate) use refusal::{Consequence, Refusal};
pub(crate) use verdict::Verdict;
