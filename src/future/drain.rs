//! Reads the rest of a rejected response, so that its HTTP/1 connection can be reused.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use tokio::time::Instant;

/// The largest number of bytes that are read.
const MAX_BYTES: usize = 64 * 1024;
/// The largest number of frames that are read. It bounds the time of one poll: a server may send
/// many small frames that are all ready.
const MAX_FRAMES: u32 = 256;
/// The number of times in a row that no frame may be ready. Each time, the other tasks run once:
/// one of them reads the connection.
const MAX_YIELDS: u32 = 16;
/// The longest time to read. Other tasks may take long, and a server may send a few bytes
/// meanwhile.
const MAX_TIME: Duration = Duration::from_millis(50);

/// Completes at the end of the body, at one of the limits, or if no further frame is ready.
pub(super) struct Drain<B> {
    body: Pin<Box<B>>,
    bytes_left: usize,
    frames_left: u32,
    yields_left: u32,
    deadline: Instant,
    yielding: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl<B: Body> Drain<B> {
    /// Returns `None` if the body is empty or known to be larger than the limit.
    pub(super) fn new(body: B) -> Option<Self> {
        let is_small = !body.is_end_stream() && body.size_hint().lower() <= MAX_BYTES as u64;
        is_small.then(|| Self {
            body: Box::pin(body),
            bytes_left: MAX_BYTES,
            frames_left: MAX_FRAMES,
            yields_left: MAX_YIELDS,
            deadline: Instant::now() + MAX_TIME,
            yielding: None,
        })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(yielding) = &mut self.yielding {
                ready!(yielding.as_mut().poll(cx));
                self.yielding = None;
            }
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let read = frame.data_ref().map_or(0, Buf::remaining);
                    let (Some(bytes_left), Some(frames_left)) =
                        (self.bytes_left.checked_sub(read), self.frames_left.checked_sub(1))
                    else {
                        return Poll::Ready(());
                    };
                    (self.bytes_left, self.frames_left) = (bytes_left, frames_left);
                    self.yields_left = MAX_YIELDS;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if Instant::now() >= self.deadline => return Poll::Ready(()),
                Poll::Pending => {
                    let Some(left) = self.yields_left.checked_sub(1) else {
                        return Poll::Ready(());
                    };
                    self.yields_left = left;
                    self.yielding = Some(Box::pin(tokio::task::yield_now()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, iter};

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{Empty, Full, StreamBody};
    use tokio_stream::{Stream, StreamExt};
    use tokio_test::{assert_pending, assert_ready};

    use super::*;

    fn frames<I: Iterator<Item = usize>>(
        sizes: I,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        tokio_stream::iter(sizes.map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; size])))))
    }

    fn drain<B: Body>(body: B) -> tokio_test::task::Spawn<Drain<B>> {
        tokio_test::task::spawn(Drain::new(body).unwrap())
    }

    #[test]
    fn empty_or_too_large_body_is_not_read() {
        assert!(Drain::new(Empty::<Bytes>::new()).is_none());
        assert!(Drain::new(Full::<Bytes>::from(vec![b'x'; MAX_BYTES + 1])).is_none());
        assert!(Drain::new(Full::<Bytes>::from(vec![b'x'; MAX_BYTES])).is_some());
    }

    // On paused time: the time limit must not end it before the byte limit does.
    #[tokio::test(start_paused = true)]
    async fn endless_body_is_read_up_to_either_limit() {
        let max_frames = usize::try_from(MAX_FRAMES).unwrap();
        for (size, allowed) in [(0, max_frames), (1, max_frames), (1000, MAX_BYTES / 1000)] {
            let mut read = 0;
            let sizes = iter::repeat_with(|| {
                read += 1;
                size
            });
            let mut drain = drain(StreamBody::new(frames(sizes)));
            while drain.enter(|cx, mut drain| drain.poll(cx)).is_pending() {}
            drop(drain);
            assert_eq!(read, allowed + 1);
        }
    }

    #[test]
    fn slow_body_is_left_after_the_other_tasks_have_run() {
        let mut drain =
            drain(StreamBody::new(frames(iter::once(1)).chain(tokio_stream::pending())));
        for _ in 0..MAX_YIELDS {
            assert_pending!(drain.enter(|cx, mut drain| drain.poll(cx)));
            assert!(drain.is_woken(), "it asks to be polled again");
        }
        assert_ready!(drain.enter(|cx, mut drain| drain.poll(cx)));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_body_is_left_at_the_time_limit() {
        // At every second poll, a byte is ready.
        let mut is_ready = false;
        let slow_stream = futures_util::stream::poll_fn(move |_| {
            is_ready = !is_ready;
            let byte = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            if is_ready { Poll::Ready(Some(byte)) } else { Poll::Pending }
        });
        let mut drain = drain(StreamBody::new(slow_stream));
        let start = Instant::now();
        while drain.enter(|cx, mut drain| drain.poll(cx)).is_pending() {
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(start.elapsed(), MAX_TIME);
    }
}
