//! A body that is recorded while it is sent, so that it can be sent once more.
//!
//! Two handles share the original body. The first attempt reads it through a [`RecordedBody`], and
//! a [`SavedBody`] is kept for the retry. [`SavedBody::replay`] moves the original body to a
//! [`ReplayedBody`], which returns the recorded frames and then the rest of the original. From then
//! on the first attempt receives an error, because a normal end of its body would make a part of
//! the body look complete.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// The state that both handles share. The lock is contended only when a request is rejected while
/// its body is being sent.
type Shared<B> = Arc<Mutex<State<B>>>;

struct State<B> {
    /// `None` after the body has moved to the retry.
    original: Option<Pin<Box<B>>>,
    /// `None` if the body cannot be replayed: the cap was exceeded, the body failed, or the
    /// [`SavedBody`] was used or dropped.
    recording: Option<Recording>,
}

/// All frames that were read from a body so far.
#[derive(Default)]
struct Recording {
    frames: VecDeque<RecordedFrame>,
    /// Content and overhead of all frames, in bytes. It must not exceed `cap`.
    size: usize,
    cap: usize,
    /// The number of data bytes in all frames.
    data_len: u64,
    /// The size hint of the complete body. It is read before the first frame, because some bodies
    /// do not update their size hint.
    size_hint: SizeHint,
    is_complete: bool,
    /// Wakes the first attempt. It is set while the first attempt waits for the next frame.
    waker: Option<Waker>,
}

enum RecordedFrame {
    Data(Bytes),
    // Boxed because a map is larger than `Bytes`, and a body has only one frame of trailers.
    Trailers(Box<HeaderMap>),
}

/// The memory of a recorded frame besides its content, in bytes. It limits the number of small
/// frames.
const FRAME_OVERHEAD: usize = size_of::<RecordedFrame>();

/// The estimated memory of a trailer besides its name and value, in bytes.
const TRAILER_OVERHEAD: usize = 128;

impl Recording {
    /// Adds the result of polling the original body. Returns false if the body cannot be replayed:
    /// the cap is exceeded, the body failed, or the type of the frame is unknown.
    fn add(&mut self, polled: Option<&Result<Frame<Bytes>, BoxError>>) -> bool {
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return false,
            None => {
                self.is_complete = true;
                self.size_hint = SizeHint::with_exact(self.data_len);
                return true;
            }
        };
        let mut size = if self.frames.is_empty() { 0 } else { FRAME_OVERHEAD };
        if let Some(data) = frame.data_ref() {
            size += data.len();
            self.frames.push_back(RecordedFrame::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            let sizes = trailers.iter().map(|(name, value)| name.as_str().len() + value.len());
            size += sizes.sum::<usize>() + trailers.len() * TRAILER_OVERHEAD;
            self.frames.push_back(RecordedFrame::Trailers(Box::new(trailers.clone())));
        } else {
            return false;
        }
        self.size = self.size.saturating_add(size);
        self.data_len += data_len(frame);
        self.size <= self.cap
    }
}

/// Splits a body into the body to send and what is saved for a retry. Up to `cap` bytes are
/// recorded.
pub(super) fn record<B: Body>(body: B, cap: usize) -> (RecordedBody<B>, SavedBody<B>) {
    let recording = Recording { cap, size_hint: body.size_hint(), ..Recording::default() };
    let state = State { original: Some(Box::pin(body)), recording: Some(recording) };
    let shared = Arc::new(Mutex::new(state));
    (RecordedBody(Arc::clone(&shared)), SavedBody(Some(shared)))
}

/// The body of the first attempt.
pub(super) struct RecordedBody<B>(Shared<B>);

impl<B> Body for RecordedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let State { original, recording } = &mut *lock(&self.0);
        let Some(original) = original else {
            return Poll::Ready(Some(Err(MOVED_TO_RETRY.into())));
        };
        let polled = poll_bytes(original.as_mut(), cx);
        if let Some(active) = recording {
            active.waker = polled.is_pending().then(|| cx.waker().clone());
            if let Poll::Ready(frame) = &polled
                && !active.add(frame.as_ref())
            {
                *recording = None;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).original.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).original.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

