//! A property test of body replay. For random bodies, a 401 at a random moment and polls in random
//! order, the retry sends the whole body, or there is no retry.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_assert, prop_assert_eq, prop_oneof,
    sample::select,
    test_runner::{Config, TestCaseError, TestCaseResult, TestRunner},
};
use tokio::sync::oneshot;
use tokio_test::task::{Spawn, spawn};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_oauth::{
    OAuthLayer, Origins,
    replay::{BufferBody, NoReplay, Replay},
};

use super::cache_of_numbered_tokens;
use crate::support::{API, lock};

const CAP: usize = 1000;
const CASES: u32 = 3000;

#[test]
fn retry_sends_the_whole_body_or_there_is_no_retry() {
    let tally = Mutex::new(Tally::default());
    check(&BufferBody::with_cap(CAP), |script, outcome| {
        lock(&tally).count(script, &outcome);
        outcome.check_bodies(script)?;
        let known = script.known_size().unwrap_or_default();
        if script.fits() {
            prop_assert!(
                outcome.second.is_some(),
                "the body fits under the cap but was not retried"
            );
        }
        if known > CAP || outcome.first_at_retry.data.len() > CAP || outcome.first_at_retry.failed {
            prop_assert!(outcome.second.is_none());
        }
        Ok(())
    });
    lock(&tally).assert_each_kind_occurred();
}

#[test]
fn body_without_replay_is_sent_completely() {
    check(&NoReplay, |script, outcome| {
        outcome.check_bodies(script)?;
        prop_assert!(outcome.second.is_none());
        Ok(())
    });
}

fn check<R>(replay: &R, property: impl Fn(&Script, Outcome) -> TestCaseResult)
where
    R: Replay<ScriptedBody, Body: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static>
        + Clone
        + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&script(), |script| {
        let outcome = runtime
            .block_on(async { Simulation::new(&script, replay.clone()).await.run(&script).await });
        property(&script, outcome?)
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// A request body, and the order in which the parties of the request act.
#[derive(Clone, Debug)]
struct Script {
    items: Vec<Item>,
    reports: Reports,
    acts: Vec<Act>,
}

/// The properties that a body reports about itself: its exact size, and that it has ended.
#[derive(Clone, Copy, Debug)]
struct Reports {
    size: bool,
    end: bool,
}

#[derive(Clone, Debug)]
enum Item {
    Data(Bytes),
    Pause,
    Trailers(usize),
    Error,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The first connection reads the request body.
    PollFirst,
    /// The second connection reads the request body.
    PollSecond,
    /// The future of the response is polled.
    PollCaller,
    /// The body continues after a pause.
    Resume,
    /// The first server answers 401.
    Reject,
    /// Other tasks run, such as the refresh.
    Yield,
    /// The first connection continues in another task.
    MoveToTask,
    /// The first connection breaks.
    Break,
}

fn script() -> impl Strategy<Value = Script> {
    let size =
        prop_oneof![4 => 0..64_usize, 4 => 0..400_usize, 1 => Just(CAP), 1 => CAP - 2..CAP + 3];
    let piece = prop_oneof![3 => size.prop_map(Some), 2 => Just(None)];
    let trailers = (1..3_usize).prop_map(|number| Some(Item::Trailers(number)));
    let last = prop_oneof![4 => Just(None), 2 => trailers, 1 => Just(Some(Item::Error))];
    let polls = [Act::PollFirst, Act::PollSecond, Act::PollCaller];
    let act = select([polls, polls, [Act::Resume, Act::Reject, Act::Yield]].concat());
    let act = prop_oneof![40 => act, 3 => Just(Act::MoveToTask), 1 => Just(Act::Break)];
    (vec(piece, 0..10), last, any::<(bool, bool)>(), vec(act, 0..60)).prop_map(
        |(pieces, last, (size, end), acts)| {
            let mut numbers = (0..=u8::MAX).cycle();
            let piece = |size: Option<usize>| match size {
                Some(size) => Item::Data(numbers.by_ref().take(size).collect()),
                None => Item::Pause,
            };
            let items = pieces.into_iter().map(piece).collect::<Vec<_>>();
            Script {
                items: items.into_iter().chain(last).collect(),
                reports: Reports { size, end },
                acts,
            }
        },
    )
}

impl Script {
    fn known_size(&self) -> Option<usize> {
        self.reports.size.then(|| data_len(&self.items))
    }

    /// Returns the whole body, as a server receives it.
    fn whole(&self) -> Received {
        let mut received = Received::default();
        for item in &self.items {
            match item {
                Item::Data(data) => received.data.extend_from_slice(data),
                Item::Trailers(number) => received.trailers = Some(trailers(*number)),
                Item::Pause => {}
                Item::Error => received.failed = true,
            }
        }
        received.ended = !received.failed;
        received
    }

    /// Returns true if the body has no error and fits under the cap, whatever overhead is counted
    /// for each frame.
    fn fits(&self) -> bool {
        let overhead = |item: &Item| match item {
            Item::Trailers(number) => 128 + 160 * number,
            Item::Pause => 0,
            _ => 128,
        };
        !self.whole().failed
            && data_len(&self.items) + self.items.iter().map(overhead).sum::<usize>() <= CAP
    }
}

fn data_len<'a>(items: impl IntoIterator<Item = &'a Item>) -> usize {
    items.into_iter().map(|item| if let Item::Data(data) = item { data.len() } else { 0 }).sum()
}

