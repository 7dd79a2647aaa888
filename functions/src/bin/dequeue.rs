//! The deployed function `dequeue`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    jobplane_functions::lambda::run("dequeue").await
}
