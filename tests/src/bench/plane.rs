//! A control plane that can go away: its connections are closed, its port refuses.

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// It serves until it is stopped.
pub(super) struct Plane {
    /// Host and port.
    pub(super) address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Plane {
    pub(super) async fn start(routes: Router, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = axum::serve(listener, routes);
        let service = service.with_graceful_shutdown(async { drop(stopped.await) });
        Self { address, stop, serving: tokio::spawn(service.into_future()) }
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).expect("it serves");
        self.serving.await.expect("it does not panic").expect("it serves to the end");
    }
}
