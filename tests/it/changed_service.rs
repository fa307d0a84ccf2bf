//! A retry goes to a service like the one that was called.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use tower::{Layer, Service, ServiceExt};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache};

/// Refuses each request, and writes down its own name.
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
async fn a_service_that_was_changed_makes_both_attempts_as_do_its_clones() {
    let calls = Arc::<Mutex<Vec<_>>>::default();
    let service = || {
        let tokens = TokenCache::new(|| async { AccessToken::bearer(fastrand::u64(..).to_string()) });
        let oauth = OAuthLayer::new(tokens, Origins::of_inner_service());
        oauth.layer(Named { name: "before", calls: Arc::clone(&calls) })
    };
    let taken = || std::mem::take(&mut *calls.lock().unwrap());

    service().oneshot(Request::new(())).await.unwrap();
    assert_eq!(taken(), ["before"; 2]);

    let changed = || {
        let mut service = service();
        service.get_mut().name = "after";
        service
    };
    changed().oneshot(Request::new(())).await.unwrap();
    assert_eq!(taken(), ["after"; 2]);
    #[allow(clippy::redundant_clone)] // it is the clone that is tested
    changed().clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(taken(), ["after"; 2]);
}
