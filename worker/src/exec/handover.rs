//! How an attempt is handed to a warden: what to run, and with it the ends of the pipes that the job writes to.

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// The ends that a job writes to: standard output and standard error.
const PIPES: usize = 2;
/// Bytes of the length before a message.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Sends what to run, its length before it, and the pipes with that.
pub(super) async fn send(
    to: &mut OwnedWriteHalf,
    order: &[u8],
    pipes: &[PipeWriter; PIPES],
) -> io::Result<()> {
    let length = length(order)?;
    let socket: &UnixStream = to.as_ref();
    let sent = socket.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let pipes = [pipes[0].as_fd(), pipes[1].as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&pipes));
        let message = [IoSlice::new(&length), IoSlice::new(order)];
        Ok(sendmsg(socket, &message, &mut control, SendFlags::NOSIGNAL)?)
    });
    let sent = sent.await?;
    if sent < LENGTH_BYTES {
        return Err(io::ErrorKind::WriteZero.into());
    }
    to.write_all(&order[sent - LENGTH_BYTES..]).await
}

/// Receives what to run, and the pipes; nothing if there is nobody left to send it.
pub(super) fn receive(mut from: &StdUnixStream) -> io::Result<Option<(Vec<u8>, [OwnedFd; PIPES])>> {
    let mut length = [0; LENGTH_BYTES];
    let mut pipes = Vec::new();
    let received = retry_on_intr(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut length)];
        let received = recvmsg(from, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                pipes.extend(sent);
            }
        }
        Ok(received.bytes)
    });
    // What is shorter asked for the end of an attempt that had just ended.
    if received? != LENGTH_BYTES {
        return Ok(None);
    }
    let pipes = pipes.try_into().map_err(|_| io::Error::other("an order came without its pipes"))?;
    let mut order = vec![0; usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?];
    from.read_exact(&mut order)?;
    Ok(Some((order, pipes)))
}

/// Sends what is to be said of an attempt.
pub(super) fn answer(mut to: &StdUnixStream, report: &[u8]) -> io::Result<()> {
    to.write_all(&[&length(report)?, report].concat())
}

/// Receives what is to be said of an attempt.
pub(super) async fn answered(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut report = vec![0; usize::try_from(from.read_u32().await?).map_err(io::Error::other)?];
    from.read_exact(&mut report).await?;
    Ok(report)
}

fn length(of: &[u8]) -> io::Result<[u8; LENGTH_BYTES]> {
    Ok(u32::try_from(of.len()).map_err(io::Error::other)?.to_be_bytes())
}
