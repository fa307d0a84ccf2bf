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

/// Returns the default.
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
            *request.body_mut() = Some(Body::wrap(BufferBody::default().replay(stream)?));
        }
        Some(request)
    }

    fn keep_again(&self, request: Request) -> (Request, Option<KeptRequest>) {
        self.keep(request)
    }
}
