//! Tools for tests of code that uses this crate, with the feature `test-util`.
//!
//! | to test | use |
//! | --- | --- |
//! | how often, when and why a token is fetched | [`ScriptedSource`], a token source |
//! | a whole client over real sockets, with revoked tokens and failing servers | [`FakeProvider`] |
//! | a system that was suspended | [`FakeWallClock`] |
//!
//! [The chapter on testing](crate::docs::testing) shows tests that use them. To try a client by
//! hand, `cargo run --example fake_provider` starts a [`FakeProvider`].
//!
//! **For tests and local development only.** The servers use plain http on the loopback interface,
//! and their tokens can be guessed.

mod answer;
mod api_responder;
mod fake_endpoint;
mod fake_provider;
mod fake_wall_clock;
mod issued_tokens;
mod messages;
mod scripted_source;
mod server;
mod token_responder;

pub use answer::Answer;
pub use fake_endpoint::{FakeEndpoint, Hold};
pub use fake_provider::{FakeProvider, FakeProviderBuilder};
pub use fake_wall_clock::FakeWallClock;
pub use scripted_source::ScriptedSource;
