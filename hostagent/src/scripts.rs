//! What libxl runs when a device of a guest comes or goes, in place of Xen's bash scripts: a few milliseconds each instead of a
//! second, within the time in which a moving guest stands still.
//!
//! Owns: `tsubame-vif` (put on the bridge) and `tsubame-block` (name the device's numbers to blkback). Never does: logging in to disks,
//! making bridges; both are there before a guest is.
//!
//! libxl calls them by /etc/xen/scripts/NAME with `XENBUS_PATH` in the environment, `vif` too for a vif, and `add`, `remove`, `online` or `offline`
//! as the first argument (tools/libs/light/libxl_linux.c, libxl__hotplug_nic and libxl__hotplug_disk).

use crate::iscsi;
use crate::xenstore::{XenStore, XenStoreError};
use nix::libc;
use std::io;
use std::path::Path;

/// Names under which this program is a hotplug script.
pub const NAMES: [&str; 2] = ["tsubame-vif", "tsubame-block"];

/// Why a device could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Called otherwise than libxl calls.
    #[error("{what} is not set or not understood; this is run by libxl, not by hand")]
    Call {
        /// What.
        what: &'static str,
    },
    /// XenStore.
    #[error(transparent)]
    XenStore(#[from] XenStoreError),
    /// A network call.
    #[error("{what} {on}: {source}")]
    Net {
        /// What was attempted.
        what: &'static str,
        /// On what.
        on: String,
        /// Why.
        source: io::Error,
    },
    /// The disk is not logged in.
    #[error(transparent)]
    Disk(#[from] iscsi::IscsiError),
}

/// Does what the script of this name does; the exit status.
pub fn run(name: &str, action: &str) -> u8 {
    let Ok(path) = std::env::var("XENBUS_PATH") else {
        eprintln!("{name}: {}", ScriptError::Call { what: "XENBUS_PATH" });
        return 1;
    };
    let result = XenStore::open().map_err(ScriptError::from).and_then(|mut store| {
        let done = match name {
            "tsubame-vif" => vif(&mut store, &path, action),
            _ => block(&mut store, &path, action),
        };
        if let Err(e) = &done {
            // libxl shows this text; when it cannot be written, the exit status says enough.
            let _ = store.write(&format!("{path}/hotplug-error"), &e.to_string());
            let _ = store.write(&format!("{path}/hotplug-status"), "error");
        }
        done
    });
    match result {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{name} {action} {path}: {e}");
            1
        }
    }
}

fn vif(store: &mut XenStore, path: &str, action: &str) -> Result<(), ScriptError> {
    // `add` and `remove` are for emulated interfaces, which PVH guests have none of. An interface that goes leaves its bridge.
    if action != "online" {
        return Ok(());
    }
    let vif = std::env::var("vif").map_err(|_| ScriptError::Call { what: "vif" })?;
    let bridge = store.read(&format!("{path}/bridge"))?;
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{bridge}/mtu"));
    let mtu: libc::c_int = mtu.ok().and_then(|m| m.trim().parse().ok()).unwrap_or(1500);
    let net = Net::open()?;
    net.set_mtu(&vif, mtu)?;
    net.join(&bridge, &vif)?;
    net.up(&vif)?;
    store.write(&format!("{path}/hotplug-status"), "connected")?;
    Ok(())
}

fn block(store: &mut XenStore, path: &str, action: &str) -> Result<(), ScriptError> {
    if action != "add" {
        return Ok(());
    }
    let params = store.read(&format!("{path}/params"))?;
    let (target, lun) = iscsi::parse_params(&params).ok_or(ScriptError::Call { what: "params" })?;
    let device = iscsi::device(Path::new("/sys"), target, lun)?;
    store.write_all(&[
        (format!("{path}/physical-device"), format!("{:x}:{:x}", device.major, device.minor)),
        (format!("{path}/physical-device-path"), format!("/dev/{}", device.name)),
        (format!("{path}/hotplug-status"), "connected".to_owned()),
    ])?;
    Ok(())
}

/// Network interfaces, by the calls that `ip` and `brctl` make.
struct Net(std::net::UdpSocket);

impl Net {
    fn open() -> Result<Self, ScriptError> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0");
        socket.map(Self).map_err(|source| ScriptError::Net { what: "opening a socket", on: String::new(), source })
    }

    fn set_mtu(&self, name: &str, mtu: libc::c_int) -> Result<(), ScriptError> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = mtu;
        self.call("setting the MTU of", name, libc::SIOCSIFMTU, &mut request)
    }

    fn up(&self, name: &str) -> Result<(), ScriptError> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call("raising", name, libc::SIOCSIFFLAGS, &mut request)
    }

    fn join(&self, bridge: &str, name: &str) -> Result<(), ScriptError> {
        if Path::new(&format!("/sys/class/net/{bridge}/brif/{name}")).exists() {
            return Ok(());
        }
        let index = nix::net::if_::if_nametoindex(name).map_err(|e| ScriptError::Net {
            what: "looking up",
            on: name.to_owned(),
            source: e.into(),
        })?;
        let mut request = request(bridge)?;
        request.ifr_ifru.ifru_ifindex = index as libc::c_int;
        // linux/sockios.h.
        const SIOCBRADDIF: libc::c_ulong = 0x89a2;
        self.call("adding an interface to bridge", bridge, SIOCBRADDIF, &mut request)
    }

    fn call(
        &self,
        what: &'static str,
        on: &str,
        call: libc::c_ulong,
        request: &mut libc::ifreq,
    ) -> Result<(), ScriptError> {
        use std::os::fd::AsRawFd;
        // SAFETY: each of these calls takes a struct ifreq.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), call as _, request) };
        if rc == 0 {
            return Ok(());
        }
        Err(ScriptError::Net { what, on: on.to_owned(), source: io::Error::last_os_error() })
    }
}

fn request(name: &str) -> Result<libc::ifreq, ScriptError> {
    // SAFETY: all zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(ScriptError::Call { what: "an interface's name" });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}
