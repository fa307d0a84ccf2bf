//! The response future of [`OAuth`](crate::OAuth).
//!
//! | file | subject |
//! | --- | --- |
//! | `response_future` | the public future: polls what a state waits for |
//! | `state` | the states, and what each one carries |
//! | `steps` | the transitions: after a response, after a token, when the service is ready |
//! | `drain` | reads the rest of a rejected response |

// A first attempt and a retry pass through the same states:
//
//  no token ─► AwaitingToken ─► (Draining) ─► AwaitingReady ─► AwaitingResponse ─► response
//     token ──────── ▲ ▲ ───────────────────────── │ ───────────┘  │
//                    │ └── token lost meanwhile ───┘               │ rejected, and saved
//                    └─────────────────────────────────────────────┘

mod drain;
mod response_future;
mod state;
mod steps;

pub use response_future::ResponseFuture;
pub(crate) use state::{RetryParts, Shared};
