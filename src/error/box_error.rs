/// A boxed error of any type, as the layer returns it: the same type as `tower::BoxError`.
///
/// If a token could not be obtained, it contains a [`TokenError`](crate::TokenError).
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
