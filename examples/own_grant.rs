//! A grant that this crate does not have: the refresh token grant (RFC 6749 §6), here with a server
//! that replaces the refresh token each time.
//!
//! ```text
//! cargo run --example own_grant
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::service_fn;
use tower_oauth::{
    AccessToken, BoxError, ClientAuth, FetchContext, TokenCache, TokenEndpoint, TokenError,
    TokenRequest, TokenSource,
};

struct RefreshTokenGrant {
    endpoint: TokenEndpoint,
    /// A real program also stores it outside of the process, as the previous one no longer works.
    refresh_token: Mutex<String>,
}

impl TokenSource for RefreshTokenGrant {
    async fn fetch(&self, context: FetchContext) -> Result<AccessToken, TokenError> {
        println!("refresh, reason: {}", context.reason().as_str());
        let refresh_token = self.lock().clone();
        // The endpoint adds the client authentication. An error shows no secret parameter.
        let request =
            TokenRequest::new("refresh_token").secret_parameter("refresh_token", refresh_token);
        let response = self.endpoint.send(request).await?;
        if let Some(replacement) = response.refresh_token() {
            *self.lock() = replacement.into();
        }
        Ok(response.into_access_token())
    }
}

impl RefreshTokenGrant {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.refresh_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Simulates an authorization server: accepts `refresh-1`, then `refresh-2`, and so on.
async fn authorization_server(
    request: Request<Full<Bytes>>,
    next: &Mutex<u32>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let form = request.into_body().collect().await?.to_bytes();
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = ("refresh_token".into(), format!("refresh-{next}").into());
    if !form_urlencoded::parse(&form).any(|parameter| parameter == expected) {
        let body = json!({ "error": "invalid_grant" }).to_string();
        return Ok(Response::builder().status(StatusCode::BAD_REQUEST).body(body.into())?);
    }
    *next += 1;
    let (access, refresh) = (format!("access-{next}"), format!("refresh-{next}"));
    let body = json!({ "access_token": access, "expires_in": 3600, "refresh_token": refresh });
    Ok(Response::new(body.to_string().into()))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    static NEXT: Mutex<u32> = Mutex::new(1);
    // `TokenEndpoint::new` sends the requests over the network instead.
    let transport = service_fn(|request| authorization_server(request, &NEXT));
    let auth = ClientAuth::client_secret_basic("my-client", "my-secret");
    let endpoint = TokenEndpoint::with_transport("https://auth.example.com", auth, transport)?;
    let grant = RefreshTokenGrant { endpoint, refresh_token: Mutex::new("refresh-1".to_owned()) };

    let tokens = TokenCache::new(grant);
    let first = tokens.token().await?;
    tokens.invalidate(first.generation());
    let second = tokens.token().await?;
    println!("token {} was replaced by token {}", first.generation(), second.generation());
    Ok(())
}
