//! All integration tests in one binary. Tests that depend on time use tokio's paused clock. Tests
//! of the transport use real sockets on the loopback interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unchecked_time_subtraction
)] // a panic is how a test fails

mod advice;
mod blocked_runtime;
mod breaker;
mod cancellation;
mod changed_service;
mod chapter_table;
mod ci;
#[cfg(feature = "config")]
mod config;
#[cfg(feature = "default-transport")]
mod connect_retry;
mod credentials;
#[cfg(feature = "default-transport")]
mod default_transport;
mod discovery;
mod failures;
#[cfg(feature = "default-transport")]
mod faults;
mod feature_table;
mod final_errors;
#[cfg(feature = "tonic")]
mod grpc;
mod layering;
mod lifecycle;
mod lifetimes;
mod limit;
mod loopback;
mod methods;
mod msrv;
mod origins;
mod parameters;
mod properties;
#[cfg(feature = "default-transport")]
mod proxy;
mod readiness;
mod readme;
mod recovery;
mod replay;
#[cfg(feature = "reqwest")]
mod reqwest;
mod response_bytes;
mod runtimes;
mod secrets;
mod short_lifetime;
#[cfg(feature = "test-util")]
mod simulation;
mod single_flight;
mod size;
mod stacks;
mod status;
mod support;
#[cfg(feature = "test-util")]
mod system_sleep;
#[cfg(feature = "test-util")]
mod test_util;
#[cfg(feature = "default-transport")]
mod tls;
mod vectors;
mod wire;
