//! What the tests start: a whole server but DHCP, TFTP and storage, and plain ways to talk to it.

use bootserver::agents::Agents;
use bootserver::backup::Backups;
use bootserver::boot_http::{BootHttp, Pacer};
use bootserver::ca::Ca;
use bootserver::config::Config;
use bootserver::host_logs::HostLogs;
use bootserver::operators::{Operators, Sessions};
use bootserver::rack_task::{Clock, Handle, RackError, RackTask};
use bootserver::releases::files::Files;
use bootserver::releases::{self, Releases};
use bootserver::store::Store;
use bootserver::{agents, boot_http, connections, operators, tls};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::Mac;
use proto::view::RackView;
use rack::Rack;
use rack::dhcp::{BootRequest, MessageKind};
use rack::effect::{Answer, StorageOp};
use rack::event::Event;
use rack::policy::Subnet;
use rack::script::file_path;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsConnector;

/// Longer than any wait here: it only ends a hang.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// The address reserved for the one machine of these tests.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 60);

pub(crate) struct Server {
    dir: TempDir,
    pub(crate) rack: Handle,
    pub(crate) ca: Arc<Ca>,
    pub(crate) subnet: Subnet,
    /// The path of the configured release's image.
    pub(crate) image: String,
    pub(crate) boot: SocketAddr,
    pub(crate) agents: SocketAddr,
    pub(crate) operators: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RackError>>,
}

/// A configuration's directory, with files of a few bytes.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for sub in ["dom0-1", "loaders", "state"] {
        fs::create_dir(dir.path().join(sub)).expect("made");
    }
    for name in ["dom0-1/xen", "dom0-1/xen.efi", "dom0-1/vmlinuz", "dom0-1/initrd", "dom0-1/dom0.squashfs"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    for name in ["loaders/undionly.kpxe", "loaders/ipxe.efi"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    configure(&dir, "");
    dir
}

/// Writes its configuration, with a part of the test's own.
pub(crate) fn configure(dir: &TempDir, more: &str) {
    let text = "state: state\ninterface: lo\njoin: all\nrelease: dom0-1\nloaders: loaders\n\
                subnet: { network: 127.0.0.0/24, address: 127.0.0.1, pool: 127.0.0.50-127.0.0.99 }\n\
                reservations: { \"52:54:00:aa:bb:01\": 127.0.0.60 }\n";
    fs::write(dir.path().join("c.yaml"), format!("{text}{more}")).expect("written");
}

/// Starts a server on a directory's state.
pub(crate) async fn start(dir: TempDir) -> Server {
    let config = Config::load(&dir.path().join("c.yaml")).expect("a configuration");
    let ca = Arc::new(Ca::open(&config.state).expect("a CA"));
    let (store, records) = Store::open(&config.state).expect("a store");
    let files = Files::open(&config.state, 0).expect("files");
    releases::take_in(&files, &config.imports).expect("taken in");
    let clock = Clock::start();
    let (mut rack, mut restored) = Rack::restore(config.policy(ca.digest()), records, clock.now()).expect("a rack");
    if rack.surveying() {
        restored.extend(rack.apply(Event::StorageFound(Vec::new()), clock.now()));
    }
    // The heartbeat disk is made in every rack; beyond it there is no storage in these tests.
    let perform = Box::new(|op: StorageOp| -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        assert_eq!(op.disk().as_str(), proto::heartbeat::DISK, "no storage in this test");
        Box::pin(async { Ok(()) })
    });
    let (task, rack) = RackTask::new(rack, restored, clock, store, ca.clone(), perform).await.expect("a task");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(task.run(stopped.clone()));
    let listen = async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        (listener, at)
    };
    let own = || {
        let own = ca.server(&config.state, &[], &[IpAddr::from([127, 0, 0, 1])], OffsetDateTime::now_utc());
        own.expect("a certificate")
    };

    let (listener, boot) = listen().await;
    let (following, imports, shelf) = Releases::new(files, rack.clone(), None);
    tokio::spawn(following.run(stopped.clone()));
    let manifest = &config.imports[0].manifest;
    let image = file_path("dom0.squashfs", &manifest.files["dom0.squashfs"]);
    let (pacer, subnet) = (Pacer::new(0), config.policy(ca.digest()).subnet);
    let (ca_pem, limits) = (ca.pem().to_owned(), boot_http::LIMITS);
    let service = BootHttp { shelf, pacer, subnet: subnet.clone(), ca_pem, limits, rack: rack.clone() };
    let service = Arc::new(service);
    let hold = move |stream, from| service.clone().hold(stream, from);
    tokio::spawn(connections::serve("boot", listener, boot_http::LIMITS, hold, stopped.clone()));

    let (listener, to_agents) = listen().await;
    let acceptor = tls::agents(&ca, own()).expect("TLS");
    let filter = warp::service(agents::filter(Arc::new(Agents { ca: ca.clone(), rack: rack.clone() })));
    let hold = connections::tls(acceptor, agents::LIMITS, filter);
    tokio::spawn(connections::serve("agents", listener, agents::LIMITS, hold, stopped.clone()));

    let (listener, to_operators) = listen().await;
    let acceptor = tls::operators(own()).expect("TLS");
    let (backups, backup) = Backups::new(config.state.clone(), config.backup.clone(), rack.clone());
    tokio::spawn(backups.run(stopped.clone()));
    let sessions = Sessions::open(&config.state, clock.now().unix_ms).expect("sessions");
    let logs = HostLogs::default();
    let service = Operators { sessions, logs, rack: rack.clone(), clock, releases: imports, backup };
    let filter = warp::service(operators::filter(Arc::new(service)));
    let hold = connections::tls(acceptor, operators::LIMITS, filter);
    tokio::spawn(connections::serve("operators", listener, operators::LIMITS, hold, stopped));
    Server { dir, rack, ca, subnet, image, boot, agents: to_agents, operators: to_operators, stop, task }
}

