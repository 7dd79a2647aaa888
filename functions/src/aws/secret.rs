//! A secret of AWS Secrets Manager, kept as long as it may be, and for longer while nobody can be asked.

use super::{Error, Signer, credentials, http, region, setting};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use hyper::Request;
use hyper::body::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const SERVICE: &str = "secretsmanager";

/// A secret by its name or ARN. It is read when it is first needed.
pub(crate) struct Secret {
    name: String,
    /// Held while it is read, so that all who need it at once ask once.
    kept: Mutex<Option<(Arc<str>, Instant)>>,
}

impl Secret {
    /// The secret of this name or ARN.
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), kept: Mutex::default() }
    }

    /// Its text, read no longer ago than this. While it cannot be read, the text that is known.
    pub(crate) async fn text(&self, max_age: Duration) -> Result<Arc<str>, Error> {
        let mut kept = self.kept.lock().await;
        if let Some((text, read_at)) = &*kept
            && read_at.elapsed() <= max_age
        {
            return Ok(text.clone());
        }
        match (read(&self.name).await, &mut *kept) {
            (Ok(text), kept) => {
                *kept = Some((text.clone(), Instant::now()));
                Ok(text)
            }
            (Err(error), Some((text, read_at))) => {
                tracing::warn!(secret = self.name, cause = %error, "the secret as it was last read is used on");
                // Not asked for again at once: whoever needs it must not wait for an outage each time.
                *read_at = Instant::now();
                Ok(text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

async fn read(name: &str) -> Result<Arc<str>, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        secret_string: Option<String>,
    }
    // An ARN says where it lies: arn:aws:secretsmanager:REGION:…
    let region = match name.split(':').nth(3).filter(|_| name.starts_with("arn:")) {
        Some(region) => region.to_owned(),
        None => region()?,
    };
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = setting("AWS_ENDPOINT_URL_SECRETS_MANAGER").or_else(|| setting("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://{SERVICE}.{region}.{suffix}"));
    let url = format!("{}/", endpoint.trim_end_matches('/'));
    let bad = |error: &dyn std::fmt::Display| Error::Setup(format!("{url} cannot be asked: {error}"));

    let body = serde_json::json!({ "SecretId": name }).to_string();
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
    let signable =
        SignableRequest::new("POST", url.clone(), headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
            .map_err(|error| bad(&error))?;
    let credentials = credentials::current().await?;
    let signer = Signer { service: SERVICE, region: &region, credentials, at: crate::wall_clock() };
    let signed = signer.sign(signable, SigningSettings::default())?;
    let mut request = Request::post(&url);
    for (name, value) in headers.into_iter().chain(signed.headers()) {
        request = request.header(name, value);
    }
    let request = request.body(Bytes::from(body)).map_err(|error| bad(&error))?;
    let answer = http::send("Secrets Manager", request).await?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|error| Error::away("Secrets Manager", error))?;
    answer.secret_string.map(Arc::from).ok_or_else(|| Error::Setup(format!("{name} holds bytes, not text")))
}
