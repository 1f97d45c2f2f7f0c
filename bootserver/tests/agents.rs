//! A host's way in, over real sockets on loopback: lease, script, join, report. The rack, its task, the store, the boot
//! HTTP service and the agents' endpoint are the real ones; DHCP's packets and tgtd are left to the virtual rack.

use bootserver::agents::{self, Agents};
use bootserver::boot_http::{self, BootHttp, Shelf};
use bootserver::ca::Ca;
use bootserver::config::Config;
use bootserver::rack_task::{Clock, Handle, RackTask};
use bootserver::store::Store;
use bootserver::{connections, tls};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::agent::{HostStats, JoinAnswer, JoinRefusal, JoinRequest, Report, ReportAnswer};
use proto::host::{Cpu, Firmware, Inventory};
use proto::view::HostState;
use proto::{HostId, Mac};
use rack::Rack;
use rack::dhcp::{BootRequest, MessageKind};
use rack::effect::Answer;
use rack::event::Event;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 60);

struct Server {
    dir: TempDir,
    rack: Handle,
    ca: Arc<Ca>,
    boot: SocketAddr,
    agents: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<(), bootserver::rack_task::RackError>>,
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for sub in ["dom0-1", "loaders", "state"] {
        fs::create_dir(dir.path().join(sub)).expect("made");
    }
    for name in ["dom0-1/xen", "dom0-1/xen.efi", "dom0-1/vmlinuz", "dom0-1/dom0.img"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    for name in ["loaders/undionly.kpxe", "loaders/ipxe.efi"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    let text = "state: state\ninterface: lo\njoin: all\nrelease: dom0-1\nloaders: loaders\n\
                subnet: { network: 127.0.0.0/24, address: 127.0.0.1, pool: 127.0.0.50-127.0.0.99 }\n\
                reservations: { \"52:54:00:aa:bb:01\": 127.0.0.60 }\n";
    fs::write(dir.path().join("c.yaml"), text).expect("written");
    dir
}

async fn start(dir: TempDir) -> Server {
    let config = Config::load(&dir.path().join("c.yaml")).expect("a configuration");
    let ca = Arc::new(Ca::open(&config.state).expect("a CA"));
    let (store, records) = Store::open(&config.state).expect("a store");
    let clock = Clock::start();
    let (rack, restored) = Rack::restore(config.policy(ca.digest()), records, clock.now()).expect("a rack");
    let perform = Box::new(|_| panic!("no storage in this test"));
    let (task, rack) = RackTask::new(rack, restored, clock, store, ca.clone(), perform).await.expect("a task");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(task.run(stopped.clone()));
    let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (boot_listener, agents_listener) = (listen().await, listen().await);
    let boot = boot_listener.local_addr().expect("an address");
    let agents_at = agents_listener.local_addr().expect("an address");
    let service = BootHttp { shelf: Shelf::default(), ca_pem: ca.pem().to_owned(), rack: rack.clone() };
    let filter = warp::service(boot_http::filter(Arc::new(service)));
    tokio::spawn(connections::serve("boot", boot_listener, None, boot_http::LIMITS, filter, stopped.clone()));
    let own = ca.server(&config.state, &[], &[IpAddr::from([127, 0, 0, 1])], OffsetDateTime::now_utc());
    let acceptor = tls::agents(&ca, own.expect("a certificate")).expect("TLS");
    let filter = warp::service(agents::filter(Arc::new(Agents { ca: ca.clone(), rack: rack.clone() })));
    tokio::spawn(connections::serve("agents", agents_listener, Some(acceptor), agents::LIMITS, filter, stopped));
    Server { dir, rack, ca, boot, agents: agents_at, stop, task }
}

impl Server {
    /// Stops the server as a whole and starts it on the same state.
    async fn restart(self) -> Self {
        self.stop.send_replace(true);
        self.task.await.expect("no panic").expect("a clean end");
        drop(self.rack);
        start(self.dir).await
    }

    async fn lease(&self, mac: Mac) {
        for (kind, requested) in [(MessageKind::Discover, None), (MessageKind::Request, Some(HOST))] {
            let mut request = BootRequest::plain(mac, 7, kind);
            request.class = Some(b"PXEClient:Arch:00000:UNDI:002001".to_vec());
            request.requested = requested;
            request.server = requested.map(|_| Ipv4Addr::LOCALHOST);
            let answer = self.rack.ask(|reply| Event::Dhcp { reply, request }).await;
            assert!(matches!(answer, Ok(Answer::Dhcp(Some(_)))), "{answer:?}");
        }
    }

    /// Fetches by plain HTTP from a host's address.
    async fn fetch(&self, from: Ipv4Addr, path: &str) -> (StatusCode, String) {
        let stream = self::from(from, self.boot).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "boot").body(Full::<Bytes>::default()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// The script's value of a `tsubame.` argument.
    async fn argument(&self, mac: Mac, name: &str) -> String {
        let path = format!("/boot/{}.ipxe", mac.to_string().replace(':', "-"));
        let (status, script) = self.fetch(HOST, &path).await;
        assert_eq!(status, StatusCode::OK, "{script}");
        let (_, rest) = script.split_once(&format!("tsubame.{name}=")).expect("it is in the script");
        rest.split_whitespace().next().expect("a value").to_owned()
    }

    async fn connect(&self, identity: Option<&(String, KeyPair)>) -> Result<Agent, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("TLS 1.3").with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((pem, key)) => {
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().expect("PEM");
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                config.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = from(HOST, self.agents).await;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|err| err.to_string())?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|err| err.to_string())?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Agent { sender, connection })
    }
}

