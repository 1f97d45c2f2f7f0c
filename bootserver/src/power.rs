//! Power of hosts: telling their management controllers, and waiting until it is so.
//!
//! Owns: the way from an order of the rack to a controller's confirmed answer. Never does: decide, try again, or keep anything:
//! each job begins by asking what is so. No secret is in an error, a log line or a command line.
//!
//! ```text
//! State: ask                        On: ask ─off─> [network, once] ─> on ──┐          Off: ask ─on─> off at once ──┐
//!                                        └─on──> done   done <─it is on─ ask each second    └off> done <─off─ ask each second
//! ```

mod ipmi;
mod jobs;
mod redfish;
mod tls;
mod wake;

pub use jobs::PowerJobs;

use ipmi::Ipmi;
use proto::agent::Secret;
use proto::host::Firmware;
use proto::power::PowerState;
use rack::power::{Bmc, PowerAnswer, PowerFailure, PowerOp, PowerWhy};
use redfish::Redfish;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a controller may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For one question or command. Controllers are slow computers: several seconds for a TLS handshake are not rare.
    pub request: Duration,
    /// Until a question or command by IPMI is sent again, whole seconds. A controller that is slower may do it twice.
    pub resend: Duration,
    /// From the command until it says that it is so.
    pub confirm: Duration,
    /// Between questions whether it is so.
    pub look_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { request: s(15), resend: s(1), confirm: s(45), look_every: s(1) }
    }
}

/// A controller that answers.
enum Controller<'a> {
    Ipmi(Ipmi<'a>),
    Redfish(Box<Redfish<'a>>),
}

/// Does one job. [`PowerOp::Off`] is what a fence relies on: it succeeds only when the controller itself said that the machine is off.
///
/// # Errors
/// Within a few times `limits.request` and once `limits.confirm`, whatever the controller does.
pub async fn perform(bmc: &Bmc, op: PowerOp, limits: Limits) -> Result<PowerAnswer, PowerFailure> {
    let mut controller = match bmc {
        Bmc::Wake { to, password } => {
            let PowerOp::On { network: None, mac, broadcast } = op else {
                let what = "a machine that is only woken cannot be asked, switched off or told how to boot";
                return Err(PowerFailure { why: PowerWhy::Unable, text: format!("wake: {what}") });
            };
            return wake::wake(mac, to.as_deref(), broadcast, password.as_ref()).await;
        }
        Bmc::Ipmi { address, user, password } => Controller::Ipmi(Ipmi::new(address, user, password, limits)?),
        Bmc::Redfish { address, user, password, trust, system } => {
            let redfish = Redfish::new(address, user, password, trust, system.as_deref(), limits)?;
            Controller::Redfish(Box::new(redfish))
        }
    };
    let now = controller.state().await?;
    let state = match (op, now) {
        (PowerOp::State, state) => state,
        (PowerOp::On { .. }, PowerState::On) | (PowerOp::Off, PowerState::Off) => now,
        (PowerOp::On { network, .. }, _) => {
            if let Some(firmware) = network {
                controller.boot_from_network_once(firmware).await?;
            }
            controller.switch(true).await?;
            controller.confirm(PowerState::On, limits).await?
        }
        (PowerOp::Off, _) => {
            controller.switch(false).await?;
            controller.confirm(PowerState::Off, limits).await?
        }
    };
    Ok(PowerAnswer { state, certificate: controller.certificate() })
}

impl Controller<'_> {
    async fn state(&mut self) -> Result<PowerState, PowerFailure> {
        match self {
            Self::Ipmi(ipmi) => ipmi.state().await,
            Self::Redfish(redfish) => redfish.state().await,
        }
    }

    async fn switch(&mut self, on: bool) -> Result<(), PowerFailure> {
        match self {
            Self::Ipmi(ipmi) => ipmi.switch(on).await,
            Self::Redfish(redfish) => redfish.switch(on).await,
        }
    }

    async fn boot_from_network_once(&mut self, firmware: Firmware) -> Result<(), PowerFailure> {
        match self {
            Self::Ipmi(ipmi) => ipmi.boot_from_network_once(firmware).await,
            // Its own setting says by which firmware it boots.
            Self::Redfish(redfish) => redfish.boot_from_network_once().await,
        }
    }

    fn certificate(&self) -> Option<String> {
        match self {
            Self::Ipmi(_) => None,
            Self::Redfish(redfish) => redfish.certificate().map(str::to_owned),
        }
    }

    fn failure(&self, why: PowerWhy, what: &str) -> PowerFailure {
        match self {
            Self::Ipmi(ipmi) => ipmi.failure(why, what),
            Self::Redfish(redfish) => redfish.failure(why, what),
        }
    }

    /// Asks until the controller says that it is so. A question that fails meanwhile is asked again: some controllers do not answer while
    /// they switch.
    async fn confirm(&mut self, wanted: PowerState, limits: Limits) -> Result<PowerState, PowerFailure> {
        let until = Instant::now() + limits.confirm;
        loop {
            let state = self.state().await;
            if state.as_ref() == Ok(&wanted) {
                return Ok(wanted);
            }
            if Instant::now() >= until {
                let s = limits.confirm.as_secs();
                return Err(match state {
                    Ok(state) => {
                        let what = format!(
                            "it took the command to switch {wanted}, and {s} s later says that the machine is {state}; look at the machine itself"
                        );
                        self.failure(PowerWhy::Unreached, &what)
                    }
                    Err(failure) => failure,
                });
            }
            sleep(limits.look_every).await;
        }
    }
}

/// Bounds one question; `None` when its time is over.
async fn within<T>(limits: Limits, work: impl Future<Output = T>) -> Option<T> {
    timeout(limits.request, work).await.ok()
}

/// What somebody else said, fit for a line of a log: one line, bounded, and without the password should it be in there.
fn quoted(said: &str, password: &Secret) -> String {
    let said = if password.0.is_empty() { said.to_owned() } else { said.replace(&password.0, "…") };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
