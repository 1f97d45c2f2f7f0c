//! The page's way out: a port of the machine's loopback that leads to the boot server in its namespace.

use crate::network::connect_in;
use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Listens on loopback and carries each connection to `to` in the namespace, as long as this process lives. Port 0 is any.
pub fn forward(port: u16, namespace: &File, to: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("listening on 127.0.0.1:{port}; PORT= names another"))?;
    let address = listener.local_addr()?;
    let namespace = Arc::new(namespace.try_clone()?);
    thread::spawn(move || {
        for outer in listener.incoming().flatten() {
            let namespace = namespace.clone();
            thread::spawn(move || {
                // A boot server that is not there looks the same through us: the connection is closed.
                if let Ok(inner) = connect_in(&namespace, to) {
                    carry(outer, inner);
                }
            });
        }
    });
    Ok(address)
}

fn carry(outer: TcpStream, inner: TcpStream) {
    let one_way = |mut from: TcpStream, mut to: TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        // The other side may be gone already.
        let _ = to.shutdown(Shutdown::Write);
    };
    if let (Ok(from), Ok(to)) = (inner.try_clone(), outer.try_clone()) {
        let back = thread::spawn(move || one_way(from, to));
        one_way(outer, inner);
        let _ = back.join();
    }
}
