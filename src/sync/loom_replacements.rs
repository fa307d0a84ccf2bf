//! Replacements for types that loom cannot look into, built on loom's mutex.

use std::{ops::Deref, sync::Arc};

use super::{Mutex, lock};

/// The part of `arc_swap::ArcSwapOption` that the crate uses.
#[derive(Debug)]
pub(crate) struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

/// The value that a load has seen.
pub(crate) struct Loaded<T>(Option<Arc<T>>);

impl<T> Deref for Loaded<T> {
    type Target = Option<Arc<T>>;

    fn deref(&self) -> &Option<Arc<T>> {
        &self.0
    }
}

impl<T> ArcSwapOption<T> {
    pub(crate) fn empty() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        Loaded(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        lock(&self.0).clone()
    }

    pub(crate) fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        std::mem::replace(&mut *lock(&self.0), value)
    }
}

/// The part of `tokio::sync::watch` that the crate uses.
pub(crate) mod watch {
    use std::{
        future::poll_fn,
        sync::Arc,
        task::{Poll, Waker},
    };

    use super::{Mutex, lock};

    struct State<T> {
        value: T,
        has_sender: bool,
        waiting: Vec<Waker>,
    }

    pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);
    pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);
    #[derive(Debug)]
    pub(crate) struct Closed;

    pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let state = State { value, has_sender: true, waiting: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&state)), Receiver(state))
    }

    impl<T> Sender<T> {
        pub(crate) fn send_replace(&self, value: T) {
            self.change(|state| state.value = value);
        }

        fn change(&self, change: impl FnOnce(&mut State<T>)) {
            let mut state = lock(&self.0);
            change(&mut state);
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.change(|state| state.has_sender = false);
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T: Clone> Receiver<T> {
        pub(crate) async fn wait_for(
            &mut self,
            mut accepts: impl FnMut(&T) -> bool,
        ) -> Result<Box<T>, Closed> {
            poll_fn(|context| {
                let mut state = lock(&self.0);
                if accepts(&state.value) {
                    return Poll::Ready(Ok(Box::new(state.value.clone())));
                }
                if !state.has_sender {
                    return Poll::Ready(Err(Closed));
                }
                state.waiting.push(context.waker().clone());
                Poll::Pending
            })
            .await
        }
    }
}
