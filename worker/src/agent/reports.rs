//! Delivering results: at once when one is due, together when many are.

use super::Held;
use crate::{Backoff, Client, Error};
use jobplane_protocol::{
    ErrorCode, Outcome, ResultAnswer, ResultItem, ResultsRequest, ResultsResponse, limits,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What one request may carry; below the limit of a request by what surrounds the results.
const MAX_BATCH_BYTES: usize = limits::MAX_REQUEST_BYTES / 2;
/// The waits between two deliveries that failed.
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(15);

/// Delivers every result, for as long as that takes: until then its execution stays held and is heartbeaten, so an
/// outage of the controller loses none.
pub(super) async fn deliver(client: Client, held: Arc<Held>, mut due: mpsc::Receiver<ResultItem>) {
    let mut batch = Vec::new();
    while due.recv_many(&mut batch, limits::MAX_BATCH).await > 0 {
        while !batch.is_empty() {
            let request = ResultsRequest { results: batch.drain(..fitting(&batch)).collect() };
            let answer = send(&client, &request).await;
            batch.extend(settle(&held, request.results, answer));
        }
    }
}

/// How many of these, from the first on, one request can carry: at least one.
fn fitting(batch: &[ResultItem]) -> usize {
    let mut bytes = 0;
    let fit = batch.iter().take_while(|item| {
        bytes += item.result.as_ref().map_or(0, |json| json.get().len())
            + item.error.as_ref().map_or(0, String::len);
        bytes <= MAX_BATCH_BYTES
    });
    fit.count().max(1)
}

async fn send(client: &Client, request: &ResultsRequest) -> Result<Vec<ResultAnswer>, Error> {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    loop {
        match client.post("/internal/executions/results").json(request).send::<ResultsResponse>().await {
            Ok(answer) => return Ok(answer.results),
            Err(error @ Error::Refused(_)) if error.code() != Some(ErrorCode::Unauthorized) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%error, count = request.results.len(), "results were not delivered yet");
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// Lets go of what was answered; gives back what must be said once more, in words that are accepted.
fn settle(held: &Held, sent: Vec<ResultItem>, answer: Result<Vec<ResultAnswer>, Error>) -> Vec<ResultItem> {
    let answers = match answer {
        Ok(answers) => answers,
        Err(error) => {
            tracing::error!(%error, "results were refused as a whole; their leases run out");
            sent.iter().for_each(|item| held.remove(item.execution_id));
            return Vec::new();
        }
    };
    let mut again = Vec::new();
    for (item, answer) in sent.into_iter().zip(answers) {
        let (id, code) = (item.execution_id, answer.error_code);
        match code {
            Some(ErrorCode::ResultTooLarge | ErrorCode::InvalidRequest)
                if item.result.is_some() || item.error.is_some() =>
            {
                let why = answer.detail.unwrap_or_default();
                again.push(ResultItem {
                    outcome: Outcome::Failed,
                    result: None,
                    error: Some(format!("the result was refused: {}", why.replace('\0', "\u{fffd}"))),
                    retryable: Some(false),
                    ..item
                });
            }
            None => held.remove(id),
            Some(code) => {
                tracing::info!(%id, ?code, "the result came too late and changed nothing");
                held.remove(id);
            }
        }
    }
    again
}