/// Connects from an address of loopback, all of which are ours.
async fn from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("all of 127/8 is ours");
    socket.connect(to).await.expect("connected")
}

#[derive(Debug)]
struct Agent {
    sender: http2::SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), hyper::Error> {
        let request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    async fn join(&self, host: &HostId, nonce: &str, key: &KeyPair) -> JoinAnswer {
        let csr = CertificateParams::default().serialize_request(key).expect("a request");
        let request = JoinRequest {
            host: host.clone(),
            nonce: nonce.to_owned(),
            csr_pem: csr.pem().expect("PEM"),
            inventory: inventory(),
        };
        let body = serde_json::to_vec(&request).expect("JSON");
        let (status, body) = self.ask(Method::POST, "/v1/join", body).await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serde_json::from_slice(&body).expect("a join's answer")
    }

    async fn report(&self, boot: &str, seq: u64) -> (StatusCode, Bytes) {
        let report = Report {
            boot: boot.to_owned(),
            seq,
            uptime_ms: 1000 * seq,
            stats: HostStats::default(),
            domains: Vec::new(),
            outcomes: Vec::new(),
            underway: Vec::new(),
        };
        let body = serde_json::to_vec(&report).expect("JSON");
        self.ask(Method::POST, "/v1/report", body).await.expect("an answer")
    }
}

fn inventory() -> Inventory {
    Inventory {
        uuid: String::new(),
        serial: String::new(),
        product: "loopback".to_owned(),
        firmware: Firmware::Bios,
        cpu: Cpu { vendor: "x".to_owned(), model: "x".to_owned(), threads: 2, features: [].into() },
        memory_mib: 2048,
        dom0_mib: 512,
        nics: Vec::new(),
        xen: "4.17.7".to_owned(),
        agent: "test".to_owned(),
        image: String::new(),
    }
}

