//! One binary for all integration tests. Time is virtual wherever there is time; sockets are real wherever there is a wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unchecked_time_subtraction)] // that is how a test fails

mod cancellation;
mod changed_service;
#[cfg(feature = "config")]
mod config;
mod credentials;
#[cfg(feature = "default-transport")]
mod default_transport;
mod discovery;
mod failures;
#[cfg(feature = "default-transport")]
mod faults;
#[cfg(feature = "tonic")]
mod grpc;
mod house;
mod leases;
mod lifecycle;
mod limit;
mod loopback;
mod origins;
mod properties;
mod readiness;
mod recovery;
mod replay;
mod runtimes;
mod secrets;
mod simulation;
mod single_flight;
mod size;
mod stacks;
mod status;
mod support;
mod suspend;
#[cfg(feature = "default-transport")]
mod tls;
mod vectors;
mod wire;
