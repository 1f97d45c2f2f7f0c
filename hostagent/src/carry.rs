//! `hostagent carry SOCKET`: stands between xl and the agent, and only hands over its standard input and output.
//!
//! xl starts its migration transport as a command whose standard input and output are the stream. This is that command: it passes both to
//! the agent by SCM_RIGHTS, so that no byte is copied once more, and ends when the agent lets go of the socket. When the agent dies the
//! socket and the pipes close together, and xl sees its stream end.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The command.
///
/// # Errors
/// When the agent is not there.
pub fn run(socket: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(socket)?;
    let descriptors = [0, 1];
    let message = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(agent.as_raw_fd(), &[IoSlice::new(b"c")], &message, MsgFlags::empty(), None)?;
    // The agent has them now; xl must see an end when the agent closes its own.
    nix::unistd::close(0)?;
    nix::unistd::close(1)?;
    agent.read(&mut [0]).map(drop)
}

/// Takes what [`run`] hands over: where xl's bytes come from, and where bytes for xl go.
///
/// # Errors
/// When something else connected.
pub fn take(from: &impl AsRawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let received = message.cmsgs()?.find_map(|m| match m {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // SAFETY: the kernel has just put these into this process, for nobody else.
    let mut owned = received.unwrap_or_default().into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    match (owned.next(), owned.next()) {
        (Some(input), Some(output)) => Ok((input, output)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptors came with the greeting")),
    }
}