fn trailers(number: usize) -> HeaderMap {
    let name = |n| http::HeaderName::try_from(format!("trailer-{n}")).unwrap();
    (0..number).map(|n| (name(n), HeaderValue::from(n))).collect()
}

/// The body of the request. Panics if it is polled after its end.
#[derive(Clone)]
struct ScriptedBody(Arc<Mutex<BodyState>>);

struct BodyState {
    items: VecDeque<Item>,
    reports: Reports,
    is_paused: bool,
    has_ended: bool,
    waker: Option<Waker>,
}

impl ScriptedBody {
    fn new(script: &Script) -> Self {
        Self(Arc::new(Mutex::new(BodyState {
            items: script.items.iter().cloned().collect(),
            reports: script.reports,
            is_paused: false,
            has_ended: false,
            waker: None,
        })))
    }

    fn resume(&self) {
        let mut state = lock(&self.0);
        state.is_paused = false;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct BodyError;

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body is broken")
    }
}

impl std::error::Error for BodyError {}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = lock(&self.0);
        if !state.is_paused {
            assert!(!state.has_ended, "the body is polled after its end");
            match state.items.pop_front() {
                Some(Item::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Item::Trailers(number)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(number)))));
                }
                Some(Item::Pause) => state.is_paused = true,
                Some(Item::Error) => {
                    state.has_ended = true;
                    return Poll::Ready(Some(Err(BodyError)));
                }
                None => {
                    state.has_ended = true;
                    return Poll::Ready(None);
                }
            }
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.0);
        state.reports.end && state.items.is_empty() && !state.is_paused
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.0);
        if state.reports.size {
            SizeHint::with_exact(data_len(&state.items) as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// The part of a body that a server received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Received {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// True if the body ended with its own error.
    failed: bool,
}

/// A connection that carries a request, and the server at its other end.
struct Connection<B> {
    body: Option<Spawn<B>>,
    answer: Option<oneshot::Sender<StatusCode>>,
    received: Received,
    /// True if the body is polled without waiting for a wake-up: it is new, has moved to another
    /// task, or has just returned a frame.
    is_ready: bool,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Connection<B> {
    fn new(body: B, answer: oneshot::Sender<StatusCode>) -> Self {
        let body = Some(spawn(body));
        Self { body, answer: Some(answer), received: Received::default(), is_ready: true }
    }

    fn is_due(&self) -> bool {
        self.body.as_ref().is_some_and(|body| self.is_ready || body.is_woken())
    }

    /// Reads one frame. Drops the body at its end and after an error, as HTTP clients do.
    fn poll(&mut self, script: &Script) -> TestCaseResult {
        let Some(body) = &mut self.body else { return Ok(()) };
        self.is_ready = false;
        if body.is_end_stream() {
            self.received.ended = true;
            self.body = None;
            return Ok(());
        }
        let left = script.whole().data.len() - self.received.data.len();
        let hint = body.size_hint();
        prop_assert!(
            hint.lower() <= left as u64 && hint.upper().is_none_or(|upper| upper >= left as u64)
        );
        let frame = body.enter(|cx, body| body.poll_frame(cx)).map_err(Into::into);
        let is_taken_over =
            matches!(&frame, Poll::Ready(Some(Err(error))) if !error.is::<BodyError>());
        prop_assert!(!script.reports.size || is_taken_over || hint.exact() == Some(left as u64));
        let Poll::Ready(frame) = frame else { return Ok(()) };
        self.is_ready = true;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.received.data.extend_from_slice(&data),
                Err(frame) => {
                    prop_assert!(self.received.trailers.is_none(), "the body has trailers twice");
                    self.received.trailers = frame.into_trailers().ok();
                }
            },
            Some(Err(error)) => {
                self.received.failed = error.is::<BodyError>();
                self.body = None;
            }
            None => {
                self.received.ended = true;
                self.body = None;
            }
        }
        Ok(())
    }

    /// Continues in another task, which has another waker.
    fn move_to_task(&mut self) {
        self.body = self.body.take().map(|body| spawn(body.into_inner()));
        self.is_ready = true;
    }

    fn answer(&mut self, status: StatusCode) {
        self.answer.take().map(|answer| answer.send(status));
    }
}

