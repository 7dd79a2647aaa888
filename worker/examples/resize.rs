//! A worker that resizes grey images with a function of its own: copy it, and put your own functions in.
//!
//! ```sh
//! jobplane dev   # in another terminal; the rest in the same folder
//! export JOBPLANE_URL=http://127.0.0.1:8080
//! export JOBPLANE_WORKER_TOKEN=$(grep -o 'jp_worker_[^"]*' .jobplane/dev.json)
//! cargo run -p jobplane-worker --example resize &
//! jobplane job create resize --queue images -- resize   # its name chooses the handler; it needs a command all the same
//! jobplane run resize --input '{"rows": [[1, 2], [3, 4]], "width": 4, "height": 4}' --wait
//! ```

use jobplane_worker::{Context, JobError, Stream, Worker, start_logging};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The most pixels of an image.
const MAX_PIXELS: usize = 250_000;

#[derive(Deserialize)]
struct Resize {
    rows: Vec<Vec<u8>>,
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct Resized {
    rows: Vec<Vec<u8>>,
}

async fn resize(ctx: Context, input: Resize) -> Result<Resized, JobError> {
    let Resize { rows, width, height } = input;
    if rows.iter().any(|row| row.is_empty() || row.len() != rows[0].len()) || rows.is_empty() {
        return Err(JobError::new("the image has rows of no or of different length").not_retryable());
    }
    if width == 0 || height == 0 || width.saturating_mul(height) > MAX_PIXELS {
        return Err(JobError::new(format!("no pixels, or more than {MAX_PIXELS}")).not_retryable());
    }
    ctx.log(Stream::Stdout, format!("{} × {} → {width} × {height}", rows[0].len(), rows.len())).await;
    let mut resized = Vec::new();
    for y in 0..height {
        // Cancelled, out of time, or the worker shuts down: end as soon as it suits.
        if let Some(why) = ctx.stop_reason() {
            return Err(why.into());
        }
        let row = &rows[y * rows.len() / height];
        resized.push((0..width).map(|x| row[x * row.len() / width]).collect());
        ctx.progress(json!({ "rows": y + 1, "of": height }));
        // Others have their turn too.
        tokio::task::yield_now().await;
    }
    Ok(Resized { rows: resized })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    start_logging(None);
    Worker::builder()
        .url(std::env::var("JOBPLANE_URL")?)
        .token(std::env::var("JOBPLANE_WORKER_TOKEN")?)
        // A queue of its own: other workers may not have these handlers.
        .queues(["images"])
        .handler("resize", resize)
        .build()?
        .run()
        .await?;
    Ok(())
}
