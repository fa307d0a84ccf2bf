//! Reads the rest of a refusal, so that an HTTP/1 connection is free again and need not be closed.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http_body::Body;
use tokio::time::Instant;

/// The most that is read.
const BYTES: usize = 64 * 1024;
/// How often in a row nothing may be there, though all others had their turn: who reads the connection, above all.
const TURNS: u32 = 16;
/// How long that may go on: where the turns of others take their time, a trickle of bytes would be there for each.
const AT_MOST: Duration = Duration::from_millis(50);

/// Ends with the body, at the byte limit, when time is up, or where no more of it is ready.
pub(super) struct Drain<B> {
    body: Pin<Box<B>>,
    bytes_left: usize,
    turns_left: u32,
    until: Instant,
    turn_of_others: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl<B: Body> Drain<B> {
    /// `None`: there is nothing to read, or more than would be read.
    pub(super) fn new(body: B) -> Option<Self> {
        let is_worth_it = !body.is_end_stream() && body.size_hint().lower() <= BYTES as u64;
        is_worth_it.then(|| Self {
            body: Box::pin(body),
            bytes_left: BYTES,
            turns_left: TURNS,
            until: Instant::now() + AT_MOST,
            turn_of_others: None,
        })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(turn) = &mut self.turn_of_others {
                ready!(turn.as_mut().poll(cx));
                self.turn_of_others = None;
            }
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A frame without data counts, too, or they could come for ever.
                    let read = frame.data_ref().map_or(0, Buf::remaining).max(1);
                    let Some(left) = self.bytes_left.checked_sub(read) else { return Poll::Ready(()) };
                    (self.bytes_left, self.turns_left) = (left, TURNS);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if Instant::now() >= self.until => return Poll::Ready(()),
                Poll::Pending => {
                    let Some(left) = self.turns_left.checked_sub(1) else { return Poll::Ready(()) };
                    self.turns_left = left;
                    self.turn_of_others = Some(Box::pin(tokio::task::yield_now()));
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

    fn frames<I: Iterator<Item = usize>>(sizes: I) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        tokio_stream::iter(sizes.map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; size])))))
    }

    fn drain<B: Body>(body: B) -> tokio_test::task::Spawn<Drain<B>> {
        tokio_test::task::spawn(Drain::new(body).unwrap())
    }

    #[test]
    fn it_does_not_begin_what_is_empty_or_too_large() {
        assert!(Drain::new(Empty::<Bytes>::new()).is_none());
        assert!(Drain::new(Full::<Bytes>::from(vec![b'x'; BYTES + 1])).is_none());
        assert!(Drain::new(Full::<Bytes>::from(vec![b'x'; BYTES])).is_some());
    }

    #[test]
    fn a_body_without_end_is_read_up_to_the_limit() {
        for size in [0, 1, 1000] {
            let mut read = 0;
            let sizes = iter::repeat_with(|| {
                read += 1;
                size
            });
            let mut drain = drain(StreamBody::new(frames(sizes)));
            while drain.enter(|cx, mut drain| drain.poll(cx)).is_pending() {}
            drop(drain);
            assert_eq!(read, BYTES / size.max(1) + 1);
        }
    }

    #[test]
    fn a_body_that_trickles_is_left_when_all_others_had_their_turns() {
        let mut drain = drain(StreamBody::new(frames(iter::once(1)).chain(tokio_stream::pending())));
        for _ in 0..TURNS {
            assert_pending!(drain.enter(|cx, mut drain| drain.poll(cx)));
            assert!(drain.is_woken(), "it waits for nobody");
        }
        assert_ready!(drain.enter(|cx, mut drain| drain.poll(cx)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_left_when_time_is_up_however_long_the_turns_of_others_take() {
        // Each time that it is looked at, a byte has come meanwhile.
        let mut has_come = false;
        let trickle = futures_util::stream::poll_fn(move |_| {
            has_come = !has_come;
            let byte = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            if has_come { Poll::Ready(Some(byte)) } else { Poll::Pending }
        });
        let mut drain = drain(StreamBody::new(trickle));
        let start = Instant::now();
        while drain.enter(|cx, mut drain| drain.poll(cx)).is_pending() {
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(start.elapsed(), AT_MOST);
    }
}
