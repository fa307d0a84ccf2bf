//! Rejected tokens: detecting a rejection in a response, and deciding what follows (RFC 6750 §3).
//!
//! | file | subject |
//! | --- | --- |
//! | `criteria` | whether a response rejects its token |
//! | `challenge` | `WWW-Authenticate` in that response |
//! | `grpc_trailers` | the end of a gRPC response |
//! | `breaker` | whether a rejection may cause a refresh |
//! | `handler` | all of it together, for one service |

mod breaker;
mod challenge;
mod criteria;
#[cfg(feature = "tonic")]
mod grpc_trailers;
mod handler;

pub(crate) use breaker::Breaker;
pub(crate) use criteria::{Assessment, RejectionCriteria};
pub(crate) use handler::{RejectionHandler, RejectionOutcome};
