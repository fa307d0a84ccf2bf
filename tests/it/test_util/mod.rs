//! The tools for users' tests.

#[cfg(feature = "default-transport")]
mod fake_provider;
mod fake_wall_clock;
mod scripted_source;
