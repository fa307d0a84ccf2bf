//! For every body, every moment of the 401 and every order of polls: what the second server saw is the body, or there was none.

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
    AccessToken, OAuthLayer, Origins, TokenCache,
    replay::{BufferBody, Never, Replay},
};

use crate::support::{API, lock};

const CAP: usize = 1000;
const CASES: u32 = 3000;

#[test]
fn what_the_second_server_saw_is_the_body_or_it_was_not_asked() {
    let tally = Mutex::new(Tally::default());
    check(&BufferBody::with_cap(CAP), |script, outcome| {
        lock(&tally).count(script, &outcome);
        outcome.is_faithful(script)?;
        let known = script.known_size().unwrap_or_default();
        if script.fits() {
            prop_assert!(outcome.second.is_some(), "it could have been sent again");
        }
        if known > CAP || outcome.first_at_takeover.data.len() > CAP || outcome.first_at_takeover.failed {
            prop_assert!(outcome.second.is_none());
        }
        Ok(())
    });
    lock(&tally).has_seen_all();
}

#[test]
fn without_a_retry_the_body_is_sent_to_its_end() {
    check(&Never, |script, outcome| {
        outcome.is_faithful(script)?;
        prop_assert!(outcome.second.is_none());
        Ok(())
    });
}

fn check<R>(replay: &R, property: impl Fn(&Script, Outcome) -> TestCaseResult)
where
    R: Replay<Source, Body: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static> + Clone + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&script(), |script| {
        let outcome =
            runtime.block_on(async { World::new(&script, replay.clone()).await.play(&script).await });
        property(&script, outcome?)
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

/// A body, and in which order those who have to do with it come to act.
#[derive(Clone, Debug)]
struct Script {
    items: Vec<Item>,
    says: Says,
    acts: Vec<Act>,
}

/// What a body says of itself.
#[derive(Clone, Copy, Debug)]
struct Says {
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
    /// The connection reads the body of the first request.
    First,
    /// The connection reads the body of the retry.
    Second,
    Caller,
    /// The body goes on after a pause.
    Resume,
    Refuse,
    /// The token endpoint answers, or whoever else is not of this play.
    Fetch,
    /// The first connection goes on in another task.
    Move,
    /// The first connection breaks.
    Break,
}

fn script() -> impl Strategy<Value = Script> {
    let size = prop_oneof![4 => 0..64_usize, 4 => 0..400_usize, 1 => Just(CAP), 1 => CAP - 2..CAP + 3];
    let piece = prop_oneof![3 => size.prop_map(Some), 2 => Just(None)];
    let trailers = (1..3_usize).prop_map(|number| Some(Item::Trailers(number)));
    let last = prop_oneof![4 => Just(None), 2 => trailers, 1 => Just(Some(Item::Error))];
    let often = [Act::First, Act::Second, Act::Caller];
    let act = select([often, often, [Act::Resume, Act::Refuse, Act::Fetch]].concat());
    let act = prop_oneof![40 => act, 3 => Just(Act::Move), 1 => Just(Act::Break)];
    (vec(piece, 0..10), last, any::<(bool, bool)>(), vec(act, 0..60)).prop_map(
        |(pieces, last, (size, end), acts)| {
            let mut numbers = (0..=u8::MAX).cycle();
            let piece = |size: Option<usize>| match size {
                Some(size) => Item::Data(numbers.by_ref().take(size).collect()),
                None => Item::Pause,
            };
            let items = pieces.into_iter().map(piece).collect::<Vec<_>>();
            Script { items: items.into_iter().chain(last).collect(), says: Says { size, end }, acts }
        },
    )
}

impl Script {
    fn known_size(&self) -> Option<usize> {
        self.says.size.then(|| data_len(&self.items))
    }

    /// What a server sees that sees it all.
    fn whole(&self) -> Seen {
        let mut seen = Seen::default();
        for item in &self.items {
            match item {
                Item::Data(data) => seen.data.extend_from_slice(data),
                Item::Trailers(number) => seen.trailers = Some(trailers(*number)),
                Item::Pause => {}
                Item::Error => seen.failed = true,
            }
        }
        seen.ended = !seen.failed;
        seen
    }

    /// Small enough under any account of what a frame costs, and free of errors.
    fn fits(&self) -> bool {
        let costs = |item: &Item| match item {
            Item::Trailers(number) => 128 + 160 * number,
            Item::Pause => 0,
            _ => 128,
        };
        !self.whole().failed && data_len(&self.items) + self.items.iter().map(costs).sum::<usize>() <= CAP
    }
}

fn data_len<'a>(items: impl IntoIterator<Item = &'a Item>) -> usize {
    items.into_iter().map(|item| if let Item::Data(data) = item { data.len() } else { 0 }).sum()
}

fn trailers(number: usize) -> HeaderMap {
    let name = |n| http::HeaderName::try_from(format!("trailer-{n}")).unwrap();
    (0..number).map(|n| (name(n), HeaderValue::from(n))).collect()
}

/// The body as its maker wrote it. It does not bear to be polled after its end.
#[derive(Clone)]
struct Source(Arc<Mutex<Sourcing>>);

