//! The deployed function `worker_tokens`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run("worker_tokens").await
}
