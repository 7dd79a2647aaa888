//! The deployed function `migrate`, which a deployment invokes before the others go live.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run_migrate().await
}
