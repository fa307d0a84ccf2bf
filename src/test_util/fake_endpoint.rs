//! The counts and the scripted faults of one fake server.

use std::{collections::VecDeque, fmt, time::Duration};

use bytes::Bytes;
use http::Response;
use tokio::sync::watch;

/// One of the two servers of a [`FakeProvider`](super::FakeProvider), which counts its requests and
/// causes faults.
///
/// Clones are the same server. `Debug` shows no response.
#[derive(Clone, Default)]
pub struct FakeEndpoint {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    requests: usize,
    /// Each with the number of requests that it is for.
    faults: VecDeque<(usize, Fault)>,
    delay: Duration,
    holds: usize,
}

impl State {
    fn take_fault(&mut self) -> Option<Fault> {
        let (times, fault) = self.faults.front_mut()?;
        *times -= 1;
        if *times > 0 {
            Some(fault.clone())
        } else {
            self.faults.pop_front().map(|(_, fault)| fault)
        }
    }
}

/// The outcome of a request, instead of that of the server.
#[derive(Clone)]
pub(super) enum Fault {
    Response(Response<Bytes>),
    Disconnect,
}

impl FakeEndpoint {
    /// Answers the next `times` requests with `response`, whatever they contain.
    ///
    /// Responses and [disconnections](Self::disconnect_next) that were added before come first.
    pub fn respond_next(&self, times: usize, response: Response<impl Into<Bytes>>) {
        self.add_fault(times, Fault::Response(response.map(Into::into)));
    }

    /// Closes the connection of the next `times` requests without a response.
    pub fn disconnect_next(&self, times: usize) {
        self.add_fault(times, Fault::Disconnect);
    }

    fn add_fault(&self, times: usize, fault: Fault) {
        if times > 0 {
            self.state.send_modify(|state| state.faults.push_back((times, fault)));
        }
    }

    /// Delays each request that arrives from now on by this time. Default: no delay.
    pub fn set_delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Holds all requests until the returned value is dropped.
    ///
    /// A held request is counted. Its credentials are checked after the release.
    pub fn hold(&self) -> Hold {
        self.state.send_modify(|state| state.holds += 1);
        Hold { endpoint: self.clone() }
    }

    /// Returns the number of requests that have arrived.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.state.borrow().requests
    }

    /// Waits until this many requests have arrived. Returns at once if they have.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time.
    pub async fn wait_for_requests(&self, count: usize) {
        // Fails only if the sender is dropped, and `self` holds it.
        self.state.subscribe().wait_for(|state| state.requests >= count).await.ok();
    }

    /// Counts a request and waits until it may be answered. Returns the fault that replaces the
    /// response, if any.
    pub(super) async fn admit(&self) -> Option<Fault> {
        let (mut fault, mut delay) = (None, Duration::ZERO);
        self.state.send_modify(|state| {
            state.requests += 1;
            fault = state.take_fault();
            delay = state.delay;
        });
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.state.subscribe().wait_for(|state| state.holds == 0).await.ok();
        fault
    }
}

impl fmt::Debug for FakeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        let times = state.faults.iter().map(|(times, _)| *times);
        let faults = times.fold(0, usize::saturating_add);
        f.debug_struct("FakeEndpoint")
            .field("requests", &state.requests)
            .field("faults", &faults)
            .field("delay", &state.delay)
            .field("holds", &state.holds)
            .finish()
    }
}

/// A guard that holds the requests of a [`FakeEndpoint`] until it is dropped.
#[derive(Debug)]
#[must_use = "the requests are released when this value is dropped"]
pub struct Hold {
    endpoint: FakeEndpoint,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.endpoint.state.send_modify(|state| state.holds -= 1);
    }
}
