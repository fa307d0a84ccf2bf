use bytes::{Buf, BufMut, Bytes};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// A copy of the head of a request, together with what a [`Replay`](crate::replay::Replay) keeps of
/// its body.
pub(crate) struct SavedRequest<K> {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    headers: SavedHeaders,
    body: K,
}

impl<K> SavedRequest<K> {
    pub(crate) fn new<B>(request: &Request<B>, body: K) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            headers: SavedHeaders::new(request.headers()),
            body,
        }
    }

    pub(crate) fn body(&self) -> &K {
        &self.body
    }

    /// Returns the request once more, with the body that `replay` returns.
    ///
    /// Returns `None` if `replay` does, or if a header value has bytes that HTTP does not allow.
    /// Only `HeaderValue::from_maybe_shared_unchecked` can create such a value.
    pub(crate) fn restore<B>(self, replay: impl FnOnce(K) -> Option<B>) -> Option<Request<B>> {
        let headers = self.headers.restore()?;
        let mut request = Request::new(replay(self.body)?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// The fields of a [`HeaderMap`], written one after another into one piece of memory. Each field is
/// the length of the name, the length of the value, the `is_sensitive` flag, the name, the value.
///
/// This takes one allocation, where a clone of the map takes one allocation or one atomic increment
/// for each value and for many names. The fields are parsed only for a retry, which is rare.
struct SavedHeaders {
    bytes: Vec<u8>,
    name_count: usize,
}

/// The size of two lengths and a flag.
const PREFIX: usize = 2 * size_of::<u64>() + 1;

impl SavedHeaders {
    fn new(headers: &HeaderMap) -> Self {
        let fields = headers.iter();
        let size = fields.map(|(name, value)| PREFIX + name.as_str().len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(size);
        for (name, value) in headers {
            bytes.put_u64(name.as_str().len() as u64);
            bytes.put_u64(value.len() as u64);
            bytes.put_u8(value.is_sensitive().into());
            bytes.put_slice(name.as_str().as_bytes());
            bytes.put_slice(value.as_bytes());
        }
        Self { bytes, name_count: headers.keys_len() }
    }

    /// Returns the headers in a map that has room for one more name, `Authorization`.
    fn restore(self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::try_with_capacity(self.name_count + 1).ok()?;
        let mut bytes = Bytes::from(self.bytes);
        while bytes.has_remaining() {
            let name_len = usize::try_from(bytes.get_u64()).ok()?;
            let value_len = usize::try_from(bytes.get_u64()).ok()?;
            let is_sensitive = bytes.get_u8() != 0;
            let name = HeaderName::from_bytes(&bytes.split_to(name_len)).ok()?;
            let mut value = HeaderValue::from_maybe_shared(bytes.split_to(value_len)).ok()?;
            value.set_sensitive(is_sensitive);
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, COOKIE};
    use proptest::prelude::*;

    use super::*;

    fn restored(request: &Request<()>) -> Request<&'static str> {
        SavedRequest::new(request, "body").restore(Some).unwrap()
    }

    fn fields(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue, bool)> {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.clone(), value.clone(), value.is_sensitive())
        };
        headers.iter().map(field).collect()
    }

    #[test]
    fn request_head_is_restored_unchanged() {
        let mut request = Request::builder()
            .method("PURGE")
            .uri("https://user@api.test:8443/a?b=c")
            .version(Version::HTTP_2)
            .extension(7_u8)
            .body(())
            .unwrap();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        let restored = restored(&request);
        assert_eq!(restored.method(), "PURGE");
        assert_eq!(restored.uri(), "https://user@api.test:8443/a?b=c");
        assert_eq!(restored.version(), Version::HTTP_2);
        assert_eq!(restored.extensions().get(), Some(&7_u8));
        assert_eq!(fields(restored.headers()), fields(request.headers()));
        assert_eq!(*restored.body(), "body");
    }

    #[test]
    fn request_is_not_restored_without_its_body() {
        let saved = SavedRequest::new(&Request::new(()), ());
        assert!(saved.restore(|()| None::<()>).is_none());
    }

    #[test]
    fn repeated_header_names_need_capacity_for_one_name() {
        let mut request = Request::new(());
        for _ in 0..30_000 {
            request.headers_mut().append(COOKIE, HeaderValue::from_static("a=b"));
        }
        let restored = SavedRequest::new(&request, "body").restore(Some).unwrap();
        assert_eq!(restored.headers().len(), 30_000);
    }

    #[test]
    fn restored_headers_have_room_for_one_more_name() {
        let mut request = Request::new(());
        for count in 1..100 {
            let name = HeaderName::try_from(format!("x-{count}")).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_static("a"));
            assert!(restored(&request).headers().capacity() > count, "{count}");
        }
    }

    fn header_name() -> impl Strategy<Value = HeaderName> {
        let any_name =
            "[a-z0-9!#$%&'*+.^_`|~-]{1,80}".prop_map(|name| HeaderName::try_from(name).unwrap());
        prop_oneof![Just(COOKIE), Just(ACCEPT), any_name]
    }

    fn header_value() -> impl Strategy<Value = HeaderValue> {
        let byte = any::<u8>().prop_filter("not allowed in a header value", |byte| {
            *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
        });
        (prop::collection::vec(byte, 0..300), any::<bool>()).prop_map(|(bytes, is_sensitive)| {
            let mut value = HeaderValue::from_bytes(&bytes).unwrap();
            value.set_sensitive(is_sensitive);
            value
        })
    }

    proptest! {
        #[test]
        fn header_order_repetition_and_sensitivity_are_restored(
            given in prop::collection::vec((header_name(), header_value()), 0..20),
        ) {
            let mut request = Request::new(());
            for (name, value) in given {
                request.headers_mut().append(name, value);
            }
            prop_assert_eq!(fields(restored(&request).headers()), fields(request.headers()));
        }
    }
}