struct Outcome {
    first: Received,
    first_broke: bool,
    /// The part that the first server had received when the retry started. Without a retry, the
    /// part that it had received at the end.
    first_at_retry: Received,
    second: Option<Received>,
    status: StatusCode,
}

impl Outcome {
    fn check_bodies(&self, script: &Script) -> TestCaseResult {
        let whole = script.whole();
        prop_assert!(whole.data.starts_with(&self.first.data));
        prop_assert!(
            !self.first.ended || self.first == whole,
            "the first server took a part for the whole body"
        );
        match &self.second {
            Some(second) => prop_assert_eq!(second, &whole),
            None => {
                prop_assert!(
                    self.first_broke || self.first == whole,
                    "the body was cut off without a retry"
                );
            }
        }
        prop_assert_eq!(self.status.as_u16(), if self.second.is_some() { 200 } else { 401 });
        Ok(())
    }
}

/// The number of cases of each kind. The test proves nothing about a kind that never occurs.
#[derive(Debug, Default)]
struct Tally {
    retried_after_the_end: usize,
    retried_within_the_body: usize,
    retried_before_the_body: usize,
    failed_in_the_retry: usize,
    with_trailers: usize,
    not_retried: usize,
    broken: usize,
}

impl Tally {
    fn count(&mut self, script: &Script, outcome: &Outcome) {
        let Some(second) = &outcome.second else {
            self.not_retried += 1;
            return;
        };
        let (at, whole) = (&outcome.first_at_retry, script.whole());
        self.retried_after_the_end += usize::from(at.ended && !at.data.is_empty());
        self.retried_within_the_body +=
            usize::from(!at.data.is_empty() && at.data.len() < whole.data.len());
        self.retried_before_the_body += usize::from(at.data.is_empty() && !whole.data.is_empty());
        self.failed_in_the_retry += usize::from(second.failed);
        self.with_trailers += usize::from(second.trailers.is_some());
        self.broken += usize::from(outcome.first_broke);
    }

    fn assert_each_kind_occurred(&self) {
        let Self {
            retried_after_the_end, retried_within_the_body, retried_before_the_body, ..
        } = self;
        let Self { failed_in_the_retry, with_trailers, not_retried, broken, .. } = self;
        let all = [
            retried_after_the_end,
            retried_within_the_body,
            retried_before_the_body,
            failed_in_the_retry,
        ];
        let all = all.into_iter().chain([with_trailers, not_retried, broken]);
        assert!(all.min() > Some(&(CASES as usize / 100)), "{self:?}");
    }
}

type Arrivals<B> = Arc<Mutex<VecDeque<Connection<B>>>>;

