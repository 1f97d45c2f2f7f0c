//! `fetch-image WANTED FILE ADDRESS:PORT[,ADDRESS:PORT…]`: fetches dom0's image in the initrd.
//!
//! WANTED names it: 64 hexadecimal digits of its sha256, a space, its length in bytes. Exit codes: 0 FILE is the image, 1 it cannot be had,
//! 2 wrong usage.

use hostagent::image::{Wanted, fetch};
use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (wanted, path, addresses) = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            say(&why);
            return ExitCode::from(2);
        }
    };
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        Err(err) => {
            say(&format!("making {}: {err}", path.display()));
            return ExitCode::FAILURE;
        }
    };
    match fetch(&wanted, addresses, &mut file, say, std::thread::sleep) {
        Ok(fetched) => {
            let (bytes, s) = (wanted.bytes, fetched.took.as_secs_f64());
            say(&format!(
                "dom0's image, {bytes} bytes, fetched and verified in {s:.2} s, attempts: {}",
                fetched.attempts
            ));
            ExitCode::SUCCESS
        }
        Err(err) => {
            say(&err.to_string());
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Wanted, PathBuf, Vec<SocketAddrV4>), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wanted, file, addresses] = &arguments[..] else {
        return Err("fetch-image WANTED FILE ADDRESS:PORT[,ADDRESS:PORT…]".to_owned());
    };
    let text = fs::read_to_string(wanted).map_err(|err| format!("reading {wanted}: {err}"))?;
    let image = Wanted::parse(&text).map_err(|why| format!("{wanted} {why}"))?;
    let read = |one: &str| one.parse().map_err(|_| format!("{one:?} is no ADDRESS:PORT of a boot server"));
    let addresses = addresses.split(',').map(read).collect::<Result<_, _>>()?;
    Ok((image, file.into(), addresses))
}

/// For the console, as the initrd's own lines are.
fn say(line: &str) {
    println!("tsubame: {line}");
}
