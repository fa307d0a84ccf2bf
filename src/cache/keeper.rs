//! The task that watches the clocks for all who read a token. See [`lease`](super::lease).

use std::{pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::sleep_until,
};

use super::single_flight::{Post, SingleFlight};

/// Has a keeper begin, if there is a runtime that it can rely on, and no other keeper. That a runtime has a timer cannot be
/// asked of it, but the last fetch has used one.
#[cold]
pub(super) fn begin(single_flight: &Arc<SingleFlight>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() == RuntimeFlavor::MultiThread
        && let Some(post) = single_flight.take_post(runtime.id())
    {
        runtime.spawn(keep(post));
    }
}

/// Ends with the need for it. Where its runtime ends before, so does the lease.
async fn keep(post: Post) {
    loop {
        // Registered before the look, so that no change between the two is missed.
        let mut changed = pin!(post.changed());
        changed.as_mut().enable();
        let Some(until) = post.extend_lease() else { return };
        match select(changed, pin!(sleep_until(until))).await {
            Either::Left(_) => {}
            Either::Right(_) if post.was_used() => {}
            Either::Right(_) => return,
        }
    }
}
