//! Power of machines: what an operator says of a management controller (BMC), asks of it, and sees.
//!
//! A password is only ever on its way in: no view has one.

use crate::agent::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;

/// By which protocol a machine's power is switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BmcKind {
    /// Wake-on-LAN: a magic packet. It can only switch on, and nobody answers it.
    Wake,
    /// IPMI 2.0 over LAN (RMCP+).
    Ipmi,
    /// Redfish over HTTPS (DSP0266).
    Redfish,
}

impl fmt::Display for BmcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wake => "wake",
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
        })
    }
}

/// What a machine's management controller is, and how to log in to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetBmc {
    /// Protocol.
    pub kind: BmcKind,
    /// Name or IP address, with `:PORT` (`[…]:PORT` for IPv6) where it is not the protocol's own. When absent: for IPMI and Redfish that
    /// which the machine's inventory told, for wake the broadcast address of the machine's subnet.
    #[serde(default)]
    pub address: Option<String>,
    /// Account; empty for wake.
    #[serde(default)]
    pub user: String,
    /// Its password; for wake a SecureOn password as six bytes, `aa:bb:cc:dd:ee:ff`. When absent: that which is kept, as long as kind, address
    /// and user stay the same; otherwise none.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Redfish only: which certificate to trust. `first` pins that which is shown next, `any` trusts whatever is shown, and 64 hexadecimal
    /// digits are the sha256 of the one. When absent: as it was for the same kind and address, otherwise `first`.
    #[serde(default)]
    pub trust: Option<String>,
    /// Redfish only: which of the systems behind this address it is, by its Id; needed only where there are several.
    #[serde(default)]
    pub system: Option<String>,
}

/// What is asked of a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PowerVerb {
    /// On; nothing is done to one that is on.
    On,
    /// Off, without asking what runs there.
    Off,
    /// Off, then on.
    Cycle,
}

impl fmt::Display for PowerVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
        })
    }
}

/// An operator's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderPower {
    /// What.
    pub verb: PowerVerb,
    /// Boot from the network this once, whatever the machine's boot order is; with on and cycle.
    #[serde(default)]
    pub network: bool,
}

/// Whether a machine has power, as its management controller says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PowerState {
    /// It is on.
    On,
    /// It is off.
    Off,
    /// Nobody has said so.
    #[default]
    Unknown,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
        })
    }
}

/// A machine's power as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PowerView {
    /// Protocol.
    pub kind: BmcKind,
    /// Where.
    pub address: String,
    /// Account.
    pub user: String,
    /// Redfish: `first`, `any`, or the sha256 of the certificate that is trusted; otherwise empty.
    pub trust: String,
    /// Redfish: which system; empty for the only one.
    pub system: String,
    /// What it said last.
    pub state: PowerState,
    /// When it said so, Unix milliseconds; absent when it never did since the server started.
    pub at_ms: Option<u64>,
    /// Since when it cannot be asked, Unix milliseconds; absent while it answers.
    pub failing_since_ms: Option<u64>,
    /// Why it cannot be asked: what was tried, what went wrong and what to do; empty while it answers.
    pub failure: String,
    /// The newest order.
    pub order: Option<PowerOrderView>,
}

/// An order to switch a machine's power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PowerOrderView {
    /// What.
    pub verb: PowerVerb,
    /// From the network, this once.
    pub network: bool,
    /// How far it is.
    pub stage: PowerStage,
    /// When it was given, Unix milliseconds.
    pub asked_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How often it was tried.
    pub tries: u32,
    /// What went wrong last; empty when nothing did.
    pub cause: String,
}

/// How far an order is.
///
/// ```text
/// Asked -> Doing -> Done
///   ^        |  \-> Failed
///   +--------+ tried again
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PowerStage {
    /// Given, and waits for its turn.
    Asked,
    /// The controller is being told.
    Doing,
    /// The controller says that it is so; of wake, that the packet was sent.
    Done,
    /// Given up; the cause says why.
    Failed,
}

impl fmt::Display for PowerStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked",
            Self::Doing => "doing",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}
