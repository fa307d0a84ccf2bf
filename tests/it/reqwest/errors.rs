use std::{error::Error, io};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tower_oauth::{
    BoxError, OAuthLayer, Origins, TokenCache, TokenError, TokenErrorKind, replay::NoReplay,
    source_fn,
};

use super::{client, layer};
use crate::loopback::serve;

#[tokio::test]
async fn missing_token_is_a_token_error() {
    let tokens = TokenCache::new(source_fn(|_| async {
        Err(TokenError::new(TokenErrorKind::Rejected, "unknown client"))
    }));
    let origins = Origins::new(["http://api.test"]).unwrap();
    let client = client(OAuthLayer::new(tokens, origins));
    let error = client.send(client.get_ref().get("http://api.test/")).await.unwrap_err();
    assert_eq!(error.to_string(), "the request was not sent, because there is no access token");
    assert_eq!(error.token_error().unwrap().kind(), TokenErrorKind::Rejected);
    assert!(error.source().unwrap().is::<TokenError>());
    assert!(error.reqwest_error().is_none());
}

#[tokio::test]
async fn refused_connection_is_an_error_of_reqwest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(layer(address));
    let error = client.send(client.get_ref().get(format!("http://{address}/"))).await.unwrap_err();
    assert_eq!(error.to_string(), "the request failed");
    assert!(error.reqwest_error().unwrap().is_connect(), "{error:?}");
    assert!(error.source().unwrap().is::<reqwest::Error>());
    assert!(error.token_error().is_none());
}

#[tokio::test]
async fn unusable_url_gets_the_error_of_reqwest() {
    let client = client(layer(([127, 0, 0, 1], 1).into()));
    let too_long = format!("http://127.0.0.1:1/{}", "x".repeat(70_000));
    for url in ["ftp://127.0.0.1:1/", "mailto:a@b", "data:text/plain,a", "file:///a", &too_long] {
        let request = || reqwest::Request::new(Method::GET, url.parse().unwrap());
        let expected = client.get_ref().execute(request()).await.unwrap_err();
        let error = client.execute(request()).await.unwrap_err();
        let error = error.reqwest_error().unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(format!("{error:?}"), format!("{expected:?}"));
    }
}

#[tokio::test]
async fn error_of_a_request_builder_is_returned() {
    let client = client(layer(([127, 0, 0, 1], 1).into()));
    let error = client.send(client.get_ref().get("no URL")).await.unwrap_err();
    assert!(error.reqwest_error().unwrap().is_builder(), "{error:?}");
}

#[tokio::test]
async fn error_of_a_stream_stays_the_error_of_the_caller() {
    let api = serve(|request| async move {
        request.into_body().collect().await.ok();
        Response::new(Full::<Bytes>::default())
    })
    .await;
    for client in [client(layer(api)), client(layer(api).with_replay(NoReplay))] {
        let chunks = [Ok(Bytes::from("chunk")), Err(io::Error::other("the disk is gone"))];
        let body = reqwest::Body::wrap_stream(tokio_stream::iter(chunks));
        let request = client.get_ref().put(format!("http://{api}/")).body(body);
        let error: BoxError = client.send(request).await.unwrap_err().into();
        let mut cause = Some(&*error as &(dyn Error + 'static));
        let io_error = std::iter::from_fn(|| {
            let current = cause?;
            cause = current.source();
            Some(current)
        })
        .find_map(|error| {
            error.downcast_ref::<io::Error>().filter(|e| e.to_string().contains("disk"))
        });
        assert!(io_error.is_some(), "{error:?}");
    }
}
