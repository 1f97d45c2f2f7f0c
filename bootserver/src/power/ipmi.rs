//! IPMI 2.0 over LAN (RMCP+), spoken by Debian's `ipmitool`: one process for each question.
//!
//! Owns: its arguments and what its answers mean. The password goes by the process's environment, which only its own user can read
//! (proc(5), /proc/pid/environ); never by its arguments, which everybody can.

use super::{Limits, quoted, within};
use proto::agent::Secret;
use proto::host::Firmware;
use proto::power::PowerState;
use rack::power::{PowerFailure, PowerWhy, host_and_port};
use std::io;
use std::process::Stdio;
use tokio::process::Command;

/// IPMI's port for RMCP (IPMI 2.0, section 13.1.2).
const PORT: u16 = 623;
/// Cipher suites in the order in which they are tried (IPMI 2.0 with errata 7, table 22-20): SHA-256 with AES, SHA-1 with AES. None
/// without encryption is.
const SUITES: [&str; 2] = ["17", "3"];

/// A controller that is asked by IPMI.
pub(super) struct Ipmi<'a> {
    address: &'a str,
    host: &'a str,
    port: u16,
    user: &'a str,
    password: &'a Secret,
    limits: Limits,
    /// Place in [`SUITES`] of that which it takes.
    suite: usize,
}

/// How one call of ipmitool ended.
struct Called {
    good: bool,
    out: String,
    err: String,
}

impl<'a> Ipmi<'a> {
    pub(super) fn new(
        address: &'a str,
        user: &'a str,
        password: &'a Secret,
        limits: Limits,
    ) -> Result<Self, PowerFailure> {
        let Some((host, port)) = host_and_port(address) else {
            let text = format!("BMC {address:?} (ipmi): that is no address; set another");
            return Err(PowerFailure { why: PowerWhy::Unable, text });
        };
        Ok(Self { address, host, port: port.unwrap_or(PORT), user, password, limits, suite: 0 })
    }

    pub(super) async fn state(&mut self) -> Result<PowerState, PowerFailure> {
        let said = self.ask("asking whether the machine is on", &["chassis", "power", "status"]).await?;
        power_of(&said).ok_or_else(|| {
            let said = quoted(&said, self.password);
            self.failure(PowerWhy::Unreached, &format!("asking whether the machine is on: it answered {said:?}"))
        })
    }

    pub(super) async fn switch(&mut self, on: bool) -> Result<(), PowerFailure> {
        let (doing, word) = if on { ("switching on", "on") } else { ("switching off", "off") };
        self.ask(doing, &["chassis", "power", word]).await.map(drop)
    }

    /// Sets boot flags for the next boot alone (IPMI 2.0, section 28.13, parameter 5).
    pub(super) async fn boot_from_network_once(&mut self, firmware: Firmware) -> Result<(), PowerFailure> {
        let options: &[&str] = match firmware {
            Firmware::Bios => &["chassis", "bootdev", "pxe"],
            Firmware::Uefi => &["chassis", "bootdev", "pxe", "options=efiboot"],
        };
        self.ask("setting the next boot to the network", options).await.map(drop)
    }

    pub(super) fn failure(&self, why: PowerWhy, what: &str) -> PowerFailure {
        PowerFailure { why, text: format!("BMC {} (ipmi): {what}", self.address) }
    }

    /// What ipmitool printed, by the first suite that the controller takes.
    async fn ask(&mut self, doing: &str, words: &[&str]) -> Result<String, PowerFailure> {
        loop {
            let called = self.call(doing, words).await?;
            if called.good {
                return Ok(called.out);
            }
            match why_not(&called.err) {
                Why::Suite if self.suite + 1 < SUITES.len() => self.suite += 1,
                why => return Err(self.told(doing, why, &called.err)),
            }
        }
    }

    async fn call(&self, doing: &str, words: &[&str]) -> Result<Called, PowerFailure> {
        let mut command = Command::new("ipmitool");
        // With -v it says why a session was not begun. A packet is sent three times. Operator is all that power and
        // boot flags need (IPMI 2.0, appendix G).
        let resend = self.limits.resend.as_secs().to_string();
        command.args(["-v", "-I", "lanplus", "-L", "OPERATOR", "-N", &resend, "-R", "2", "-C", SUITES[self.suite]]);
        command.args(["-H", self.host, "-p", &self.port.to_string(), "-U", self.user, "-E"]).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.env("IPMI_PASSWORD", &self.password.0);
        command.stdin(Stdio::null()).kill_on_drop(true);
        match within(self.limits, command.output()).await {
            None => {
                let s = self.limits.request.as_secs();
                let what = format!("{doing}: ipmitool had no answer within {s} s; see whether the controller hangs");
                Err(self.failure(PowerWhy::Unreached, &what))
            }
            Some(Err(err)) => {
                let install = match err.kind() {
                    io::ErrorKind::NotFound => "; install Debian's package ipmitool on the server",
                    _ => "",
                };
                Err(self.failure(PowerWhy::Unable, &format!("{doing}: running ipmitool: {err}{install}")))
            }
            Some(Ok(out)) => Ok(Called {
                good: out.status.success(),
                out: String::from_utf8_lossy(&out.stdout).into_owned(),
                err: String::from_utf8_lossy(&out.stderr).into_owned(),
            }),
        }
    }

