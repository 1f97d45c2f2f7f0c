//! What systemd is told: that the server is ready, that it stops, and now and then that it lives (sd_notify(3)).
//!
//! Owns: the socket that `$NOTIFY_SOCKET` names. Never does: say that it lives without having asked: the question goes through
//! the rack's task and the store, so that a server that can make nothing durable any more is started anew.

use crate::rack_task::Handle;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::sync::watch;

/// The way to the service manager, if there is one.
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// After so long without a sign the service manager ends us.
    watchdog: Option<Duration>,
}

impl Notify {
    /// By `$NOTIFY_SOCKET` and `$WATCHDOG_USEC`, as the environment gives them.
    pub fn open(socket: Option<&OsStr>, watchdog_usec: Option<&OsStr>) -> io::Result<Self> {
        let connect = |name: &OsStr| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                name => SocketAddr::from_pathname(OsStr::from_bytes(name))?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            Ok::<_, io::Error>(socket)
        };
        let usec = watchdog_usec.and_then(OsStr::to_str).and_then(|text| text.parse().ok()).filter(|&usec| usec > 0);
        Ok(Self { socket: socket.map(connect).transpose()?, watchdog: usec.map(Duration::from_micros) })
    }

    /// All ports are open.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// It was told to stop.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says three times in each period that the server lives, as long as rack and store answer; until `stop` turns true.
    pub async fn live(&self, rack: Handle, mut stop: watch::Receiver<bool>) {
        let Some(period) = self.watchdog.filter(|_| self.socket.is_some()) else {
            let _ = stop.wait_for(|&stop| stop).await;
            return;
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(period / 3) => {}
                _ = stop.wait_for(|&stop| stop) => return,
            }
            // No events after the last: the answer is empty, but it comes after all that is being made durable.
            if rack.log(u64::MAX, 0).await.is_ok() {
                self.say("WATCHDOG=1");
            }
        }
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(err) = socket.send(what.as_bytes())
        {
            tracing::warn!(%err, what, "telling the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("tsubame-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let at_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, name) in [(at_path, path.into_os_string()), (at_name, format!("@{name}").into())] {
            let notify = Notify::open(Some(&name), Some(OsStr::new("30000000"))).expect("it is there");
            assert_eq!(notify.watchdog, Some(Duration::from_secs(30)));
            notify.ready();
            let mut said = [0; 64];
            let length = socket.recv(&mut said).expect("a word");
            assert_eq!(&said[..length], b"READY=1");
        }
        let nobody = Notify::open(None, None).expect("nothing to open");
        nobody.ready();
        assert!(Notify::open(Some(OsStr::new("/nowhere/at/all")), None).is_err());
    }
}
