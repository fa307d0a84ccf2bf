//! Whatever threads share, named in one place, so that [loom](https://docs.rs/loom) can stand in for it.
//!
//! With `--cfg tower_oauth_loom` the mutex and the atomics are loom's, and so is what stands in for the lock-free pointer and
//! the channel, into which loom cannot look. `cache/model.rs` is what is checked that way.

use std::sync::{PoisonError, TryLockError};

#[cfg(not(all(test, tower_oauth_loom)))]
pub(crate) use real::*;
#[cfg(all(test, tower_oauth_loom))]
pub(crate) use stand_ins::*;

/// Locks, also what a panic has poisoned: nothing that is locked here is left half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`lock`], for those who would rather not wait.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

pub(crate) use unique::unique_number;

/// Not loom's: which number it is changes nothing.
mod unique {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A number that this process has not had before. Not zero.
    pub(crate) fn unique_number() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(not(all(test, tower_oauth_loom)))]
mod real {
    use std::sync::Arc;
    pub(crate) use std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    };

    use arc_swap::ArcSwapOption;
    pub(crate) use tokio::sync::watch;

    /// A shared value that is read without a lock.
    #[derive(Debug)]
    pub(crate) struct Pointer<T>(ArcSwapOption<T>);

    impl<T> Default for Pointer<T> {
        fn default() -> Self {
            Self(ArcSwapOption::empty())
        }
    }

    impl<T> Pointer<T> {
        /// The guard of the pointer lives in here only, never across an await (design invariant 7).
        pub(crate) fn read<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
            read(self.0.load().as_deref())
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            self.0.load_full()
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            self.0.store(value);
        }
    }
}

#[cfg(all(test, tower_oauth_loom))]
mod stand_ins {
    use std::sync::Arc;

    pub(crate) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    };

    #[derive(Debug)]
    pub(crate) struct Pointer<T>(Mutex<Option<Arc<T>>>);

    impl<T> Default for Pointer<T> {
        fn default() -> Self {
            Self(Mutex::new(None))
        }
    }

    impl<T> Pointer<T> {
        pub(crate) fn read<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
            read(self.load().as_deref())
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            super::lock(&self.0).clone()
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            *super::lock(&self.0) = value;
        }
    }
    /// As much of tokio's as is used here.
    pub(crate) mod watch {
        use std::{future::poll_fn, sync::Arc, task::Poll, task::Waker};

        use super::{super::lock, Mutex};

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
            let state = Arc::new(Mutex::new(State { value, has_sender: true, waiting: Vec::new() }));
            (Sender(Arc::clone(&state)), Receiver(state))
        }

        impl<T> Sender<T> {
            pub(crate) fn subscribe(&self) -> Receiver<T> {
                Receiver(Arc::clone(&self.0))
            }

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
                mut is_it: impl FnMut(&T) -> bool,
            ) -> Result<Box<T>, Closed> {
                poll_fn(|context| {
                    let mut state = lock(&self.0);
                    if is_it(&state.value) {
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
}
