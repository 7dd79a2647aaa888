//! An agent on a thread of its own: nothing that its caller's threads are blocked by keeps its heartbeats from going
//! out, and all of it ends with the future that waits for it.

use crate::Error;
use std::future::Future;
use std::io;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Runs an agent to its end. A caller that drops this does not wait for it: the agent, and all that it has spawned,
/// ends at its next `.await`.
///
/// # Errors
/// The agent's own; [`Error::Fault`] if it has no thread, or panics.
pub(super) async fn apart(
    agent: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> Result<(), Error> {
    let fault = |error: io::Error| Error::Fault(format!("the worker's own thread: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(fault)?;
    let (mut tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("jobplane-worker".to_owned());
    let run = move || {
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = agent => Some(ended),
                () = tell.closed() => None,
            }
        });
        // What it has spawned ends here, before anyone is told that it has.
        drop(runtime);
        if ended.is_some_and(|ended| tell.send(ended).is_err()) {
            tracing::debug!("nobody waits for the end of this worker any more");
        }
    };
    thread.spawn(run).map_err(fault)?;
    told.await.unwrap_or_else(|_| Err(Error::Fault("the worker panicked".to_owned())))
}
