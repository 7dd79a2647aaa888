//! One plain look at a controller: what answers there, and what time it has.

use super::Client;
use super::answer::Failure;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::DATE;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an open page answered.
pub(crate) struct Probed {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// What the other side's clock said, in whole seconds.
    pub(crate) date: Option<Timestamp>,
}

impl Client {
    /// Gets a page once, without the token; else why not.
    pub(crate) async fn probe(&self, path: &str) -> Result<Probed, String> {
        let request = self.inner.http.get(format!("{}{path}", self.inner.base)).timeout(PATIENCE);
        let cause = |error: reqwest::Error| match Failure::transport(&error) {
            Failure::Passing { cause, .. } => cause,
            Failure::Final(error) => error.to_string(),
        };
        let answer = request.send().await.map_err(cause)?;
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(cause)?.to_vec();
        Ok(Probed { status, body, date })
    }
}
