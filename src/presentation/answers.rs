//! What is learnt from the answers to requests that carry a token.

use std::{cell::Cell, ops::Deref, sync::Arc};

use http::{Response, StatusCode};

use super::{Breaker, Consequence, Refusal, Shown, Verdict};
use crate::{cache::TokensInUse, telemetry::Happening};

/// What an answer is judged by, and what it may change. Whoever waits for an answer has a share of it, and does not keep the
/// cache open by that.
pub(crate) struct Answers {
    pub(super) tokens: TokensInUse,
    pub(super) verdict: Verdict,
    pub(super) breaker: Arc<Breaker>,
}

/// The share of one request. Mostly it is the one that an earlier request of this thread has left, so that no counter that
/// is common to all threads goes up and down with each request.
pub(crate) struct SharedAnswers(Option<Arc<Answers>>);

thread_local! {
    static SPARE: Cell<Option<Arc<Answers>>> = const { Cell::new(None) };
}

impl SharedAnswers {
    #[inline]
    pub(crate) fn of(answers: &Arc<Answers>) -> Self {
        match SPARE.try_with(Cell::take) {
            Ok(Some(spare)) if Arc::ptr_eq(&spare, answers) => Self(Some(spare)),
            _ => Self(Some(Arc::clone(answers))),
        }
    }
}

impl Drop for SharedAnswers {
    #[inline]
    fn drop(&mut self) {
        // What was there goes after the change, as that may be the end of it.
        let outdated = SPARE.try_with(|spare| spare.replace(self.0.take()));
        drop(outdated);
    }
}

impl Deref for SharedAnswers {
    type Target = Arc<Answers>;

    #[inline]
    fn deref(&self) -> &Arc<Answers> {
        match &self.0 {
            Some(answers) => answers,
            None => unreachable!("it is there until this is dropped"),
        }
    }
}

impl Answers {
    pub(crate) fn new(tokens: TokensInUse, verdict: Verdict, breaker: Arc<Breaker>) -> Self {
        Self { tokens, verdict, breaker }
    }

    /// Whether there may be anything to learn from the answer to a first attempt: from a plain one there is not.
    #[inline]
    pub(crate) fn is_news<B>(&self, response: &Response<B>) -> bool {
        is_error(response.status()) || self.verdict.is_refusal_without_error() || self.watches_ends()
    }

    pub(crate) fn is_refusal<B>(&self, shown: Shown, response: &Response<B>) -> bool {
        self.verdict.is_refusal(response.status(), response.headers(), shown.scheme)
    }

    /// An error, a refusal or another, may be the work of a token that has expired unseen.
    pub(crate) fn doubt<B>(&self, response: &Response<B>) {
        if is_error(response.status()) {
            self.tokens.doubt_lease();
        }
    }

    /// Takes a refused token out of use, where that may help.
    pub(crate) fn heed(&self, refusal: Refusal) -> Consequence {
        refusal.heed(&self.tokens, &self.breaker)
    }

    /// What the answer to a retry tells of the refresh before it. `is_cause`: the first attempt is what caused that.
    pub(crate) fn learn_from_retry(&self, answer: Refusal, is_refusal: bool, is_cause: bool) {
        let generation = answer.generation.get();
        if is_refusal {
            answer.tell(&self.tokens);
            self.tokens.telemetry().tell(Happening::Futile { generation });
        } else if !is_no_answer(answer.status) {
            self.tokens.telemetry().tell(Happening::Recovered { generation });
            if is_cause {
                self.breaker.helped(answer.origin);
            }
        }
    }

    /// Whether the end of a response is looked at, too.
    #[inline]
    fn watches_ends(&self) -> bool {
        cfg!(feature = "tonic") && self.verdict.grpc
    }

    /// Has it heeded, if the end of the response turns out to be this `refusal`.
    pub(crate) fn watch_end<B: 'static>(self: &Arc<Self>, response: &mut Response<B>, refusal: Refusal) {
        if !self.watches_ends() {
            return;
        }
        #[cfg(feature = "tonic")]
        {
            let answers = Arc::clone(self);
            super::grpc::watch(response, move || {
                answers.heed(refusal);
            });
        }
        let _ = (response, refusal);
    }
}

#[inline]
fn is_error(status: StatusCode) -> bool {
    status.as_u16() >= 400
}

/// A server in trouble has not looked at the token.
fn is_no_answer(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{cache::TokenCache, token::AccessToken};

    fn answers() -> Arc<Answers> {
        let cache = TokenCache::new(|| async { AccessToken::bearer("t") });
        Arc::new(Answers::new(cache.in_use(), Verdict::default(), Arc::new(Breaker::new(1))))
    }

    #[test]
    fn a_thread_keeps_one_share_for_its_next_request_and_none_beyond_its_end() {
        let (answers, others) = (answers(), answers());
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                drop(SharedAnswers::of(&answers));
                assert_eq!(Arc::strong_count(&answers), 2, "it is kept");
                let (one, other) = (SharedAnswers::of(&answers), SharedAnswers::of(&answers));
                assert_eq!(Arc::strong_count(&answers), 3, "and used");
                drop((one, other));
                assert_eq!(Arc::strong_count(&answers), 2);
                drop(SharedAnswers::of(&others));
                assert_eq!([&answers, &others].map(Arc::strong_count), [1, 2], "it makes room");
            });
            thread.join().unwrap();
        });
        assert_eq!([&answers, &others].map(Arc::strong_count), [1, 1]);
    }
}