/// A caller, the connections of its attempts, and their servers.
struct Simulation<B> {
    request_body: ScriptedBody,
    caller: Spawn<Pin<Box<dyn Future<Output = StatusCode>>>>,
    status: Option<StatusCode>,
    arrivals: Arrivals<B>,
    connections: Vec<Connection<B>>,
    first_broke: bool,
    first_at_retry: Option<Received>,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static> Simulation<B> {
    async fn new<R>(script: &Script, replay: R) -> Self
    where
        R: Replay<ScriptedBody, Body = B> + Clone + 'static,
    {
        let (request_body, arrivals) = (ScriptedBody::new(script), Arrivals::default());
        let tokens = cache_of_numbered_tokens();
        tokens.token().await.unwrap();
        let oauth = OAuthLayer::new(tokens, Origins::new([API]).unwrap()).with_replay(replay);
        let client = oauth.layer(server(&arrivals));
        let request = Request::put(API).body(request_body.clone()).unwrap();
        let caller = async move { client.oneshot(request).await.unwrap().status() };
        let caller = spawn(Box::pin(caller) as Pin<Box<dyn Future<Output = _>>>);
        let mut simulation = Self {
            request_body,
            caller,
            status: None,
            arrivals,
            connections: Vec::new(),
            first_broke: false,
            first_at_retry: None,
        };
        simulation.poll_caller();
        simulation
    }

    async fn run(mut self, script: &Script) -> Result<Outcome, TestCaseError> {
        for act in &script.acts {
            self.act(*act, script).await?;
        }
        self.settle(script).await?;
        prop_assert!(
            self.connections.iter().all(|connection| connection.body.is_none()),
            "a connection never drops its body"
        );
        let mut connections = self.connections.into_iter().map(|connection| connection.received);
        let first = connections.next().unwrap();
        let second = connections.next();
        prop_assert!(connections.next().is_none());
        prop_assert!(self.status.is_some(), "the caller never gets a response");
        let first_at_retry = self.first_at_retry.unwrap_or_else(|| first.clone());
        let (first_broke, status) = (self.first_broke, self.status.unwrap());
        Ok(Outcome { first, first_broke, first_at_retry, second, status })
    }

    async fn act(&mut self, act: Act, script: &Script) -> TestCaseResult {
        match act {
            Act::PollFirst => self.connections[0].poll(script)?,
            Act::PollSecond => {
                self.connections.get_mut(1).map_or(Ok(()), |second| second.poll(script))?;
            }
            Act::PollCaller => self.poll_caller(),
            Act::Resume => self.request_body.resume(),
            Act::Reject => self.connections[0].answer(StatusCode::UNAUTHORIZED),
            Act::Yield => tokio::task::yield_now().await,
            Act::MoveToTask => self.connections[0].move_to_task(),
            Act::Break => {
                self.connections[0].body = None;
                self.first_broke = true;
            }
        }
        Ok(())
    }

    /// Lets all parties act until none of them can continue.
    async fn settle(&mut self, script: &Script) -> TestCaseResult {
        let mut idle = 0;
        while idle < 5 {
            idle += 1;
            tokio::task::yield_now().await;
            self.request_body.resume();
            self.connections[0].answer(StatusCode::UNAUTHORIZED);
            if self.status.is_none() && self.caller.is_woken() {
                self.poll_caller();
                idle = 0;
            }
            for connection in self.connections.iter_mut().filter(|connection| connection.is_due()) {
                connection.poll(script)?;
                idle = 0;
            }
            if let Some(second) = self.connections.get_mut(1).filter(|second| second.body.is_none())
            {
                second.answer(StatusCode::OK);
            }
        }
        Ok(())
    }

    fn poll_caller(&mut self) {
        if self.status.is_none()
            && let Poll::Ready(status) = self.caller.poll()
        {
            self.status = Some(status);
        }
        self.connections.extend(lock(&self.arrivals).drain(..));
        if self.connections.len() > 1 && self.first_at_retry.is_none() {
            self.first_at_retry = Some(self.connections[0].received.clone());
        }
    }
}

fn server<B>(
    arrivals: &Arrivals<B>,
) -> impl Service<Request<B>, Response = Response<String>, Error = Infallible, Future: 'static>
+ Clone
+ 'static
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    let arrivals = Arc::clone(arrivals);
    service_fn(move |request: Request<B>| {
        let (answer, answered) = oneshot::channel();
        lock(&arrivals).push_back(Connection::new(request.into_body(), answer));
        async move {
            Ok(Response::builder().status(answered.await.unwrap()).body(String::new()).unwrap())
        }
    })
}
