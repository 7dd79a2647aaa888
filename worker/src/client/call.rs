//! One call: built, sent, sent again while that can help, and read.

use super::answer::{Failure, read};
use super::{Client, RetryPolicy};
use crate::error::with_causes;
use crate::{Backoff, Error, metrics};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// When a call that brought no answer is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Whatever happened.
    Always,
    /// If it surely did not take place.
    Unsent,
    /// Never: its caller does that.
    Never,
}

/// A call that is being built; [`Call::send`] makes it.
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<serde_json::Result<Vec<u8>>>,
    policy: RetryPolicy,
    again: Again,
}

impl Call {
    pub(super) fn new(client: Client, method: Method, path: String) -> Self {
        let policy = client.inner.policy;
        let (query, headers) = (Vec::new(), Vec::new());
        Self { client, method, path, query, headers, body: None, policy, again: Again::Always }
    }

    /// With this JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.body = Some(serde_json::to_vec(body));
        self
    }

    /// With one more query parameter, escaped as needed.
    pub fn query(mut self, name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        self.query.push((name.into(), format!("{value}")));
        self
    }

    /// With one more header, such as `Idempotency-Key`.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// All attempts together may take this long, and one of them no longer.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.policy.deadline = deadline;
        self.policy.attempt_timeout = self.policy.attempt_timeout.min(deadline);
        self
    }

    /// For a call whose repetition would have a second effect, such as a create without an
    /// `Idempotency-Key`: tried again only where it surely did not take place, that is if no
    /// connection was made or the answer was 429.
    pub fn unrepeatable(mut self) -> Self {
        self.again = Again::Unsent;
        self
    }

    /// Sent once, for a caller that looks at each failure before it repeats the call itself.
    pub(crate) fn once(mut self) -> Self {
        self.again = Again::Never;
        self
    }

    /// Sends it and reads the answer; `()` reads an empty one.
    ///
    /// # Errors
    /// Every variant of [`Error`]; the last failure, if several attempts failed.
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, Error> {
        let url = self.url()?;
        let body = self.answer(&url).await?;
        let json = if body.is_empty() { b"null" } else { body.as_slice() };
        serde_json::from_slice(json)
            .map_err(|error| Error::Decode { url: url.to_string(), cause: error.to_string() })
    }

    /// Sends it and gives back the body as it came.
    ///
    /// # Errors
    /// As [`Call::send`], without [`Error::Decode`].
    pub async fn send_raw(self) -> Result<Vec<u8>, Error> {
        let url = self.url()?;
        self.answer(&url).await
    }

    fn url(&self) -> Result<Url, Error> {
        let text = format!("{}{}", self.client.inner.base, self.path);
        let mut url = Url::parse(&text)
            .map_err(|error| Error::Configuration(format!("{text} is not a URL: {error}")))?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }

    /// The loop of attempts: the body of the first answer that is a success.
    async fn answer(&self, url: &Url) -> Result<Vec<u8>, Error> {
        let end = Instant::now() + self.policy.deadline;
        let mut backoff = Backoff::new(self.policy.base, self.policy.cap);
        let (mut attempts, mut may_have_arrived, mut renewed) = (0, false, false);
        loop {
            let authorization = self.client.inner.authorization.header();
            let failure = match self.attempt(url, authorization.clone(), end).await {
                Ok(body) => {
                    self.client.inner.budget.deposit(attempts);
                    return Ok(body);
                }
                Err(failure) => failure,
            };
            attempts += 1;
            match failure {
                Failure::Final(error) if error.status() == Some(401) && !renewed => {
                    if !self.client.inner.authorization.renew(authorization.as_ref()) {
                        return Err(error);
                    }
                    renewed = true;
                }
                Failure::Final(error) => return Err(error),
                Failure::Passing { cause, retry_after, arrived } => {
                    may_have_arrived |= arrived;
                    let wait = retry_after.unwrap_or_default().saturating_add(backoff.next_wait());
                    if self.again == Again::Never
                        || (arrived && self.again == Again::Unsent)
                        || wait >= end.saturating_duration_since(Instant::now())
                        || !self.client.inner.budget.withdraw()
                    {
                        return Err(Error::Unavailable { attempts, cause, may_have_arrived, retry_after });
                    }
                    tracing::debug!(method = %self.method, %url, attempts, ?wait, cause, "trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        end: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let remaining = end.saturating_duration_since(Instant::now());
        let mut request = self
            .client
            .inner
            .http
            .request(self.method.clone(), url.clone())
            .timeout(self.policy.attempt_timeout.min(remaining));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        match &self.body {
            Some(Ok(body)) => {
                request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
            }
            Some(Err(error)) => {
                return Err(Failure::Final(Error::Configuration(format!("not JSON: {error}"))));
            }
            None => {}
        }
        let began = Instant::now();
        let (status, answer) = match request.send().await {
            Ok(response) => (Some(response.status()), read(url, response).await),
            Err(error) if error.is_builder() => {
                return Err(Failure::Final(Error::Configuration(with_causes(&error))));
            }
            Err(error) => (None, Err(Failure::transport(&error))),
        };
        metrics::request(&self.path, status, began.elapsed());
        answer
    }
}
