//! A server that answers 401 without reading the body and closes the connection.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Layer, ServiceExt};
use tower_oauth::{AccessToken, OAuthLayer, Origins, TokenCache, source_fn};

use crate::loopback::http1_client;

/// Sends uploads of `size` bytes one after the other. Returns the number of those for which the
/// client reported the broken connection and not the rejection.
async fn count_lost_rejections(uploads: usize, size: usize) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // Reads the head and a part of the body at most.
                if stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    let response = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(response).await.ok();
                }
            });
        }
    });
    let mut lost = 0;
    for _ in 0..uploads {
        let tokens = TokenCache::new(source_fn(|_| async { AccessToken::bearer("revoked") }));
        let generation = tokens.token().await.unwrap().generation();
        let oauth = OAuthLayer::new(tokens.clone(), Origins::new([&origin]).unwrap());
        let request = Request::post(&origin).body(Full::from(vec![b'x'; size])).unwrap();
        let upload = oauth.layer(http1_client()).oneshot(request);
        match tokio::time::timeout(Duration::from_secs(20), upload).await.expect("it ends") {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                let current = tokens.current().map(|token| token.generation());
                assert_ne!(current, Some(generation), "the rejected token is out of use");
            }
            Err(error) => {
                assert!(error.downcast_ref::<hyper_util::client::legacy::Error>().is_some());
                let current = tokens.current().map(|token| token.generation());
                assert_eq!(current, Some(generation), "the layer saw no rejection");
                lost += 1;
            }
        }
    }
    server.abort();
    lost
}

/// The number of lost rejections depends on the machine. `src/docs/replay.md` has measured ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_rejection_of_a_large_upload_is_seen_or_lost() {
    for megabytes in [4, 16] {
        let lost = count_lost_rejections(20, megabytes * 1024 * 1024).await;
        println!("{lost} of 20 rejections of uploads of {megabytes} MiB were lost");
    }
}

#[tokio::test]
async fn early_rejection_of_a_small_upload_is_seen() {
    assert_eq!(count_lost_rejections(20, 1024).await, 0);
}
