//! A body whose frames are kept as they are sent, so that it can be sent once more.
//!
//! Two handles share the original body: [`Sending`], which the first attempt reads, and [`Kept`], which waits for a refusal.
//! [`Kept::replay`] takes the body over: the frames sent so far come again, then the rest of the original, from where it
//! stands. From then on the first handle ends with an error, never with a clean end that would make a part look like a whole.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

/// What both handles share. The lock is contended only in the moment of a takeover.
type Shared<B> = Arc<Mutex<State<B>>>;

enum State<B> {
    /// Everything sent so far is in the log, and fits. The waker is that of the first attempt where it waits for the next frame.
    Recording { rest: Pin<Box<B>>, log: Log, waker: Option<Waker> },
    /// Too much was sent to be kept, or the body failed: only the first attempt goes on.
    NotKept { rest: Pin<Box<B>> },
    /// The retry has it.
    TakenOver,
}

struct Log {
    frames: VecDeque<Recorded>,
    /// What all frames cost, and how much of that is data.
    bytes: usize,
    data: u64,
    cap: usize,
    /// Of the body as a whole, as it said before its first frame.
    size: SizeHint,
    ended: bool,
}

#[derive(Clone)]
enum Recorded {
    Data(Bytes),
    Trailers(Box<http::HeaderMap>),
}

impl Recorded {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().cloned().map(Self::Data);
        data.or_else(|| frame.trailers_ref().cloned().map(Box::new).map(Self::Trailers))
    }

    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + Self::EACH).sum()
            }
        }
    }

    fn data(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }

    /// What a frame, or a trailer, costs besides its bytes, by and large: many small ones do not count for nothing.
    const EACH: usize = 128;
}

impl Log {
    /// Says whether what came of the body could be kept.
    fn record<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>) -> bool {
        let Some(frame) = frame else {
            self.ended = true;
            return true;
        };
        let Some(recorded) = frame.as_ref().ok().and_then(Recorded::of) else { return false };
        self.bytes = self.bytes.saturating_add(recorded.len());
        self.data = self.data.saturating_add(recorded.data());
        self.frames.push_back(recorded);
        self.bytes.saturating_add(self.frames.len().saturating_sub(1) * Recorded::EACH) <= self.cap
    }
}

/// Splits a body, keeping up to `cap` bytes of what is sent.
pub(super) fn tee<B: Body>(body: B, cap: usize) -> (Sending<B>, Kept<B>) {
    let size = body.size_hint();
    let log = Log { frames: VecDeque::new(), bytes: 0, data: 0, cap, size, ended: false };
    let shared = Arc::new(Mutex::new(State::Recording { rest: Box::pin(body), log, waker: None }));
    (Sending(Arc::clone(&shared)), Kept(shared))
}

/// The body of the first attempt.
pub(super) struct Sending<B>(Shared<B>);

impl<B> Body for Sending<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Recording { rest, log, waker } => {
                let polled = poll_bytes(rest.as_mut(), cx);
                *waker = polled.is_pending().then(|| cx.waker().clone());
                if let Poll::Ready(frame) = &polled
                    && !log.record(frame.as_ref())
                {
                    stop_recording(&mut state);
                }
                polled
            }
            State::NotKept { rest } => poll_bytes(rest.as_mut(), cx),
            State::TakenOver => Poll::Ready(Some(Err(TakenOver.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.0) {
            State::Recording { rest, .. } | State::NotKept { rest } => rest.is_end_stream(),
            State::TakenOver => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.0) {
            State::Recording { rest, .. } | State::NotKept { rest } => rest.size_hint(),
            State::TakenOver => SizeHint::default(),
        }
    }
}

fn stop_recording<B>(state: &mut State<B>) {
    *state = match std::mem::replace(state, State::TakenOver) {
        State::Recording { rest, .. } => State::NotKept { rest },
        other => other,
    };
}

/// What waits for a refusal.
pub(super) struct Kept<B>(Shared<B>);

impl<B> Kept<B> {
    pub(super) fn can_replay(&self) -> bool {
        // Of a body that panicked nobody knows what is lost.
        self.0.lock().is_ok_and(|state| matches!(*state, State::Recording { .. }))
    }

    /// Takes the body over from the first attempt, unless not all of it was kept. The first attempt is woken to hear of it: it
    /// holds its stream until then.
    pub(super) fn replay(self) -> Option<Replayed<B>> {
        let mut state = self.0.lock().ok()?;
        if !matches!(*state, State::Recording { .. }) {
            return None;
        }
        let taken = std::mem::replace(&mut *state, State::TakenOver);
        drop(state);
        let State::Recording { rest, log, waker } = taken else { return None };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(Replayed { log, rest, sent: 0 })
    }
}

/// There will be no retry: nothing needs to be kept any more.
impl<B> Drop for Kept<B> {
    fn drop(&mut self) {
        // Who is in the middle of a frame may be this very thread. What it records more is no more than the cap.
        if let Ok(mut state) = self.0.try_lock() {
            stop_recording(&mut state);
        }
    }
}

