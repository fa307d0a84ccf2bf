use reqwest::{Body, Request};

use super::{
    buffer_body::BufferBody, clone_body::CloneBody, no_replay::NoReplay, recorded_body::SavedBody,
    replay_trait::Replay,
};

/// A [`Replay`] for the requests of reqwest.
///
/// [`OAuthClient`](crate::reqwest::OAuthClient) makes it from the [`Replay`] of its layer:
///
/// | [`Replay`] of the layer | a body in memory | a stream |
/// | --- | --- | --- |
/// | [`CloneBody`] (default) | kept, whatever its size | recorded up to [`BufferBody::DEFAULT_CAP`] |
/// | [`BufferBody`] | kept, whatever its size | recorded up to its cap |
/// | [`NoReplay`] | not kept | not kept |
///
/// A body in memory is `Bytes`, `Vec<u8>` or `String`, or was made by `json` or `form`. It shares
/// its memory with the copy. All other bodies are streams, multipart forms included. The caveats of
/// [`BufferBody`] apply to them.
#[derive(Clone, Copy, Debug)]
pub struct ReqwestBody {
    /// `None` if nothing is kept.
    streams: Option<BufferBody>,
}

/// Records streams up to [`BufferBody::DEFAULT_CAP`].
impl Default for ReqwestBody {
    fn default() -> Self {
        BufferBody::default().into()
    }
}

/// Records streams up to [`BufferBody::DEFAULT_CAP`], because they cannot be cloned.
impl From<CloneBody> for ReqwestBody {
    fn from(_: CloneBody) -> Self {
        Self::default()
    }
}

impl From<BufferBody> for ReqwestBody {
    fn from(streams: BufferBody) -> Self {
        Self { streams: Some(streams) }
    }
}

impl From<NoReplay> for ReqwestBody {
    fn from(_: NoReplay) -> Self {
        Self { streams: None }
    }
}

/// A request that is kept for a retry.
#[derive(Debug)]
pub struct KeptRequest {
    /// Without its body if that is a stream.
    request: Request,
    stream: Option<SavedBody<Body>>,
}

impl Replay<Request> for ReqwestBody {
    type Body = Request;
    #[doc(hidden)]
    type Kept = KeptRequest;

    fn pass(&self, request: Request) -> Request {
        request
    }

    fn keep(&self, mut request: Request) -> (Request, Option<KeptRequest>) {
        let Some(buffer) = self.streams else { return (request, None) };
        if let Some(copy) = request.try_clone() {
            return (request, Some(KeptRequest { request: copy, stream: None }));
        }
        let (body, stream) = buffer.keep(request.body_mut().take().unwrap_or_default());
        let copy = stream.is_some().then(|| request.try_clone()).flatten();
        *request.body_mut() = Some(Body::wrap(body));
        (request, copy.map(|copy| KeptRequest { request: copy, stream }))
    }

    fn can_replay(&self, kept: &KeptRequest) -> bool {
        kept.stream.as_ref().is_none_or(SavedBody::can_replay)
    }

    fn replay(&self, kept: KeptRequest) -> Option<Request> {
        let KeptRequest { mut request, stream } = kept;
        if let Some(stream) = stream {
            // The cap has no effect on a replay.
            *request.body_mut() = Some(Body::wrap(BufferBody::default().replay(stream)?));
        }
        Some(request)
    }

    fn keep_again(&self, request: Request) -> (Request, Option<KeptRequest>) {
        self.keep(request)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio_test::{assert_ready, task};

    use super::*;
    use crate::error::BoxError;

    fn request(body: Body) -> Request {
        let mut request = Request::new(http::Method::PUT, "http://api.test/#a".parse().unwrap());
        *request.body_mut() = Some(body);
        request
    }

    fn stream() -> Body {
        let frame = Frame::data(Bytes::from_static(b"12345"));
        Body::wrap(StreamBody::new(tokio_stream::once(Ok::<_, BoxError>(frame))))
    }

    fn content(mut request: Request) -> Bytes {
        assert_eq!(request.url().as_str(), "http://api.test/#a");
        let body = request.body_mut().take().unwrap();
        assert_ready!(task::spawn(body.collect()).poll()).unwrap().to_bytes()
    }

    #[test]
    fn each_attempt_sends_the_whole_body() {
        for body in [stream, || Body::from("12345")] {
            let replay = ReqwestBody::default();
            let (first, kept) = replay.keep(request(body()));
            assert_eq!(content(first), "12345");
            let retry = replay.replay(kept.unwrap()).unwrap();
            let (retry, kept) = replay.keep_again(retry);
            assert_eq!(content(retry), "12345");
            let kept = kept.unwrap();
            assert!(replay.can_replay(&kept));
            assert_eq!(content(replay.replay(kept).unwrap()), "12345");
        }
    }

    #[test]
    fn cap_applies_to_streams_only() {
        for (body, can_replay) in [(stream(), false), (Body::from("12345"), true)] {
            let replay = ReqwestBody::from(BufferBody::with_cap(4));
            let (first, kept) = replay.keep(request(body));
            assert_eq!(content(first), "12345");
            let kept = kept.unwrap();
            assert_eq!(replay.can_replay(&kept), can_replay);
            assert_eq!(replay.replay(kept).map(content), can_replay.then(|| "12345".into()));
        }
    }

    #[test]
    fn nothing_is_kept_without_replay() {
        for body in [stream(), Body::from("12345"), Body::default()] {
            assert!(ReqwestBody::from(NoReplay).keep(request(body)).1.is_none());
        }
    }

    #[test]
    fn request_without_a_body_is_kept_without_one() {
        let replay = ReqwestBody::default();
        let request = Request::new(http::Method::GET, "http://api.test/".parse().unwrap());
        let (sent, kept) = replay.keep(request);
        assert!(sent.body().is_none());
        assert!(replay.replay(kept.unwrap()).unwrap().body().is_none());
    }
}
