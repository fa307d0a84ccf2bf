//! Requests a token, and prints its type or the error:
//!
//! ```text
//! token_request TOKEN-URL CLIENT-ID CLIENT-SECRET [CA-FILE]
//! ```

use std::{env, error::Error, fs};

use tower_oauth::{ClientAuth, TokenEndpoint, TokenRequest};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "installed")]
    rustls::crypto::ring::default_provider().install_default().expect("it is the first one");

    let arguments: Vec<_> = env::args().skip(1).collect();
    let [url, id, secret, ca_file @ ..] = &*arguments else { return Err("see main.rs".into()) };
    let auth = ClientAuth::client_secret_basic(id, secret.as_str());
    let endpoint = match ca_file {
        [] => TokenEndpoint::new(url, auth),
        [file, ..] => TokenEndpoint::new_trusting(url, auth, fs::read(file)?),
    };
    match endpoint {
        Err(error) => println!("{error:?}"),
        Ok(endpoint) => match endpoint.send(TokenRequest::new("client_credentials")).await {
            Err(error) => println!("{error}"),
            Ok(response) => println!("{}", response.access_token().token_type()),
        },
    }
    Ok(())
}
