//! A small HTTPS server inside the test process, and the real command run against it.
//!
//! Owns: certificates made for the test, one thread per connection, a record of every request. The answers are the test's own.

// Each test binary uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod sample;

use proto::view::RackView;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the command asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `POST /v1/login`.
    pub line: String,
    /// `Authorization`, empty when absent.
    pub authorization: String,
    /// Its body.
    pub body: String,
}

/// What the test answers.
pub enum Reply {
    /// Status, content type, body.
    Whole(u16, &'static str, String),
    /// Events of a stream, each sent at once; then the connection is closed.
    Events(Vec<RackView>),
    /// Events, after which the stream stays open and silent until the command goes.
    EventsThenSilence(Vec<RackView>),
    /// The connection is closed without an answer.
    Nothing,
}

impl Reply {
    /// 200 with a value.
    pub fn json(value: &impl serde::Serialize) -> Self {
        Self::status(200, value)
    }

    /// A status with a value.
    pub fn status(status: u16, value: &impl serde::Serialize) -> Self {
        Self::Whole(status, "application/json", serde_json::to_string(value).expect("a proto type is JSON"))
    }
}

/// The server, its CA, and what it was asked.
pub struct Server {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// sha256 of the CA's certificate, hexadecimal.
    pub ca_sha256: String,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts it. `answer` gets the request and how many of the same line came before.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let (config, ca) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, kept, answer) = (config.clone(), kept.clone(), answer.clone());
                thread::spawn(move || serve(socket, config, &kept, &*answer));
            }
        });
        let ca_sha256 = Sha256::digest(ca.der()).iter().map(|b| format!("{b:02x}")).collect();
        Self { url: format!("https://127.0.0.1:{port}"), ca_sha256, ca_pem: ca.pem(), requests }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no thread panicked with it").clone()
    }

    /// The first lines of every request so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|r| r.line).collect()
    }
}

fn certificates() -> (Arc<ServerConfig>, rcgen::Certificate) {
    let key = || KeyPair::generate().expect("ring makes P-256 keys");
    let mut ca_params = CertificateParams::new([]).expect("no names");
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = key();
    let ca = ca_params.self_signed(&ca_key).expect("signed by itself");
    let leaf_key = key();
    let leaf = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .expect("two names")
        .signed_by(&leaf_key, &Issuer::new(ca_params, ca_key))
        .expect("signed by the CA");
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone(), ca.der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(leaf_key.serialize_der()).expect("PKCS #8"))
        .expect("key and certificate fit");
    (Arc::new(config), ca)
}

fn serve(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    kept: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, usize) -> Reply,
) {
    let tls = ServerConnection::new(config).expect("the configuration is sound");
    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    // A handshake that is broken off, as by a client that does not trust us, is no request.
    while let Some(request) = read_request(&mut stream) {
        let before = {
            let mut kept = kept.lock().expect("no thread panicked with it");
            let before = kept.iter().filter(|r: &&Request| r.line == request.line).count();
            kept.push(request.clone());
            before
        };
        let out = stream.get_mut();
        let sent = match answer(&request, before) {
            Reply::Whole(status, kind, body) => write!(
                out,
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nlocation: /elsewhere\r\n\r\n{body}",
                body.len()
            ),
            Reply::Events(views) => {
                let _ = send_events(out, &views);
                out.conn.send_close_notify();
                let _ = out.flush();
                return;
            }
            Reply::EventsThenSilence(views) => {
                let _ = send_events(out, &views);
                // Until the client is gone.
                let _ = out.read(&mut [0]);
                return;
            }
            Reply::Nothing => return,
        };
        if sent.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn send_events(out: &mut impl Write, views: &[RackView]) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: begun\n\n")?;
    for view in views {
        let data = serde_json::to_string(view).expect("a view is JSON");
        write!(out, "event: rack\ndata: {data}\n\n")?;
        out.flush()?;
    }
    out.flush()
}

fn read_request(stream: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    stream.read_line(&mut first).ok()?;
    let line = first.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line, authorization, body: String::from_utf8(body).ok()? })
}

/// An operator's home: a session file of its own, and no environment but what the test gives.
pub struct Home {
    folder: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Home {
    /// Without a session.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: Vec::new() }
    }

    /// With a session at `server` by the environment.
    pub fn with_session(server: &Server) -> Self {
        let mut home = Self::new();
        home.environment = vec![
            ("TSUBAME_URL", server.url.clone()),
            ("TSUBAME_TOKEN", "secret-token".into()),
            ("TSUBAME_CA", server.ca_sha256.clone()),
        ];
        home
    }

    /// With one variable more.
    pub fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.retain(|(n, _)| *n != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// A file's place within.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, ready to be started.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tsubame"));
        command.args(line.split_whitespace()).env_clear().env("XDG_CONFIG_HOME", self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command line, words parted by spaces.
    pub fn run(&self, line: &str) -> Ran {
        Ran::from(self.command(line).output().expect("the command was built"))
    }

    /// Runs it with text on stdin.
    pub fn run_with(&self, line: &str, stdin: &str) -> Ran {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().expect("the command was built");
        // A command that ends before it reads closes the pipe: what it says is then what counts.
        let _ = child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
        Ran::from(child.wait_with_output().expect("it was started"))
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ran {
    /// Exit code and both outputs as one text, with the server's address and fingerprint named.
    pub fn text(&self, server: &Server) -> String {
        format!("exit {}\n{}{}", self.code, self.stdout, self.stderr)
            .replace(&server.url, "URL")
            .replace(&server.ca_sha256, "SHA256")
    }
}
