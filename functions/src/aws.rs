//! The little that is asked of AWS: a secret's text, and a signature that is a database password.
//!
//! Signed by the SDK's own `aws-sigv4` and sent over the HTTP client that the runtime already links: the whole SDK would add
//! several times a function's size to each of them for this one call.

mod credentials;
mod http;
mod rds;
mod secret;

pub(crate) use rds::token as rds_token;
pub(crate) use secret::Secret;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableRequest, SigningInstructions, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use std::time::{Duration, SystemTime};

/// How long one call may take, until its answer is there.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// Why AWS did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says which region, or the signature cannot be made.
    #[error("{0}")]
    Setup(String),
    /// Nobody could be asked, or the answer did not come whole.
    #[error("{0} is out of reach: {1}")]
    Away(String, String),
    /// It was asked and said no.
    #[error("{0} answered {1}: {2}")]
    Refused(String, u16, String),
}

impl Error {
    #[allow(clippy::needless_pass_by_value, reason = "an error ends here")]
    fn away(who: &str, cause: impl std::fmt::Display) -> Self {
        Self::Away(who.to_owned(), cause.to_string())
    }
}

/// Puts a text to an address that was signed for this by somebody else.
pub(crate) async fn put(url: &str, text: String) -> Result<(), Error> {
    // An empty type is part of what CloudFormation signed.
    let request = hyper::Request::put(url).header("content-type", "").header("content-length", text.len());
    let request = request.body(text.into()).map_err(|error| Error::Setup(error.to_string()))?;
    http::send("the address to answer to", request).await?;
    Ok(())
}

/// A setting of AWS's own, as its SDKs read it.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn region() -> Result<String, Error> {
    setting("AWS_REGION")
        .or_else(|| setting("AWS_DEFAULT_REGION"))
        .ok_or_else(|| Error::Setup("AWS_REGION is not set".to_owned()))
}

/// Who signs what for whom, and when.
struct Signer<'a> {
    service: &'a str,
    region: &'a str,
    credentials: Credentials,
    at: SystemTime,
}

impl Signer<'_> {
    /// What to add to a request so that it is signed.
    fn sign(
        &self,
        request: SignableRequest<'_>,
        settings: SigningSettings,
    ) -> Result<SigningInstructions, Error> {
        let unsigned = |cause: &dyn std::fmt::Display| {
            Error::Setup(format!("a request to {} cannot be signed: {cause}", self.service))
        };
        let identity = self.credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.at)
            .settings(settings)
            .build()
            .map_err(|error| unsigned(&error))?;
        let signed = sign(request, &parameters.into()).map_err(|error| unsigned(&error))?;
        Ok(signed.into_parts().0)
    }
}
