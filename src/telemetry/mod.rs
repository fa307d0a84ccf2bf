//! Telemetry: each [`Event`] of a token cache is emitted as an event of `tracing` and counted with
//! `metrics`, if those features are enabled. The chapter `docs/telemetry.md` lists all names.
//!
//! No event has a field for a token or a secret. A token is identified by its generation.

// Without these features, some fields and methods have no reader.
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(dead_code, clippy::unused_self)
)]

mod current;
mod emitter;
mod event;
mod http_span;
#[cfg(feature = "metrics")]
mod metrics_counters;
#[cfg(feature = "tracing")]
mod origin_warnings;
mod refresh_span;
mod request_counter;
#[cfg(feature = "tracing")]
mod tracing_events;

pub(crate) use current::emit_current;
pub(crate) use emitter::Telemetry;
pub(crate) use event::{Event, SkipReason, SuppressReason};
pub(crate) use http_span::HttpSpan;
pub(crate) use refresh_span::RefreshSpan;
pub(crate) use request_counter::RequestCounter;