const MOVED_TO_RETRY: &str =
    "this attempt was rejected, and the rest of its body is sent with the retry";

/// A body that is saved for a retry. `None` stands for an empty body.
pub struct SavedBody<B>(Option<Shared<B>>);

impl<B> SavedBody<B> {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    pub(super) fn can_replay(&self) -> bool {
        // The lock is poisoned if the original body panicked. The body may have lost a frame then.
        let is_recording = |shared: &Shared<B>| shared.lock().is_ok_and(|s| s.recording.is_some());
        self.0.as_ref().is_none_or(is_recording)
    }

    /// Moves the body from the first attempt to the retry.
    pub(super) fn replay(self) -> Option<ReplayedBody<B>> {
        let Some(shared) = &self.0 else { return Some(ReplayedBody::empty()) };
        let mut state = shared.lock().ok()?;
        let mut recording = state.recording.take()?;
        let original = state.original.take()?;
        drop(state);
        // The first attempt keeps its HTTP stream open until it receives the error.
        if let Some(waker) = recording.waker.take() {
            waker.wake();
        }
        let rest = (!recording.is_complete).then_some(original);
        Some(ReplayedBody { recording, rest, returned: 0 })
    }
}

/// Stops the recording, because no retry will follow.
impl<B> Drop for SavedBody<B> {
    fn drop(&mut self) {
        // The original body may own this value and drop it while this thread polls the body and
        // holds the lock. The recording then continues, up to the cap.
        if let Some(Ok(mut state)) = self.0.as_ref().map(|shared| shared.try_lock()) {
            state.recording = None;
        }
    }
}

impl<B> fmt::Debug for SavedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedBody").field("can_replay", &self.can_replay()).finish()
    }
}

/// The body of the retry: the recorded frames, then the rest of the original body.
pub(super) struct ReplayedBody<B> {
    recording: Recording,
    /// `None` if the recording is complete: a body may panic if it is polled after its end.
    rest: Option<Pin<Box<B>>>,
    /// The number of data bytes that were returned.
    returned: u64,
}

impl<B> ReplayedBody<B> {
    pub(super) fn empty() -> Self {
        let recording = Recording { size_hint: SizeHint::with_exact(0), ..Recording::default() };
        Self { recording, rest: None, returned: 0 }
    }
}

impl<B> Body for ReplayedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let polled = match (self.recording.frames.pop_front(), &mut self.rest) {
            (Some(RecordedFrame::Data(data)), _) => Poll::Ready(Some(Ok(Frame::data(data)))),
            (Some(RecordedFrame::Trailers(trailers)), _) => {
                Poll::Ready(Some(Ok(Frame::trailers(*trailers))))
            }
            (None, Some(rest)) => poll_bytes(rest.as_mut(), cx),
            (None, None) => Poll::Ready(None),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.returned += data_len(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let is_rest_ended = || self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.recording.frames.is_empty() && is_rest_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let total = &self.recording.size_hint;
        let mut left = SizeHint::new();
        left.set_lower(total.lower().saturating_sub(self.returned));
        if let Some(upper) = total.upper() {
            left.set_upper(upper.saturating_sub(self.returned));
        }
        left
    }
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Polls a body and converts its data to [`Bytes`]. Data of type `Bytes` is not copied.
pub(super) fn poll_bytes<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledFrame
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let into_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    body.poll_frame(cx).map_ok(|frame| frame.map_data(into_bytes)).map_err(Into::into)
}

fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// Locks the state for the first attempt, even if the original body has panicked: the first attempt
/// treats such a body as it would without recording.
fn lock<B>(shared: &Shared<B>) -> MutexGuard<'_, State<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::sync::mpsc::{Sender, channel};
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    impl<B> SavedBody<B> {
        pub(in crate::replay) fn is_empty(&self) -> bool {
            self.0.is_none()
        }
    }

    type ChannelBody = StreamBody<ReceiverStream<Result<Frame<Bytes>, BoxError>>>;

    fn channel_body() -> (Sender<Result<Frame<Bytes>, BoxError>>, ChannelBody) {
        let (sender, frames) = channel(16);
        (sender, StreamBody::new(ReceiverStream::new(frames)))
    }

    fn send_data(sender: &Sender<Result<Frame<Bytes>, BoxError>>, data: &'static str) {
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
    fn completely_sent_body_is_replayed_with_its_trailers() {
        let (sender, body) = channel_body();
        send_data(&sender, "one");
        send_data(&sender, "two");
        let trailers =
            HeaderMap::from_iter([("x".parse().unwrap(), HeaderValue::from_static("y"))]);
        sender.try_send(Ok(Frame::trailers(trailers))).unwrap();
        drop(sender);
        let (first, saved) = record(body, 1000);
        let sent = all(first);
        assert_eq!(sent, ["one", "two", r#"{"x": "y"}"#]);
        assert!(saved.can_replay());
        assert_eq!(all(saved.replay().unwrap()), sent);
    }

    #[test]
    fn partly_sent_body_is_replayed_and_continues_live() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 1000);
        send_data(&sender, "one");
        assert_eq!(next(&mut first).as_deref(), Some("one"));
        assert_pending!(task::spawn(first.frame()).poll());
        let mut replayed = saved.replay().unwrap();
        send_data(&sender, "two");
        assert_eq!(next(&mut replayed).as_deref(), Some("one"));
        assert_eq!(next(&mut replayed).as_deref(), Some("two"));
        assert_pending!(task::spawn(replayed.frame()).poll());
        drop(sender);
        assert_eq!(next(&mut replayed), None);

        let rest = assert_ready!(task::spawn(first.frame()).poll());
        assert!(rest.unwrap().is_err(), "the first attempt must not end like a complete body");
        assert!(!first.is_end_stream());
    }

    #[test]
    fn unsent_body_moves_to_the_retry() {
        let (sender, body) = channel_body();
        let (_first, saved) = record(body, 1000);
        send_data(&sender, "one");
        drop(sender);
        assert_eq!(all(saved.replay().unwrap()), ["one"]);
    }

    #[test]
    fn partly_sent_body_is_replayed_after_the_first_is_dropped() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 1000);
        send_data(&sender, "one");
        send_data(&sender, "two");
        drop(sender);
        next(&mut first);
        drop(first);
        assert_eq!(all(saved.replay().unwrap()), ["one", "two"]);
    }

    #[test]
    fn body_over_the_cap_is_sent_but_not_replayed() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 5);
        send_data(&sender, "12345");
        assert_eq!(next(&mut first).as_deref(), Some("12345"));
        assert!(saved.can_replay(), "a body of exactly the cap can be replayed");
        send_data(&sender, "6");
        send_data(&sender, "7");
        drop(sender);
        assert_eq!(all(first), ["6", "7"]);
        assert!(!saved.can_replay());
        assert!(saved.replay().is_none());
    }

    #[test]
    fn first_attempt_is_woken_when_its_body_moves_to_the_retry() {
        let (_sender, body) = channel_body();
        let (mut first, saved) = record(body, 1000);
        let mut frame = task::spawn(first.frame());
        assert_pending!(frame.poll());
        let _replayed = saved.replay().unwrap();
        assert!(frame.is_woken());
        assert!(assert_ready!(frame.poll()).unwrap().is_err());
    }

    #[test]
    fn recording_stops_when_the_saved_body_is_dropped() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 1000);
        send_data(&sender, "one");
        next(&mut first);
        drop(saved);
        assert!(lock(&first.0).original.is_some());
        assert!(lock(&first.0).recording.is_none());
        send_data(&sender, "two");
        assert_eq!(next(&mut first).as_deref(), Some("two"));
    }

    #[test]
    fn empty_frames_count_towards_the_cap() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 10 * FRAME_OVERHEAD);
        for number in 1..=12 {
            send_data(&sender, "");
            next(&mut first);
            assert_eq!(saved.can_replay(), number <= 11, "the first frame has no overhead");
        }
    }

    #[test]
    fn trailers_count_towards_the_cap() {
        for (cap, can_replay) in
            [(12 + 2 * TRAILER_OVERHEAD, true), (11 + 2 * TRAILER_OVERHEAD, false)]
        {
            let trailers = [("ab", "cdef"), ("g", "hijkl")];
            let trailers =
                trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let (sender, body) = channel_body();
            sender.try_send(Ok(Frame::trailers(trailers.into_iter().collect()))).unwrap();
            let (mut first, saved) = record(body, cap);
            next(&mut first);
            assert_eq!(saved.can_replay(), can_replay, "{cap}");
        }
    }

    #[test]
    fn small_frames_of_40_kb_fit_into_the_default_cap() {
        assert_eq!(FRAME_OVERHEAD, 4 * size_of::<usize>());
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 64 * 1024);
        let data = "x".repeat(100).leak();
        for _ in 0..400 {
            send_data(&sender, data);
            next(&mut first);
        }
        drop(sender);
        assert_eq!(all(saved.replay().unwrap()), [&*data; 400]);
    }

    #[test]
    fn failed_body_is_not_replayed() {
        let (sender, body) = channel_body();
        let (mut first, saved) = record(body, 1000);
        send_data(&sender, "one");
        sender.try_send(Err("disk on fire".into())).unwrap();
        next(&mut first);
        let error = assert_ready!(task::spawn(first.frame()).poll()).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "disk on fire");
        assert!(saved.replay().is_none());
    }

    #[test]
    fn panicked_body_is_not_replayed() {
        let (mut first, saved) = record(StreamBody::new(PanicsAtSecondFrame(0)), 1000);
        assert_eq!(next(&mut first).as_deref(), Some("one"));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next(&mut first)));
        assert!(polled.is_err());
        assert!(!saved.can_replay());
        assert!(saved.replay().is_none());
    }

    /// A stream that panics when it is polled for its second frame, and ends after that.
    struct PanicsAtSecondFrame(usize);

    impl tokio_stream::Stream for PanicsAtSecondFrame {
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
    fn size_hint_and_end_are_those_of_the_original_body() {
        let (mut first, saved) = record(Full::new(Bytes::from_static(b"12345")), 100);
        assert_eq!(first.size_hint().exact(), Some(5));
        assert!(!first.is_end_stream());
        assert_eq!(next(&mut first).as_deref(), Some("12345"));
        assert!(first.is_end_stream());
        let mut replayed = saved.replay().unwrap();
        assert_eq!(replayed.size_hint().exact(), Some(5));
        assert!(!replayed.is_end_stream());
        assert_eq!(next(&mut replayed).as_deref(), Some("12345"));
        assert!(replayed.is_end_stream());
        assert_eq!(replayed.size_hint().exact(), Some(0));
    }

    /// A body with a constant size hint of 10, which drops the saved body that it owns at its end.
    struct TestBody(VecDeque<&'static [u8]>, Arc<Mutex<Option<SavedBody<Self>>>>);

    impl Body for TestBody {
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
    async fn replayed_size_hint_counts_down_from_the_first_one() {
        let body = TestBody([b"01234".as_slice(), b"56789"].into(), Arc::default());
        let (mut first, saved) = record(body, 1000);
        first.frame().await.unwrap().unwrap();
        let mut replayed = saved.replay().unwrap();
        for left in [10, 5, 0] {
            assert_eq!(replayed.size_hint().exact(), Some(left));
            replayed.frame().await;
        }
    }

    #[tokio::test]
    async fn body_may_drop_its_own_saved_body_while_polled() {
        let owned = Arc::default();
        let (mut first, saved) = record(TestBody(VecDeque::new(), Arc::clone(&owned)), 1000);
        *owned.lock().unwrap() = Some(saved);
        assert!(first.frame().await.is_none());
        assert!(owned.lock().unwrap().is_none());
    }
}