async fn until(rack: &Handle, what: impl Fn(&proto::view::RackView) -> bool) {
    let mut views = rack.watch();
    let seen = tokio::time::timeout(Duration::from_secs(10), views.wait_for(|shown| what(&shown.view))).await;
    assert!(seen.is_ok(), "not within 10 s: {:?}", rack.shown().view);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_boots_joins_and_reports() {
    let server = start(directory()).await;
    let mac: Mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
    let host = HostId::of(mac);
    let script = "/boot/52-54-00-aa-bb-01.ipxe";
    assert_eq!(server.fetch(HOST, script).await.0, StatusCode::NOT_FOUND);
    server.lease(mac).await;
    let elsewhere = Ipv4Addr::new(127, 0, 0, 61);
    assert_eq!(server.fetch(elsewhere, script).await.0, StatusCode::FORBIDDEN);
    let nonce = server.argument(mac, "join").await;
    assert_eq!(server.argument(mac, "join").await, nonce, "a repeat within a boot");
    assert_eq!(server.argument(mac, "ca").await, server.ca.digest());
    assert_eq!(server.fetch(HOST, "/ca.pem").await, (StatusCode::OK, server.ca.pem().to_owned()));

    // Without a certificate nothing but joining is to be had.
    let stranger = server.connect(None).await.expect("TLS without a certificate");
    assert_eq!(stranger.report(&nonce, 1).await.0, StatusCode::UNAUTHORIZED);
    let (status, _) = stranger.ask(Method::GET, "/v1/rack", Vec::new()).await.expect("an answer");
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = stranger.ask(Method::POST, "/v1/join", vec![b' '; 70_000]).await.expect("an answer");
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);

    let key = KeyPair::generate().expect("a key");
    let (certificate_pem, renew_ms) = match stranger.join(&host, &nonce, &key).await {
        JoinAnswer::Accepted { certificate_pem, renew_ms } => (certificate_pem, renew_ms),
        other => panic!("the host was not let in: {other:?}"),
    };
    assert!(renew_ms > 0);
    let copy = KeyPair::generate().expect("a key");
    assert_eq!(
        stranger.join(&host, &nonce, &copy).await,
        JoinAnswer::Refused { refusal: JoinRefusal::NonceUsed },
        "a copied join"
    );
    // A certificate that this CA has not signed ends the connection.
    let forged = CertificateParams::default().self_signed(&copy).expect("a certificate").pem();
    let forged = server.connect(Some(&(forged, copy))).await;
    let refused = match forged {
        Err(_) => true,
        Ok(agent) => agent.ask(Method::POST, "/v1/report", Vec::new()).await.is_err(),
    };
    assert!(refused, "a forged certificate was taken");

    let identity = (certificate_pem, key);
    let agent = server.connect(Some(&identity)).await.expect("TLS with a certificate");
    // A report is held while there is nothing to say, and answered when a newer one comes.
    let held = {
        let (sender, nonce) =
            (Agent { sender: agent.sender.clone(), connection: tokio::spawn(async {}) }, nonce.clone());
        tokio::spawn(async move { sender.report(&nonce, 1).await })
    };
    until(&server.rack, |view| view.hosts.iter().any(|h| h.state == HostState::Active)).await;
    assert!(!held.is_finished());
    let newer = {
        let (sender, nonce) =
            (Agent { sender: agent.sender.clone(), connection: tokio::spawn(async {}) }, nonce.clone());
        tokio::spawn(async move { sender.report(&nonce, 2).await })
    };
    let (status, body) = tokio::time::timeout(Duration::from_secs(5), held).await.expect("in time").expect("no panic");
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let answer: ReportAnswer = serde_json::from_slice(&body).expect("an answer");
    assert!(answer.orders.is_empty() && answer.report_ms == 2000);
    // The connection goes with a report held on it; the server goes on.
    newer.abort();
    agent.connection.abort();

    // What was acknowledged outlives the server, and the host goes on as the same boot.
    let server = server.restart().await;
    let agent = server.connect(Some(&identity)).await.expect("the same CA and certificate");
    let (status, body) = agent.report(&nonce, 3).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    server.stop.send_replace(true);
    server.task.await.expect("no panic").expect("a clean end");
}