struct Sourcing {
    items: VecDeque<Item>,
    says: Says,
    is_paused: bool,
    is_over: bool,
    waker: Option<Waker>,
}

impl Source {
    fn new(script: &Script) -> Self {
        Self(Arc::new(Mutex::new(Sourcing {
            items: script.items.iter().cloned().collect(),
            says: script.says,
            is_paused: false,
            is_over: false,
            waker: None,
        })))
    }

    fn resume(&self) {
        let mut source = lock(&self.0);
        source.is_paused = false;
        if let Some(waker) = source.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the source is broken")
    }
}

impl std::error::Error for Broken {}

impl Body for Source {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut source = lock(&self.0);
        if !source.is_paused {
            assert!(!source.is_over, "polled after its end");
            match source.items.pop_front() {
                Some(Item::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Item::Trailers(number)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(number)))));
                }
                Some(Item::Pause) => source.is_paused = true,
                Some(Item::Error) => {
                    source.is_over = true;
                    return Poll::Ready(Some(Err(Broken)));
                }
                None => {
                    source.is_over = true;
                    return Poll::Ready(None);
                }
            }
        }
        source.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let source = lock(&self.0);
        source.says.end && source.items.is_empty() && !source.is_paused
    }

    fn size_hint(&self) -> SizeHint {
        let source = lock(&self.0);
        if source.says.size {
            SizeHint::with_exact(data_len(&source.items) as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// What a server saw of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// By the source's own error.
    failed: bool,
}

/// A connection that carries a request, and the server at its other end.
struct Connection<B> {
    body: Option<Spawn<B>>,
    answer: Option<oneshot::Sender<StatusCode>>,
    seen: Seen,
    is_new: bool,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Connection<B> {
    fn new(body: B, answer: oneshot::Sender<StatusCode>) -> Self {
        let body = Some(spawn(body));
        Self { body, answer: Some(answer), seen: Seen::default(), is_new: true }
    }

    fn is_due(&self) -> bool {
        self.body.as_ref().is_some_and(|body| self.is_new || body.is_woken())
    }

    /// Reads one frame. Stops at the end and at errors, as all who read bodies do.
    fn poll(&mut self, script: &Script) -> TestCaseResult {
        let Some(body) = &mut self.body else { return Ok(()) };
        self.is_new = false;
        if body.is_end_stream() {
            self.seen.ended = true;
            self.body = None;
            return Ok(());
        }
        let left = script.whole().data.len() - self.seen.data.len();
        let hint = body.size_hint();
        prop_assert!(hint.lower() <= left as u64 && hint.upper().is_none_or(|upper| upper >= left as u64));
        let frame = body.enter(|cx, body| body.poll_frame(cx)).map_err(Into::into);
        let is_taken_over = matches!(&frame, Poll::Ready(Some(Err(error))) if !error.is::<Broken>());
        prop_assert!(!script.says.size || is_taken_over || hint.exact() == Some(left as u64));
        let Poll::Ready(frame) = frame else { return Ok(()) };
        // Whoever got a frame comes for the next one by himself.
        self.is_new = true;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.seen.data.extend_from_slice(&data),
                Err(frame) => {
                    prop_assert!(self.seen.trailers.is_none(), "trailers came twice");
                    self.seen.trailers = frame.into_trailers().ok();
                }
            },
            Some(Err(error)) => {
                self.seen.failed = error.is::<Broken>();
                self.body = None;
            }
            None => {
                self.seen.ended = true;
                self.body = None;
            }
        }
        Ok(())
    }

    fn move_on(&mut self) {
        self.body = self.body.take().map(|body| spawn(body.into_inner()));
        self.is_new = true;
    }

    fn answer(&mut self, status: StatusCode) {
        self.answer.take().map(|answer| answer.send(status));
    }
}

struct Outcome {
    first: Seen,
    first_broke: bool,
    /// What the first server had seen when the retry went out, or at the end.
    first_at_takeover: Seen,
    second: Option<Seen>,
    status: StatusCode,
}

impl Outcome {
    fn is_faithful(&self, script: &Script) -> TestCaseResult {
        let whole = script.whole();
        prop_assert!(whole.data.starts_with(&self.first.data));
        prop_assert!(!self.first.ended || self.first == whole, "a part looks like the whole");
        match &self.second {
            Some(second) => prop_assert_eq!(second, &whole),
            None => prop_assert!(self.first_broke || self.first == whole, "cut off without a retry"),
        }
        prop_assert_eq!(self.status.as_u16(), if self.second.is_some() { 200 } else { 401 });
        Ok(())
    }
}

/// How often each kind of case was played: a property that never met one says nothing about it.
#[derive(Debug, Default)]
struct Tally {
    retried_after_the_end: usize,
    retried_half_way: usize,
    retried_before_any: usize,
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
        let (at, whole) = (&outcome.first_at_takeover, script.whole());
        self.retried_after_the_end += usize::from(at.ended && !at.data.is_empty());
        self.retried_half_way += usize::from(!at.data.is_empty() && at.data.len() < whole.data.len());
        self.retried_before_any += usize::from(at.data.is_empty() && !whole.data.is_empty());
        self.failed_in_the_retry += usize::from(second.failed);
        self.with_trailers += usize::from(second.trailers.is_some());
        self.broken += usize::from(outcome.first_broke);
    }

    fn has_seen_all(&self) {
        let Self { retried_after_the_end, retried_half_way, retried_before_any, .. } = self;
        let Self { failed_in_the_retry, with_trailers, not_retried, broken, .. } = self;
        let all = [retried_after_the_end, retried_half_way, retried_before_any, failed_in_the_retry];
        let all = all.into_iter().chain([with_trailers, not_retried, broken]);
        assert!(all.min() > Some(&(CASES as usize / 100)), "{self:?}");
    }
}

