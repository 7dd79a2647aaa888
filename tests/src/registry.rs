//! A registry of images on loopback, whose repositories each do what their name says.

use crate::engine::files;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A registry with the images `good`; `slow`, whose layer never comes; `private`, which wants to know who asks; and `busy`,
/// which has no time. It ends with the test.
pub struct Registry {
    address: String,
    serving: tokio::task::JoinHandle<()>,
}

/// What it has: the manifests, one of them with a layer that no other image has either, and the parts by their digests.
struct Image {
    good: Vec<u8>,
    slow: Vec<u8>,
    blobs: HashMap<String, Vec<u8>>,
}

impl Registry {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let router = Router::new()
            .route("/v2/", get(|| async { "{}" }))
            .route("/v2/{name}/manifests/{tag}", get(manifest))
            .route("/v2/{name}/blobs/{digest}", get(blob))
            .with_state(Arc::new(Image::new()));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, serving }
    }

    /// The reference of an image here.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Image {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let layer = files(directory.path());
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["echo", "pulled"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let part =
            |kind, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)});
        let manifest = |layer: &[u8]| {
            let layers = [part(LAYER, layer)];
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config), "layers": layers,
            });
            manifest.to_string().into_bytes()
        };
        let (good, slow) = (manifest(&layer), manifest(b"what never comes"));
        let blobs = [layer, config].into_iter().map(|bytes| (digest(&bytes), bytes)).collect();
        Self { good, slow, blobs }
    }
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

async fn manifest(State(image): State<Arc<Image>>, Path((name, _)): Path<(String, String)>) -> Response {
    match name.as_str() {
        "good" | "slow" => {
            let manifest = if name == "good" { &image.good } else { &image.slow };
            let about = [(header::CONTENT_TYPE, MANIFEST.to_owned()), (DIGEST, digest(manifest))];
            (about, manifest.clone()).into_response()
        }
        "private" => {
            let challenge = [(header::WWW_AUTHENTICATE, r#"Basic realm="registry""#)];
            (StatusCode::UNAUTHORIZED, challenge, refusal("UNAUTHORIZED")).into_response()
        }
        "busy" => (StatusCode::SERVICE_UNAVAILABLE, refusal("UNAVAILABLE")).into_response(),
        _ => (StatusCode::NOT_FOUND, refusal("MANIFEST_UNKNOWN")).into_response(),
    }
}

const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");

async fn blob(State(image): State<Arc<Image>>, Path((name, digest)): Path<(String, String)>) -> Response {
    match image.blobs.get(&digest) {
        Some(blob) => blob.clone().into_response(),
        None if name == "slow" => pending().await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// An error as registries say it.
fn refusal(code: &str) -> String {
    json!({"errors": [{"code": code, "message": code.to_lowercase().replace('_', " ")}]}).to_string()
}
