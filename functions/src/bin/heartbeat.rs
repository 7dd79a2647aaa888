//! The deployed function `heartbeat`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run("heartbeat").await
}