type Arrivals<B> = Arc<Mutex<VecDeque<Connection<B>>>>;

/// A caller, the connections of its attempts, and the servers behind them.
struct World<B> {
    source: Source,
    caller: Spawn<Pin<Box<dyn Future<Output = StatusCode>>>>,
    status: Option<StatusCode>,
    arrivals: Arrivals<B>,
    connections: Vec<Connection<B>>,
    first_broke: bool,
    first_at_takeover: Option<Seen>,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static> World<B> {
    async fn new<R>(script: &Script, replay: R) -> Self
    where
        R: Replay<Source, Body = B> + Clone + 'static,
    {
        let (source, arrivals) = (Source::new(script), Arrivals::default());
        let mut numbers = 0..;
        let numbers = Mutex::new(move || numbers.next());
        let tokens = TokenCache::new(move || {
            let number = lock(&numbers)().unwrap();
            async move { AccessToken::bearer(format!("token-{number}")) }
        });
        tokens.token().await.unwrap();
        let oauth = OAuthLayer::new(tokens, Origins::new([API]).unwrap()).replay(replay);
        let client = oauth.layer(server(&arrivals));
        let request = Request::put(API).body(source.clone()).unwrap();
        let caller = async move { client.oneshot(request).await.unwrap().status() };
        let caller = spawn(Box::pin(caller) as Pin<Box<dyn Future<Output = _>>>);
        let mut world = Self {
            source,
            caller,
            status: None,
            arrivals,
            connections: Vec::new(),
            first_broke: false,
            first_at_takeover: None,
        };
        world.poll_caller();
        world
    }

    async fn play(mut self, script: &Script) -> Result<Outcome, TestCaseError> {
        for act in &script.acts {
            self.act(*act, script).await?;
        }
        self.settle(script).await?;
        prop_assert!(self.connections.iter().all(|connection| connection.body.is_none()), "held for ever");
        let mut connections = self.connections.into_iter().map(|connection| connection.seen);
        let first = connections.next().unwrap();
        let second = connections.next();
        prop_assert!(connections.next().is_none());
        prop_assert!(self.status.is_some(), "the caller waits for ever");
        let first_at_takeover = self.first_at_takeover.unwrap_or_else(|| first.clone());
        let (first_broke, status) = (self.first_broke, self.status.unwrap());
        Ok(Outcome { first, first_broke, first_at_takeover, second, status })
    }

    async fn act(&mut self, act: Act, script: &Script) -> TestCaseResult {
        match act {
            Act::First => self.connections[0].poll(script)?,
            Act::Second => self.connections.get_mut(1).map_or(Ok(()), |second| second.poll(script))?,
            Act::Caller => self.poll_caller(),
            Act::Resume => self.source.resume(),
            Act::Refuse => self.connections[0].answer(StatusCode::UNAUTHORIZED),
            Act::Fetch => tokio::task::yield_now().await,
            Act::Move => self.connections[0].move_on(),
            Act::Break => {
                self.connections[0].body = None;
                self.first_broke = true;
            }
        }
        Ok(())
    }

    /// Lets everybody act who has a reason to, until nobody has.
    async fn settle(&mut self, script: &Script) -> TestCaseResult {
        let mut idle = 0;
        while idle < 5 {
            idle += 1;
            tokio::task::yield_now().await;
            self.source.resume();
            self.connections[0].answer(StatusCode::UNAUTHORIZED);
            if self.status.is_none() && self.caller.is_woken() {
                self.poll_caller();
                idle = 0;
            }
            for connection in self.connections.iter_mut().filter(|connection| connection.is_due()) {
                connection.poll(script)?;
                idle = 0;
            }
            if let Some(second) = self.connections.get_mut(1).filter(|second| second.body.is_none()) {
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
        if self.connections.len() > 1 && self.first_at_takeover.is_none() {
            self.first_at_takeover = Some(self.connections[0].seen.clone());
        }
    }
}

fn server<B>(
    arrivals: &Arrivals<B>,
) -> impl Service<Request<B>, Response = Response<String>, Error = Infallible, Future: 'static> + Clone + 'static
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    let arrivals = Arc::clone(arrivals);
    service_fn(move |request: Request<B>| {
        let (answer, answered) = oneshot::channel();
        lock(&arrivals).push_back(Connection::new(request.into_body(), answer));
        async move { Ok(Response::builder().status(answered.await.unwrap()).body(String::new()).unwrap()) }
    })
}
