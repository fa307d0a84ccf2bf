//! What is kept of a request for one more attempt: a copy of its head, and what the [`Replay`](super::Replay) keeps of its
//! body.

use bytes::{Buf, BufMut, Bytes};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

pub(crate) struct KeptRequest<K> {
    method: Method,
    uri: Uri,
    version: Version,
    extensions: Extensions,
    fields: Fields,
    body: K,
}

impl<K> KeptRequest<K> {
    /// Of the head of this request, and of its `body`.
    pub(crate) fn of<B>(request: &Request<B>, body: K) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            fields: Fields::of(request.headers()),
            body,
        }
    }

    pub(crate) fn body(&self) -> &K {
        &self.body
    }

    /// The request once more. `None`: its body, or a value that is no header value by the rules, cannot be had again.
    pub(crate) fn restore<B>(self, replay: impl FnOnce(K) -> Option<B>) -> Option<Request<B>> {
        let headers = self.fields.restore()?;
        let mut request = Request::new(replay(self.body)?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// The header fields, written one after another: name and value, each after its length, and whether the value is sensitive.
///
/// A clone of the map would take an allocation or an atomic counter for each value and many a name. This takes one allocation
/// in all. Names and values are read only when they are needed again, which is seldom.
struct Fields {
    text: Vec<u8>,
    names: usize,
}

/// Two lengths and a flag.
const PREFIX: usize = 2 * size_of::<u64>() + 1;

impl Fields {
    fn of(headers: &HeaderMap) -> Self {
        let size = headers.iter().map(|(name, value)| PREFIX + name.as_str().len() + value.len()).sum();
        let mut text = Vec::with_capacity(size);
        for (name, value) in headers {
            text.put_u64(name.as_str().len() as u64);
            text.put_u64(value.len() as u64);
            text.put_u8(value.is_sensitive().into());
            text.put_slice(name.as_str().as_bytes());
            text.put_slice(value.as_bytes());
        }
        Self { text, names: headers.keys_len() }
    }

    /// With room for one name more.
    fn restore(self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::try_with_capacity(self.names + 1).ok()?;
        let mut text = Bytes::from(self.text);
        while text.has_remaining() {
            let name = usize::try_from(text.get_u64()).ok()?;
            let value = usize::try_from(text.get_u64()).ok()?;
            let is_sensitive = text.get_u8() != 0;
            let name = HeaderName::from_bytes(&text.split_to(name)).ok()?;
            let mut value = HeaderValue::from_maybe_shared(text.split_to(value)).ok()?;
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
        KeptRequest::of(request, "body").restore(Some).unwrap()
    }

    fn fields(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue, bool)> {
        let field =
            |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone(), value.is_sensitive());
        headers.iter().map(field).collect()
    }

    #[test]
    fn the_head_comes_back_as_it_was() {
        let mut request = Request::builder()
            .method("PURGE")
            .uri("https://user@api.test:8443/a?b=c")
            .version(Version::HTTP_2)
            .extension(7_u8)
            .body(())
            .unwrap();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        let again = restored(&request);
        assert_eq!(again.method(), "PURGE");
        assert_eq!(again.uri(), "https://user@api.test:8443/a?b=c");
        assert_eq!(again.version(), Version::HTTP_2);
        assert_eq!(again.extensions().get(), Some(&7_u8));
        assert_eq!(fields(again.headers()), fields(request.headers()));
        assert_eq!(*again.body(), "body");
    }

    #[test]
    fn a_body_that_cannot_be_had_again_gives_no_request() {
        assert!(KeptRequest::of(&Request::new(()), ()).restore(|()| None::<()>).is_none());
    }

    #[test]
    fn fields_of_one_name_take_no_room_of_names() {
        let mut request = Request::new(());
        for _ in 0..30_000 {
            request.headers_mut().append(COOKIE, HeaderValue::from_static("a=b"));
        }
        let again = KeptRequest::of(&request, "body").restore(Some).unwrap();
        assert_eq!(again.headers().len(), 30_000);
    }

    fn name() -> impl Strategy<Value = HeaderName> {
        let any = "[a-z0-9!#$%&'*+.^_`|~-]{1,80}".prop_map(|name| HeaderName::try_from(name).unwrap());
        prop_oneof![Just(COOKIE), Just(ACCEPT), any]
    }

    fn value() -> impl Strategy<Value = HeaderValue> {
        let byte = any::<u8>()
            .prop_filter("no header value has it", |byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        (prop::collection::vec(byte, 0..300), any::<bool>()).prop_map(|(bytes, is_sensitive)| {
            let mut value = HeaderValue::from_bytes(&bytes).unwrap();
            value.set_sensitive(is_sensitive);
            value
        })
    }

    proptest! {
        #[test]
        fn header_fields_come_back_in_their_order_with_repetitions_and_what_is_sensitive(
            given in prop::collection::vec((name(), value()), 0..20),
        ) {
            let mut request = Request::new(());
            for (name, value) in given {
                request.headers_mut().append(name, value);
            }
            prop_assert_eq!(fields(restored(&request).headers()), fields(request.headers()));
        }
    }
}