impl Server {
    /// Stops the server; what is left is its directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.send_replace(true);
        self.task.await.expect("no panic").expect("a clean end");
        self.dir
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) async fn lease(&self, mac: Mac) {
        for (kind, requested) in [(MessageKind::Discover, None), (MessageKind::Request, Some(HOST))] {
            let mut request = BootRequest::plain(mac, 7, kind);
            request.class = Some(b"PXEClient:Arch:00000:UNDI:002001".to_vec());
            request.requested = requested;
            request.server = requested.map(|_| Ipv4Addr::LOCALHOST);
            let answer = self.rack.ask(|reply| Event::Dhcp { reply, request }).await;
            assert!(matches!(answer, Ok(Answer::Dhcp(Some(_)))), "{answer:?}");
        }
    }

    /// Asks the boot service from an address of loopback, all of which are ours.
    pub(crate) async fn fetch(
        &self,
        from: Ipv4Addr,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Bytes) {
        let stream = connect(from, self.boot).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = request(method, path, headers, Bytes::new());
        whole(sender.send_request(request).await.expect("an answer")).await.expect("a body")
    }

    /// The script of a machine that boots by BIOS.
    pub(crate) async fn script(&self, from: Ipv4Addr, mac: Mac) -> (StatusCode, String) {
        let path = format!("/boot/{}.ipxe", mac.to_string().replace(':', "-"));
        let (status, _, body) = self.fetch(from, Method::GET, &path, &[]).await;
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// The script's value of a `tsubame.` argument.
    pub(crate) async fn argument(&self, mac: Mac, name: &str) -> String {
        let (status, script) = self.script(HOST, mac).await;
        assert_eq!(status, StatusCode::OK, "{script}");
        let (_, rest) = script.split_once(&format!("tsubame.{name}=")).expect("it is in the script");
        rest.split_whitespace().next().expect("a value").to_owned()
    }

    /// Trust in its CA; who asks is still to be said.
    pub(crate) fn trusting(&self) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        config.expect("TLS 1.3").with_root_certificates(roots)
    }

    /// Opens h2 over TLS, from the host's address, with a certificate or without.
    pub(crate) async fn tls(&self, to: SocketAddr, identity: Option<&(String, KeyPair)>) -> Result<Client, String> {
        let config = self.trusting();
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((pem, key)) => {
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().expect("PEM");
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                config.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(HOST, to).await;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|err| err.to_string())?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|err| err.to_string())?;
        let connection = tokio::spawn(async move {
            // How it ends is seen by whoever asks on it.
            let _ = connection.await;
        });
        Ok(Client { sender, connection: connection.abort_handle() })
    }
}

/// One h2 connection; clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sender: http2::SendRequest<Full<Bytes>>,
    connection: AbortHandle,
}

impl Client {
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), hyper::Error> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let path = format!("https://127.0.0.1{path}");
        whole(sender.send_request(request(method, &path, headers, body.into())).await?).await
    }

    /// Breaks the connection off.
    pub(crate) fn vanish(self) {
        self.connection.abort();
    }
}

pub(crate) fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if path.starts_with('/') {
        request = request.header("host", "boot");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).expect("a request")
}

async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, HeaderMap, Bytes), hyper::Error> {
    let (parts, body) = answer.into_parts();
    Ok((parts.status, parts.headers, body.collect().await?.to_bytes()))
}

/// Connects from an address of loopback, all of which are ours.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("all of 127/8 is ours");
    socket.connect(to).await.expect("connected")
}

/// Waits until the view shows something.
pub(crate) async fn until(rack: &Handle, what: impl Fn(&RackView) -> bool) {
    let mut views = rack.watch();
    let seen = tokio::time::timeout(HANG, views.wait_for(|shown| what(&shown.view))).await;
    assert!(seen.is_ok(), "not within {HANG:?}: {:?}", rack.shown().view);
}
