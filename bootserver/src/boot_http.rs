//! Plain HTTP for booting machines: scripts, the release's files, guests' kernels, the CA's certificate.
//!
//! Owns: paths, ranges, and telling the rack how far each file is. Never does: hold a whole file in memory, join a path,
//! or serve anything secret but the one-time nonce within a script, which goes to the lease's own address only.
//!
//! | path | what |
//! |---|---|
//! | `/boot/MAC.ipxe`, `/boot/MAC-efi.ipxe`, `/boot/MAC/xen.cfg` | from the rack, anew for each boot |
//! | `/b/DIGEST16/FILE` | the release |
//! | `/blob/SHA256` | kernels, initrds and loaders of guests |
//! | `/loader/ipxe.efi` | for UEFI HTTP Boot |
//! | `/ca.pem` | what `tsubame.ca` pins |

mod file;
mod pace;
mod range;

pub use file::{Pacer, Shelf};

use crate::connections::{Limits, Peer};
use crate::rack_task::Handle;
use file::Progress;
use http::{HeaderMap, Method, Response, StatusCode, header};
use proto::Mac;
use proto::host::Firmware;
use rack::effect::{Answer, ScriptRefusal};
use rack::event::{Entropy, Event, ScriptKind};
use rack::names;
use rack::policy::Subnet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use warp::path::FullPath;
use warp::{Filter, Reply};

/// A whole rack may ask at once; a machine has one connection, a browser a few.
pub const LIMITS: Limits = Limits {
    connections_max: 1024,
    connections_per_address_max: 16,
    head_timeout: Duration::from_secs(15),
    streams_max: 1,
};

/// What the service knows.
pub struct BootHttp {
    /// The files.
    pub shelf: Shelf,
    /// How fast they go out.
    pub pacer: Pacer,
    /// Where scripts are fetched from.
    pub subnet: Subnet,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// The rack.
    pub rack: Handle,
}

/// The service as a warp filter; each request carries a [`Peer`].
pub fn filter(
    service: Arc<BootHttp>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::method().and(warp::path::full()).and(warp::header::headers_cloned()).and(warp::ext::get::<Peer>()).and_then(
        move |method: Method, path: FullPath, headers: HeaderMap, peer: Peer| {
            let service = service.clone();
            async move {
                let response = service.answer(&method, path.as_str(), &headers, peer.address).await;
                let (path, status) = (path.as_str(), response.status().as_u16());
                tracing::debug!(from = %peer.address, %method, path, status, "boot HTTP");
                Ok::<_, Infallible>(response)
            }
        },
    )
}

impl BootHttp {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        from: SocketAddr,
    ) -> warp::reply::Response {
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
        let Some(file) = self.shelf.find(path) else {
            return text(StatusCode::NOT_FOUND, "no such file\n");
        };
        let progress = Progress::new(self.rack.clone(), from, file.kind);
        file.respond(method == Method::HEAD, headers, self.pacer.clone(), progress).await
    }

    async fn script(&self, mac: Mac, kind: ScriptKind, from: Ipv4Addr) -> warp::reply::Response {
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
                    ScriptKind::XenCfg => None,
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

fn text(status: StatusCode, text: &str) -> warp::reply::Response {
    let mut response: Response<_> = text.to_owned().into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
