//! `tsubame login` and `logout`.
//!
//! ```text
//! CA settled -> GET /v1/about over a verified connection -> secret asked for -> POST /v1/setup | /v1/login -> session kept
//! ```
//! No secret is read before the server has been verified.

use crate::args::LoginArgs;
use crate::client::Server;
use crate::fault::Fault;
use crate::output;
use crate::render::table::time;
use crate::session::{self, CaSource, Environment, Saved};
use crate::trust::{self, Fingerprint};
use crate::url::ServerUrl;
use proto::agent::Secret;
use proto::api::{About, Accepted, Login, Session, Setup};
use rustls::pki_types::CertificateDer;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;

pub(super) fn login(environment: &Environment, args: &LoginArgs) -> Result<(), Fault> {
    let file = environment.session_file()?;
    // A login must be able to mend a file that cannot be read.
    let saved = session::load(&file).unwrap_or(None);
    let url = which_server(environment, args, saved.as_ref())?;
    let doing = format!("logging in to {url}");
    let ca = which_ca(environment, args, saved.as_ref(), &url)?;
    let server = Server::new(url.clone(), ca.clone(), None);
    let about: About = server.get(&doing, "/v1/about")?;
    let session: Session = if about.needs_setup || args.setup_code.is_some() {
        let code = match &args.setup_code {
            Some(code) => code.clone(),
            None => ask("Set-up code (the boot server printed it): ")?,
        };
        let password = read_password(args, "New password (10 characters or more): ", true)?;
        server.post(&format!("setting up {url}"), "/v1/setup", &Setup { code, password })?
    } else {
        let password = read_password(args, "Password: ", false)?;
        server.post(&doing, "/v1/login", &Login { password })?
    };
    let ca_pem = trust::to_pem(&ca);
    let expires_ms = session.expires_ms;
    session::store(&file, &Saved { url: url.to_string(), ca_pem, token: Some(Secret(session.token)), expires_ms })?;
    output::write(&format!("logged in to {url}; the session ends {} UTC\n", time(expires_ms)))
}

pub(super) fn logout(environment: &Environment) -> Result<(), Fault> {
    let file = environment.session_file()?;
    let Some(saved) = session::load(&file)? else {
        return output::write("no session is kept\n");
    };
    let doing = format!("logging out of {}", saved.url);
    // The file's own session is ended, whatever the environment names.
    let own = Environment { config_home: environment.config_home.clone(), ..Environment::default() };
    let told = session::access(&doing, &own, Some(&saved))
        .and_then(|access| Server::with_session(&doing, access))
        .and_then(|server| server.post_empty::<Accepted>(&doing, "/v1/logout"));
    session::store(&file, &Saved { token: None, expires_ms: 0, ..saved })?;
    match told {
        // A session that has ended already is as good.
        Ok(_) | Err(Fault::NotLoggedIn { .. }) => output::write("logged out\n"),
        Err(fault) => {
            eprintln!("tsubame: the session is forgotten here, but the server was not told and keeps it until it ends");
            Err(fault)
        }
    }
}

fn which_server(environment: &Environment, args: &LoginArgs, saved: Option<&Saved>) -> Result<ServerUrl, Fault> {
    let given = args.url.as_ref().or(environment.url.as_ref()).or(saved.map(|s| &s.url));
    let given = given.ok_or_else(|| {
        Fault::Usage("login: which server? Give its address: tsubame login https://HOST[:PORT]".into())
    })?;
    given.parse().map_err(|e| Fault::Usage(format!("login: {e}")))
}

fn which_ca(
    environment: &Environment,
    args: &LoginArgs,
    saved: Option<&Saved>,
    url: &ServerUrl,
) -> Result<CertificateDer<'static>, Fault> {
    if let Some(pin) = args.ca_sha256 {
        return trust::find_ca(url, Some(pin));
    }
    let here = Environment { url: Some(url.to_string()), ..environment.clone() };
    let known = match session::access("", &here, saved) {
        Ok(access) => access.ca,
        // What the environment says must be right; a session file that is not is written anew.
        Err(fault) if saved.is_none() || environment.ca.is_some() => return Err(fault),
        Err(_) => None,
    };
    match known {
        Some(CaSource::Certificate(ca)) => Ok(ca),
        Some(CaSource::Pin(pin)) => trust::find_ca(url, Some(pin)),
        None => {
            let ca = trust::find_ca(url, None)?;
            let shown = Fingerprint::of(&ca);
            if !args.trust_on_first_use {
                return Err(Fault::Unpinned { url: url.to_string(), shown });
            }
            eprintln!("tsubame: {url} is trusted from now on by its CA with the sha256 {shown}");
            Ok(ca)
        }
    }
}

fn read_password(args: &LoginArgs, prompt: &str, new: bool) -> Result<String, Fault> {
    let password = read_secret(args.password_file.as_deref(), prompt)?;
    let asked = args.password_file.is_none();
    if asked && new && io::stdin().is_terminal() && ask("Once more: ")? != password {
        return Err(Fault::Usage("login: the two passwords differ; nothing was set".into()));
    }
    Ok(password)
}

/// The first line of a file, of stdin where that is `-`; asked for where no file is named.
pub(super) fn read_secret(file: Option<&Path>, prompt: &str) -> Result<String, Fault> {
    match file {
        None => ask(prompt),
        Some(path) if path == Path::new("-") => read_stdin(),
        Some(path) => {
            let fault = |source| Fault::File { doing: "reading", path: path.display().to_string(), source };
            first_line(BufReader::new(File::open(path).map_err(fault)?)).map_err(fault)
        }
    }
}

/// Asks on the terminal without echo, or takes stdin's next line where it is no terminal.
fn ask(prompt: &str) -> Result<String, Fault> {
    if !io::stdin().is_terminal() {
        return read_stdin();
    }
    rpassword::prompt_password(prompt).map_err(|source| Fault::File {
        doing: "reading",
        path: "the terminal".into(),
        source,
    })
}

fn read_stdin() -> Result<String, Fault> {
    first_line(io::stdin().lock()).map_err(|source| Fault::File { doing: "reading", path: "stdin".into(), source })
}

fn first_line(mut from: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() { Err(io::Error::other("it has no line to read")) } else { Ok(line.to_owned()) }
}
