//! The retry uses the same inner service as the first attempt, also after `OAuth::get_mut`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, source_fn};

/// A service that rejects each request and records its own name.
#[derive(Clone)]
struct Named {
    name: &'static str,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Service<Request<()>> for Named {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.calls.lock().unwrap().push(self.name);
        let mut response = Response::default();
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        ready(Ok(response))
    }
}

#[tokio::test]
async fn changed_service_and_its_clones_make_both_attempts() {
    let calls = Arc::<Mutex<Vec<_>>>::default();
    let service = || {
        let source = source_fn(|_| async { AccessToken::bearer(fastrand::u64(..).to_string()) });
        let oauth = OAuthLayer::new(TokenCache::new(source), Origins::without_authority());
        oauth.layer(Named { name: "before", calls: Arc::clone(&calls) })
    };
    let take_calls = || std::mem::take(&mut *calls.lock().unwrap());

    service().oneshot(Request::new(())).await.unwrap();
    assert_eq!(take_calls(), ["before"; 2]);

    let changed = || {
        let mut service = service();
        service.get_mut().name = "after";
        service
    };
    changed().oneshot(Request::new(())).await.unwrap();
    assert_eq!(take_calls(), ["after"; 2]);
    #[allow(clippy::redundant_clone)] // the clone is what this test checks
    changed().clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(take_calls(), ["after"; 2]);
}
