//! The deployed function `jobs`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run("jobs").await
}
