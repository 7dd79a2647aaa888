//! The control plane's listener: answers until it is told to stop, then finishes what it has begun.

use axum::serve::ListenerExt;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long requests in progress may take once no new ones are accepted.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// The running server.
pub(crate) struct Http {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Http {
    /// Serves the routes on the listener.
    pub(crate) fn serve(listener: TcpListener, routes: axum::Router) -> std::io::Result<Self> {
        let url = format!("http://{}", listener.local_addr()?);
        // Small answers must not wait for a full packet.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY is not to be had");
            }
        });
        let (stop, stopped) = oneshot::channel();
        let served = axum::serve(listener, routes).with_graceful_shutdown(async move {
            // The other end going away means the same.
            stopped.await.unwrap_or_default();
        });
        let task = tokio::spawn(served.into_future());
        Ok(Self { url, stop: Some(stop), task })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it ended although nobody asked.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Accepts nothing more, and waits for the answers in progress.
    pub(crate) async fn stop(&mut self) {
        if self.stop.take().is_none() {
            return;
        }
        match tokio::time::timeout(FINISH_LIMIT, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the HTTP server failed"),
            Ok(Err(error)) => tracing::warn!(%error, "the HTTP server failed"),
            Err(_) => self.task.abort(),
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}
