//! A token source with scripted answers that counts its fetches.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch};

use super::answer::{Answer, Outcome};
use crate::{
    error::TokenError,
    source::{FetchContext, FetchReason, TokenSource},
    token::AccessToken,
};

/// A token source that gives scripted answers in order and records the reason of each fetch.
///
/// After the last answer of the script, each fetch gets a new token with a lifetime of
/// [`DEFAULT_LIFETIME`](Self::DEFAULT_LIFETIME). The new tokens are `token-1`, `token-2` and so on.
/// Clones share the script and the records: give one to the cache and keep one.
///
/// It needs neither sockets nor real time, and works with tokio's paused clock. `Debug` shows no
/// token.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::{FetchReason, TokenCache, TokenErrorKind};
/// use tower_oauth::test_util::{Answer, ScriptedSource};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::TokenError> {
/// let source = ScriptedSource::new([
///     Answer::token(Duration::from_secs(600)),
///     Answer::error(TokenErrorKind::Transport),
/// ]);
/// let cache = TokenCache::new(source.clone());
///
/// let token = cache.token().await?;
/// assert_eq!(token.expose_secret(), "token-1");
///
/// cache.invalidate(token.generation());
/// assert_eq!(cache.token().await.unwrap_err().kind(), TokenErrorKind::Transport);
/// assert_eq!(source.reasons(), [FetchReason::First, FetchReason::Rejected]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ScriptedSource(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    /// One permit for each held answer that was released.
    released: Semaphore,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    reasons: Vec<FetchReason>,
    new_tokens: usize,
}

impl ScriptedSource {
    /// The lifetime of a token after the last answer of the script: one hour.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

    /// Creates a source with these answers. The [`Default`] has none, so that each fetch gets a new
    /// token.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        let source = Self::default();
        source.push(script);
        source
    }

    /// Adds answers to the end of the script.
    pub fn push(&self, answers: impl IntoIterator<Item = Answer>) {
        let answers: Vec<_> = answers.into_iter().collect();
        self.0.state.send_modify(|state| state.script.extend(answers));
    }

    /// Releases one [held](Answer::held) answer: the oldest that a fetch waits for, or else the
    /// next one.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }

    /// Returns the number of fetches that have begun.
    #[must_use]
    pub fn fetch_count(&self) -> usize {
        self.0.state.borrow().reasons.len()
    }

    /// Returns the reason of each fetch that has begun, in order.
    #[must_use]
    pub fn reasons(&self) -> Vec<FetchReason> {
        self.0.state.borrow().reasons.clone()
    }

    /// Waits until this many fetches have begun. Returns at once if they have.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time.
    pub async fn wait_for_fetches(&self, count: usize) {
        let mut state = self.0.state.subscribe();
        // Fails only if the sender is dropped, and `self` holds it.
        state.wait_for(|state| state.reasons.len() >= count).await.ok();
    }
}

impl TokenSource for ScriptedSource {
    /// # Panics
    ///
    /// Panics if the answer is [`Answer::panic`].
    #[allow(clippy::panic)] // the test asked for it
    async fn fetch(&self, context: FetchContext) -> Result<AccessToken, TokenError> {
        let mut answer = None;
        self.0.state.send_modify(|state| {
            state.reasons.push(context.reason());
            answer = state.script.pop_front();
        });
        let answer = answer.unwrap_or_else(|| Answer::token(Self::DEFAULT_LIFETIME));
        if answer.is_held
            && let Ok(permit) = self.0.released.acquire().await
        {
            permit.forget();
        }
        match answer.outcome {
            Outcome::NewToken(lifetime) => {
                let mut number = 0;
                self.0.state.send_modify(|state| {
                    state.new_tokens += 1;
                    number = state.new_tokens;
                });
                Ok(AccessToken::bearer(format!("token-{number}"))?.expires_in(lifetime))
            }
            Outcome::Token(token) => Ok(token),
            Outcome::Error(error) => Err(error),
            Outcome::Panic => panic!("the scripted source panics because its script says so"),
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: watch::Sender::default(), released: Semaphore::new(0) }
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.borrow();
        f.debug_struct("ScriptedSource")
            .field("script", &state.script)
            .field("reasons", &state.reasons)
            .finish_non_exhaustive()
    }
}
