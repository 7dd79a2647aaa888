//! The deployed function `sweep`, which a schedule invokes.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run_sweep().await
}
