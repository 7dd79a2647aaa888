//! The deployed function `run`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run("run").await
}