/// The frames once more, then the rest of the original body.
pub(super) struct Replayed<B> {
    log: Log,
    rest: Pin<Box<B>>,
    /// How much data has come again, and of the rest.
    sent: u64,
}

impl<B> Body for Replayed<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let polled = match self.log.frames.pop_front() {
            Some(Recorded::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Recorded::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
            // A body need not bear to be polled after its end.
            None if self.log.ended => Poll::Ready(None),
            None => poll_bytes(self.rest.as_mut(), cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.log.frames.is_empty() && (self.log.ended || self.rest.is_end_stream())
    }

    /// By what the body said at first: not all that say their size say what is left of it later.
    fn size_hint(&self) -> SizeHint {
        if self.log.ended {
            return SizeHint::with_exact(self.log.data.saturating_sub(self.sent));
        }
        let mut left = SizeHint::new();
        left.set_lower(self.log.size.lower().saturating_sub(self.sent));
        if let Some(upper) = self.log.size.upper() {
            left.set_upper(upper.saturating_sub(self.sent).max(left.lower()));
        }
        left
    }
}

pub(super) type PolledFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The next frame of any body, its data in one piece. What is a [`Bytes`] already is not copied.
pub(super) fn poll_bytes<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledFrame
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let in_one_piece = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    body.poll_frame(cx).map_ok(|frame| frame.map_data(in_one_piece)).map_err(Into::into)
}

#[derive(Debug)]
struct TakenOver;

impl fmt::Display for TakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this attempt was refused, and its body goes on with the retry")
    }
}

impl std::error::Error for TakenOver {}

