//! Watching one job's process group until nothing of it is left.

use super::Stop;
use super::logs::Logs;
use jobplane_protocol::Stream;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long the pipes of a job that has ended may stay open, such as in the hands of a daemon that left its group.
const PIPE_GRACE: Duration = Duration::from_secs(2);
/// Pieces of output between a pipe and the log; when full, the job waits at its pipe.
const PIECES: usize = 64;
/// One read of a pipe.
const PIECE_BYTES: usize = 16 * 1024;

/// How a process group ended.
pub(super) enum Exit {
    Code(i32),
    Signalled(&'static str),
    TimedOut,
    Stopped(Stop),
    Failed(std::io::Error),
}

/// Lets the job run until it ends, runs out of time or is told to stop; then ends its whole group.
pub(super) async fn supervise(
    mut child: Child,
    timeout: Duration,
    kill_grace: Duration,
    mut stop: watch::Receiver<Stop>,
    logs: &mut Logs,
) -> Exit {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (pieces, mut written) = mpsc::channel(PIECES);
    let readers = [
        child.stdout.take().map(|pipe| tokio::spawn(pump(pipe, Stream::Stdout, pieces.clone()))),
        child.stderr.take().map(|pipe| tokio::spawn(pump(pipe, Stream::Stderr, pieces.clone()))),
    ];
    drop(pieces);
    let mut deadline = Instant::now() + timeout;
    let mut told: Option<Exit> = None;
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            piece = written.recv(), if open => match piece {
                Some((stream, bytes)) => logs.push(stream, &bytes).await,
                None => open = false,
            },
            () = logs.lost(), if told.is_none() => {
                told = Some(Exit::Stopped(Stop::Lost));
                deadline = end(group, Signal::SIGTERM, kill_grace);
            }
            Ok(reason) = stop_asked(&mut stop), if told.is_none() => {
                told = Some(Exit::Stopped(reason));
                deadline = end(group, Signal::SIGTERM, kill_grace);
            }
            () = tokio::time::sleep_until(deadline) => {
                let signal = if told.is_some() { Signal::SIGKILL } else { Signal::SIGTERM };
                told.get_or_insert(Exit::TimedOut);
                deadline = end(group, signal, kill_grace);
            }
        }
    };
    // What it left behind in its group goes with it.
    end(group, Signal::SIGKILL, kill_grace);
    let drained = async {
        while let Some((stream, bytes)) = written.recv().await {
            logs.push(stream, &bytes).await;
        }
    };
    if tokio::time::timeout(PIPE_GRACE, drained).await.is_err() {
        readers.iter().flatten().for_each(|reader| reader.abort());
    }
    // A lease that was lost is lost, however the job ended; a cancel counts only if it did end the job.
    let lost = *stop.borrow() == Stop::Lost;
    match (told, status) {
        _ if lost => Exit::Stopped(Stop::Lost),
        (Some(told), _) => told,
        (None, Err(error)) => Exit::Failed(error),
        (None, Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signalled(
                signal.and_then(|number| Signal::try_from(number).ok()).map_or("a signal", Signal::as_str),
            ),
        },
    }
}

/// The reason, once there is one.
async fn stop_asked(stop: &mut watch::Receiver<Stop>) -> Result<Stop, watch::error::RecvError> {
    stop.wait_for(|reason| *reason != Stop::Not).await.map(|reason| *reason)
}

/// Signals the group, and says when to signal again.
fn end(group: Option<Pid>, signal: Signal, grace: Duration) -> Instant {
    if let Some(group) = group
        && let Err(error) = killpg(group, signal)
        && error != Errno::ESRCH
    {
        tracing::warn!(%error, %group, "a job's process group could not be signalled");
    }
    Instant::now() + grace
}

/// Hands on what a pipe brings, until it is closed.
async fn pump(mut pipe: impl AsyncRead + Unpin, stream: Stream, pieces: mpsc::Sender<(Stream, Vec<u8>)>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        if pieces.send((stream, piece[..count].to_vec())).await.is_err() {
            break;
        }
    }
}
