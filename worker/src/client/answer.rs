//! What an HTTP answer means to the loop of attempts: done, no use, or worth another attempt.

use crate::Error;
use crate::error::with_causes;
use jiff::fmt::rfc2822::DateTimeParser;
use jobplane_protocol::Problem;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use std::time::Duration;

/// The longest answer that is read, in bytes: above anything that a controller sends.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How much of an answer that is no problem document goes into the error, in characters.
const MAX_EXCERPT_CHARS: usize = 200;

/// Why an attempt brought no success.
pub(super) enum Failure {
    /// It would fail again.
    Final(Error),
    /// It may succeed when tried again.
    Passing {
        /// What happened.
        cause: String,
        /// How long the other side asks to be left alone.
        retry_after: Option<Duration>,
        /// Whether the controller may have acted on it.
        arrived: bool,
    },
}

impl Failure {
    /// No answer, or only a part of one.
    pub(super) fn transport(error: &reqwest::Error) -> Self {
        Self::Passing { cause: with_causes(error), retry_after: None, arrived: !error.is_connect() }
    }
}

/// Reads an answer to its end and judges it.
pub(super) async fn read(url: &Url, mut response: Response) -> Result<Vec<u8>, Failure> {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| Failure::transport(&error))? {
        if body.len() + part.len() > MAX_ANSWER_BYTES {
            let cause = format!("more than {MAX_ANSWER_BYTES} bytes");
            return Err(Failure::Final(Error::Decode { url: url.to_string(), cause }));
        }
        body.extend_from_slice(&part);
    }
    if status.is_success() {
        return Ok(body);
    }
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        let detail = problem.map_or_else(|| excerpt(&body), |problem| problem.to_string());
        return Err(Failure::Passing {
            cause: format!("{url} answered {status}: {detail}"),
            retry_after,
            arrived: status != StatusCode::TOO_MANY_REQUESTS,
        });
    }
    Err(Failure::Final(match problem {
        Some(problem) => Error::Refused(Box::new(problem)),
        None => Error::Gateway { url: url.to_string(), status: status.as_u16(), excerpt: excerpt(&body) },
    }))
}

/// The wait that `Retry-After` asks for: seconds, or a date, which is measured against the answer's
/// own `Date` so that no clock of ours decides.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let parser = DateTimeParser::new();
    let until = parser.parse_timestamp(asked).ok()?;
    let now = parser.parse_timestamp(text(DATE)?.trim()).ok()?;
    Duration::try_from(until.duration_since(now)).ok()
}

/// The beginning of a body, on one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "an empty body".to_owned() } else { line.chars().take(MAX_EXCERPT_CHARS).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "7")])), Some(Duration::from_secs(7)));
        let dates = headers(&[
            (DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (RETRY_AFTER, "Sun, 06 Nov 1994 08:50:07 GMT"),
        ]);
        assert_eq!(retry_after(&dates), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_retry_after_that_makes_no_sense_is_ignored() {
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
        let past = headers(&[
            (DATE, "Sun, 06 Nov 1994 08:50:07 GMT"),
            (RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        assert_eq!(retry_after(&past), None);
    }
}