fn lock<B>(shared: &Shared<B>) -> MutexGuard<'_, State<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc::{Sender, channel};
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    type Source = StreamBody<ReceiverStream<Result<Frame<Bytes>, BoxError>>>;

    fn source() -> (Sender<Result<Frame<Bytes>, BoxError>>, Source) {
        let (sender, frames) = channel(16);
        (sender, StreamBody::new(ReceiverStream::new(frames)))
    }

    fn feed(sender: &Sender<Result<Frame<Bytes>, BoxError>>, data: &'static str) {
        sender.try_send(Ok(Frame::data(Bytes::from_static(data.as_bytes())))).unwrap();
    }

    fn next<B: Body<Data = Bytes, Error = BoxError> + Unpin>(body: &mut B) -> Option<String> {
        let frame = assert_ready!(task::spawn(body.frame()).poll())?.unwrap();
        Some(match frame.into_data() {
            Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
            Err(frame) => format!("{:?}", frame.into_trailers().unwrap()),
        })
    }

    fn all<B: Body<Data = Bytes, Error = BoxError> + Unpin>(mut body: B) -> Vec<String> {
        std::iter::from_fn(|| next(&mut body)).collect()
    }

    #[test]
    fn a_body_that_was_sent_whole_comes_again_with_its_trailers() {
        let (sender, body) = source();
        feed(&sender, "one");
        feed(&sender, "two");
        let trailers = HeaderMap::from_iter([("x".parse().unwrap(), HeaderValue::from_static("y"))]);
        sender.try_send(Ok(Frame::trailers(trailers))).unwrap();
        drop(sender);
        let (sending, kept) = tee(body, 1000);
        let sent = all(sending);
        assert_eq!(sent, ["one", "two", r#"{"x": "y"}"#]);
        assert!(kept.can_replay());
        assert_eq!(all(kept.replay().unwrap()), sent);
    }

    #[test]
    fn a_body_that_is_still_being_sent_is_taken_over_and_goes_on_where_it_stands() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 1000);
        feed(&sender, "one");
        assert_eq!(next(&mut sending).as_deref(), Some("one"));
        assert_pending!(task::spawn(sending.frame()).poll());
        let mut again = kept.replay().unwrap();
        feed(&sender, "two");
        assert_eq!(next(&mut again).as_deref(), Some("one"));
        assert_eq!(next(&mut again).as_deref(), Some("two"));
        assert_pending!(task::spawn(again.frame()).poll());
        drop(sender);
        assert_eq!(next(&mut again), None);

        let rest = assert_ready!(task::spawn(sending.frame()).poll());
        assert!(rest.unwrap().is_err(), "a part never ends as if it were the whole");
        assert!(!sending.is_end_stream());
    }

    #[test]
    fn a_body_of_which_nothing_was_sent_is_taken_over_whole() {
        let (sender, body) = source();
        let (_sending, kept) = tee(body, 1000);
        feed(&sender, "one");
        drop(sender);
        assert_eq!(all(kept.replay().unwrap()), ["one"]);
    }

    #[test]
    fn a_body_whose_first_attempt_was_dropped_half_way_goes_on() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 1000);
        feed(&sender, "one");
        feed(&sender, "two");
        drop(sender);
        next(&mut sending);
        drop(sending);
        assert_eq!(all(kept.replay().unwrap()), ["one", "two"]);
    }

    #[test]
    fn a_body_over_the_cap_is_sent_whole_and_not_kept() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 5);
        feed(&sender, "12345");
        assert_eq!(next(&mut sending).as_deref(), Some("12345"));
        assert!(kept.can_replay(), "exactly the cap");
        feed(&sender, "6");
        feed(&sender, "7");
        drop(sender);
        assert_eq!(all(sending), ["6", "7"]);
        assert!(!kept.can_replay());
        assert!(kept.replay().is_none());
    }

    #[test]
    fn the_first_attempt_is_woken_when_its_body_is_taken_over() {
        let (_sender, body) = source();
        let (mut sending, kept) = tee(body, 1000);
        let mut first = task::spawn(sending.frame());
        assert_pending!(first.poll());
        let _again = kept.replay().unwrap();
        assert!(first.is_woken());
        assert!(assert_ready!(first.poll()).unwrap().is_err());
    }

    #[test]
    fn nothing_is_recorded_when_there_will_be_no_retry() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 1000);
        feed(&sender, "one");
        next(&mut sending);
        drop(kept);
        assert!(matches!(*lock(&sending.0), State::NotKept { .. }));
        feed(&sender, "two");
        assert_eq!(next(&mut sending).as_deref(), Some("two"));
    }

    #[test]
    fn empty_frames_count_too() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 10 * Recorded::EACH);
        for _ in 0..12 {
            feed(&sender, "");
            next(&mut sending);
        }
        assert!(!kept.can_replay());
    }

    #[test]
    fn a_body_that_failed_is_not_sent_again() {
        let (sender, body) = source();
        let (mut sending, kept) = tee(body, 1000);
        feed(&sender, "one");
        sender.try_send(Err("disk on fire".into())).unwrap();
        next(&mut sending);
        let error = assert_ready!(task::spawn(sending.frame()).poll()).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
        assert!(kept.replay().is_none());
    }

    #[test]
    fn a_body_that_panicked_is_not_sent_again() {
        let (mut sending, kept) = tee(StreamBody::new(LosesOne(0)), 1000);
        assert_eq!(next(&mut sending).as_deref(), Some("one"));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next(&mut sending)));
        assert!(polled.is_err());
        assert!(!kept.can_replay());
        assert!(kept.replay().is_none());
    }

    /// Panics instead of its second frame, and goes on with the third.
    struct LosesOne(usize);

    impl tokio_stream::Stream for LosesOne {
        type Item = Result<Frame<Bytes>, BoxError>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.0 += 1;
            Poll::Ready(match self.0 {
                1 => Some(Ok(Frame::data(Bytes::from_static(b"one")))),
                2 => panic!("a bug in the body"),
                _ => None,
            })
        }
    }

    #[test]
    fn size_and_end_are_those_of_the_original() {
        use http_body_util::Full;

        let (mut sending, kept) = tee(Full::new(Bytes::from_static(b"12345")), 100);
        assert_eq!(sending.size_hint().exact(), Some(5));
        assert!(!sending.is_end_stream());
        assert_eq!(next(&mut sending).as_deref(), Some("12345"));
        assert!(sending.is_end_stream());
        let mut again = kept.replay().unwrap();
        assert_eq!(again.size_hint().exact(), Some(5));
        assert!(!again.is_end_stream());
        assert_eq!(next(&mut again).as_deref(), Some("12345"));
        assert!(again.is_end_stream());
        assert_eq!(again.size_hint().exact(), Some(0));
    }

    /// Says all its life what it said at first, as some bodies do, and drops what it holds when it is asked for its end.
    struct Odd(VecDeque<&'static [u8]>, Arc<Mutex<Option<Kept<Self>>>>);

    impl Body for Odd {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> PolledFrame {
            let Some(data) = self.0.pop_front() else {
                self.1.lock().unwrap().take();
                return Poll::Ready(None);
            };
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(10)
        }
    }

    #[tokio::test]
    async fn the_size_of_the_retry_is_what_the_body_said_at_first() {
        let odd = Odd([b"01234".as_slice(), b"56789"].into(), Arc::default());
        let (mut sending, kept) = tee(odd, 1000);
        sending.frame().await.unwrap().unwrap();
        let mut replayed = kept.replay().unwrap();
        for left in [10, 5, 0] {
            assert_eq!(replayed.size_hint().exact(), Some(left));
            replayed.frame().await;
        }
    }

    #[tokio::test]
    async fn a_body_may_drop_its_own_call() {
        let call = Arc::default();
        let (mut sending, kept) = tee(Odd(VecDeque::new(), Arc::clone(&call)), 1000);
        *call.lock().unwrap() = Some(kept);
        assert!(sending.frame().await.is_none());
        assert!(call.lock().unwrap().is_none());
    }
}