    fn told(&self, doing: &str, why: Why, said: &str) -> PowerFailure {
        let user = self.user;
        match why {
            Why::User => {
                let what =
                    format!("{doing}: it knows no user {user:?} that may be operator; set the right user and password");
                self.failure(PowerWhy::Login, &what)
            }
            Why::Password => {
                let what = format!("{doing}: the password of {user:?} is wrong; set the right one");
                self.failure(PowerWhy::Login, &what)
            }
            Why::Silent => {
                let port = self.port;
                let what = format!(
                    "{doing}: it does not answer on UDP port {port}; see that the address is right, that the controller has power, and that IPMI over LAN is switched on there"
                );
                self.failure(PowerWhy::Unreached, &what)
            }
            Why::Suite => {
                let suites = SUITES.join(" nor ");
                let what = format!("{doing}: it takes neither cipher suite {suites}; switch one of them on there");
                self.failure(PowerWhy::Unable, &what)
            }
            Why::Old => {
                let what = format!("{doing}: it does not speak IPMI 2.0 (RMCP+); switch that on there");
                self.failure(PowerWhy::Unable, &what)
            }
            Why::Other => {
                let what = format!("{doing}: {}", quoted(&errors_of(said), self.password));
                self.failure(PowerWhy::Unreached, &what)
            }
        }
    }
}

/// Why ipmitool failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    User,
    Password,
    Suite,
    /// It knows IPMI 1.5, which does not encrypt.
    Old,
    Silent,
    Other,
}

/// From what ipmitool 1.8.18 and 1.8.19 print with -v (src/plugins/lanplus/lanplus.c).
fn why_not(said: &str) -> Why {
    let says = |text: &str| said.contains(text);
    if says("unauthorized name") || says("unauthorized role") || says("Set Session Privilege Level to OPERATOR failed")
    {
        Why::User
    } else if says("HMAC is invalid") || says("invalid integrity check value") {
        Why::Password
    } else if says("insufficient resources") {
        // All its sessions are taken, which ends by itself; it says so where it would refuse the suite.
        Why::Other
    } else if says("in open session response message") {
        Why::Suite
    } else if says("does not support IPMI v2") {
        Why::Old
    } else if says("Get Auth Capabilities error") || says("No response") || says("Unable to establish") {
        Why::Silent
    } else {
        Why::Other
    }
}

/// Without what it prints in good times as well.
fn errors_of(said: &str) -> String {
    let chatter = ["Loading IANA", "Running Get", "Invalid completion code received: ", "Discovered IPMB"];
    let lines = said.lines().filter(|line| !chatter.iter().any(|start| line.starts_with(start)));
    lines.collect::<Vec<_>>().join("; ")
}

/// `Chassis Power is on`.
fn power_of(said: &str) -> Option<PowerState> {
    said.lines().find_map(|line| match line.trim().strip_prefix("Chassis Power is ")? {
        "on" => Some(PowerState::On),
        "off" => Some(PowerState::Off),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(power_of("Chassis Power is on\n"), Some(PowerState::On));
        assert_eq!(power_of("x\nChassis Power is off\n"), Some(PowerState::Off));
        for bad in ["", "Chassis Power is ", "Chassis Power Control: Up/On", "power is on"] {
            assert_eq!(power_of(bad), None, "{bad}");
        }
    }

    /// Each as ipmitool 1.8.19 printed it to ipmi_sim 2.0.33, or to nobody.
    #[test]
    fn reasons() {
        for (said, why) in [
            (
                "Error in open session response message : invalid authentication algorithm\n\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::Suite,
            ),
            (
                "Loading IANA PEN Registry...\n> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::Password,
            ),
            (
                "RAKP 2 message indicates an error : unauthorized name\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::User,
            ),
            (
                "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::Silent,
            ),
            (
                "This BMC does not support IPMI v2 / RMCP+\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::Old,
            ),
            ("Set Chassis Power Control to Up/On failed: Node busy\n", Why::Other),
            // Not printed to a simulator: from lanplus.c and lanplus_strings.c.
            (
                "Error in open session response message : insufficient resources for session\n\nError: Unable to establish IPMI v2 / RMCP+ session\n",
                Why::Other,
            ),
        ] {
            assert_eq!(why_not(said), why, "{said}");
        }
        assert_eq!(
            errors_of("Loading IANA PEN Registry...\nSet Chassis failed: Node busy\n"),
            "Set Chassis failed: Node busy"
        );
    }
}
