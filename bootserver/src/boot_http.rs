//! Plain HTTP for booting machines: scripts, the release's files, guests' kernels, the CA's certificate.
//!
//! Owns: paths, ranges, and telling the rack how far each file is. Never does: hold a whole file in memory, join a path,
//! read a body, or serve anything secret but the one-time nonce within a script, which goes to the lease's own address only.
//!
//! | path | what |
//! |---|---|
//! | `/boot/MAC.ipxe`, `/boot/MAC-efi.ipxe`, `/boot/MAC/xen.cfg`, `/boot/MAC/words` | from the rack, anew for each boot |
//! | `/b/DIGEST16/ROLE` | a release's file for hosts |
//! | `/blob/SHA256` | a release's file for guests |
//! | `/loader/ipxe.efi` | for UEFI HTTP Boot |
//! | `/ca.pem` | what `tsubame.ca` pins |

mod conversation;
mod file;
mod head;
mod pace;
mod range;

pub use file::{Pacer, Shelf};

use crate::connections::{Failure, Limits};
use crate::rack_task::Handle;
use file::{Progress, Sending};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proto::Mac;
use proto::host::Firmware;
use rack::effect::{Answer, ScriptRefusal};
use rack::event::{Entropy, Event, ScriptKind};
use rack::names;
use rack::policy::Subnet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A whole rack may ask at once; a machine has one connection, a browser a few.
pub const LIMITS: Limits = Limits {
    connections_max: 1024,
    connections_per_address_max: 16,
    head_timeout: Duration::from_secs(15),
    streams_max: 1,
};

/// What the service knows.
pub struct BootHttp {
    /// The files, as they are now.
    pub shelf: watch::Receiver<Arc<Shelf>>,
    /// How fast they go out.
    pub pacer: Pacer,
    /// Where scripts are fetched from.
    pub subnet: Subnet,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// How long a client may take, and the rest that is borne.
    pub limits: Limits,
    /// The rack.
    pub rack: Handle,
}

/// What is said to a request.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

enum Body {
    /// There can be none.
    None,
    /// It would be so long.
    Length(u64),
    Text(String),
    File(Sending),
}

impl BootHttp {
    /// Serves one connection to its end.
    pub async fn hold(self: Arc<Self>, stream: TcpStream, from: SocketAddr) -> Result<(), Failure> {
        Ok(conversation::hold(&self, stream, from).await?)
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, from: SocketAddr) -> Reply {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        let from = match from.ip() {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) => v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        if path == "/ca.pem" {
            return text(StatusCode::OK, &self.ca_pem);
        }
        if let Some(script) = path.strip_prefix("/boot/") {
            // A HEAD must not begin a boot.
            return match names::script(script) {
                Some(_) if method == Method::HEAD => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
                Some((mac, kind)) => self.script(mac, kind, from).await,
                None => text(StatusCode::NOT_FOUND, "no such script\n"),
            };
        }
        let file = self.shelf.borrow().find(path);
        let Some(file) = file else {
            return text(StatusCode::NOT_FOUND, "no such file\n");
        };
        let progress = Progress::new(self.rack.clone(), from, file.kind);
        file.reply(method == Method::HEAD, headers, progress).await
    }

    async fn script(&self, mac: Mac, kind: ScriptKind, from: Ipv4Addr) -> Reply {
        let mut bytes = [0; 32];
        if let Err(err) = getrandom::fill(&mut bytes) {
            tracing::error!(%err, "no randomness to be had");
            return text(StatusCode::SERVICE_UNAVAILABLE, "no randomness\n");
        }
        let entropy = Entropy(bytes);
        match self.rack.ask(|reply| Event::Script { reply, mac, from, kind, entropy }).await {
            Ok(Answer::Script(Ok(script))) => text(StatusCode::OK, &script),
            Ok(Answer::Script(Err(refusal))) => {
                tracing::info!(%mac, %from, %refusal, "no script");
                let firmware = match kind {
                    ScriptKind::IpxeBios => Some(Firmware::Bios),
                    ScriptKind::IpxeUefi => Some(Firmware::Uefi),
                    ScriptKind::XenCfg | ScriptKind::Words => None,
                };
                // An error would send iPXE on to the disk.
                if let Some(firmware) = firmware {
                    return text(StatusCode::OK, &rack::script::retry(&self.subnet, mac, firmware, &refusal));
                }
                let status = match refusal {
                    ScriptRefusal::NoLease { .. } => StatusCode::NOT_FOUND,
                    ScriptRefusal::OtherAddress { .. } => StatusCode::FORBIDDEN,
                    ScriptRefusal::TooManyUnknown => StatusCode::SERVICE_UNAVAILABLE,
                };
                text(status, &format!("{refusal}\n"))
            }
            Ok(_) | Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n"),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Reply {
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    Reply { status, headers, body: Body::Text(text.to_owned()) }
}
