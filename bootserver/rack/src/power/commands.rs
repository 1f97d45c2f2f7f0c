//! What an operator says of controllers and orders of them, and what is refused.

use super::{Bmc, Line, PowerOrder, Trust, host_and_port, secure_on};
use crate::Rack;
use crate::effect::{Answer, Reply};
use crate::event::{Now, ReplyTo};
use proto::HostId;
use proto::agent::Secret;
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::power::{BmcKind, OrderPower, PowerVerb, SetBmc};
use std::net::IpAddr;

/// The longest account name, bytes (IPMI 2.0, section 22.28).
const IPMI_USER_BYTES_MAX: usize = 16;
/// The longest password, bytes (IPMI 2.0, section 22.30).
const IPMI_PASSWORD_BYTES_MAX: usize = 20;
/// The longest of Redfish, bytes.
const TEXT_BYTES_MAX: usize = 128;
/// Operators that wait for one controller, at most.
const ASKING_MAX: usize = 8;

/// A controller as it is to be kept. `before` is that which is kept now, `told` the address in the machine's inventory.
///
/// # Errors
/// `BadValue`; never with a password in it.
pub(crate) fn bmc_of(request: SetBmc, before: Option<&Bmc>, told: Option<IpAddr>) -> Result<Bmc, Refusal> {
    let SetBmc { kind, address, user, password, trust, system } = request;
    let bad = |field: &str, given: &str, expected: &str| {
        let given = given.chars().take(80).collect();
        Refusal::BadValue { field: field.to_owned(), given, expected: expected.to_owned() }
    };
    let [address, system, trust] = [address, system, trust].map(|text| text.filter(|text| !text.is_empty()));
    if let Some(address) = &address
        && host_and_port(address).is_none()
    {
        return Err(bad("address", address, "a name or an IP address, with :PORT where it is not the usual one"));
    }
    let fits = |text: &str, most: usize| (1..=most).contains(&text.len()) && !text.chars().any(char::is_control);
    if kind != BmcKind::Redfish
        && let Some(given) = trust.as_ref().or(system.as_ref())
    {
        return Err(bad("trust, system", given, &format!("nothing: these are Redfish's, and this is {kind}")));
    }
    if kind == BmcKind::Wake {
        if !user.is_empty() {
            return Err(bad("user", &user, "none: nobody logs in to wake a machine"));
        }
        if password.as_ref().is_some_and(|password| secure_on(password).is_none()) {
            return Err(bad("password", "(not shown)", "a SecureOn password, six bytes as 01:23:45:67:89:ab"));
        }
        return Ok(Bmc::Wake { to: address, password });
    }
    let address = match (address, told) {
        (Some(address), _) => address,
        (None, Some(told)) => told.to_string(),
        (None, None) => {
            return Err(bad("address", "", "its name or IP address, as the machine's inventory tells none"));
        }
    };
    let (user_max, password_max) = match kind {
        BmcKind::Ipmi => (IPMI_USER_BYTES_MAX, IPMI_PASSWORD_BYTES_MAX),
        _ => (TEXT_BYTES_MAX, TEXT_BYTES_MAX),
    };
    // RFC 7617, section 2: a colon ends the name.
    if !fits(&user, user_max) || user.contains(':') && kind == BmcKind::Redfish {
        return Err(bad("user", &user, &format!("1 to {user_max} bytes without control characters, and no colon")));
    }
    let same = before.is_some_and(|bmc| match bmc {
        Bmc::Wake { .. } => false,
        Bmc::Ipmi { address: at, .. } | Bmc::Redfish { address: at, .. } => bmc.kind() == kind && *at == address,
    });
    let kept: Option<&Secret> = before.filter(|_| same).and_then(|bmc| match bmc {
        Bmc::Ipmi { user: account, password, .. } | Bmc::Redfish { user: account, password, .. } => {
            (*account == user).then_some(password)
        }
        Bmc::Wake { .. } => None,
    });
    let Some(password) = password.or_else(|| kept.cloned()) else {
        return Err(bad("password", "", "one, as none is kept for this kind, address and user"));
    };
    if !fits(&password.0, password_max) {
        let expected = format!("1 to {password_max} bytes without control characters");
        return Err(bad("password", "(not shown)", &expected));
    }
    if kind == BmcKind::Ipmi {
        return Ok(Bmc::Ipmi { address, user, password });
    }
    if let Some(system) = system.as_ref().filter(|system| !fits(system, TEXT_BYTES_MAX)) {
        return Err(bad("system", system, "a system's Id, 1 to 128 bytes without control characters"));
    }
    let trust = match (trust.as_deref(), before) {
        (Some("first"), _) => Trust::First,
        (Some("any"), _) => Trust::Any,
        (Some(given), _) => {
            let digits = given.replace(':', "").to_lowercase();
            if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad("trust", given, "first, any, or the 64 hexadecimal digits of a certificate's sha256"));
            }
            Trust::Pinned(digits)
        }
        (None, Some(Bmc::Redfish { trust, .. })) if same => trust.clone(),
        (None, _) => Trust::First,
    };
    Ok(Bmc::Redfish { address, user, password, trust, system })
}

impl Rack {
    pub(crate) fn set_bmc(&mut self, host: &HostId, request: SetBmc, now: Now) -> Result<Accepted, Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        let told = record.inventory.as_ref().and_then(|inventory| inventory.hardware.bmc.as_ref()?.address);
        let bmc = bmc_of(request, record.bmc.as_ref(), told)?;
        let kind = bmc.kind();
        self.put_bmc(host, Some(bmc));
        let text = format!("{host}: its power is switched by {kind} from now on");
        self.info(Topic::Operator, now, text, |e| e.host = Some(host.clone()));
        self.power_tick(now);
        Ok(Accepted::Done)
    }

    pub(crate) fn forget_bmc(&mut self, host: &HostId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        if record.bmc.is_none() {
            return Err(Refusal::NoBmc { host: host.clone() });
        }
        if record.power.as_ref().is_some_and(PowerOrder::is_open) {
            return Err(Refusal::PowerUnderWay { host: host.clone() });
        }
        self.put_bmc(host, None);
        self.info(Topic::Operator, now, format!("{host}: its BMC was forgotten"), |e| e.host = Some(host.clone()));
        Ok(Accepted::Done)
    }

    /// Whatever was known by the controller before is void; its order goes on with the new one.
    pub(crate) fn put_bmc(&mut self, host: &HostId, bmc: Option<Bmc>) {
        let kept = bmc.is_some();
        if let Some(record) = self.hosts.edit(host) {
            record.bmc = bmc;
            record.power = record.power.take().filter(|_| kept);
            record.bmc_doubted = false;
        }
        let line = &mut self.live(host).power;
        let asking = std::mem::take(&mut line.asking);
        *line = Line::anew(if kept { asking.clone() } else { Vec::new() });
        if !kept {
            for reply in asking {
                self.answer(reply, Answer::Operator(Err(Refusal::NoBmc { host: host.clone() })));
            }
        }
    }

    pub(crate) fn order_power(&mut self, host: &HostId, request: OrderPower, now: Now) -> Result<Accepted, Refusal> {
        let OrderPower { verb, network } = request;
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        let Some(bmc) = &record.bmc else { return Err(Refusal::NoBmc { host: host.clone() }) };
        if network && verb == PowerVerb::Off {
            let expected = "false: what is switched off does not boot".to_owned();
            return Err(Refusal::BadValue { field: "network".to_owned(), given: "true".to_owned(), expected });
        }
        // What becomes of it is the fence's to say, until its guests are certainly gone.
        if self.awaits_power_off(host) {
            return Err(Refusal::HostFenced { host: host.clone() });
        }
        if let Some(order) = record.power.as_ref().filter(|order| order.is_open()) {
            if (order.view.verb, order.view.network) == (verb, network) && !order.fence {
                return Ok(Accepted::Begun);
            }
            return Err(Refusal::PowerUnderWay { host: host.clone() });
        }
        if bmc.kind() == BmcKind::Wake {
            if verb != PowerVerb::On || network {
                let what = if network { "set what is booted" } else { "switch off" };
                return Err(Refusal::BmcCannot { host: host.clone(), kind: BmcKind::Wake, what: what.to_owned() });
            }
            if self.reporting(host) {
                return Ok(Accepted::Done);
            }
        }
        if verb != PowerVerb::On {
            self.may_take_down(host)?;
        }
        self.put_order(host, verb, network, false, now);
        Ok(Accepted::Begun)
    }

    /// Whether no guest and no move would be hurt. One that is drained, or was fenced, has none.
    pub(super) fn may_take_down(&self, host: &HostId) -> Result<(), Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        match record.fence {
            // Its sessions are being cut; what runs there is not known before that is done.
            Some(crate::record::Fence::Cutting) => return Err(Refusal::HostFenced { host: host.clone() }),
            Some(crate::record::Fence::Done) => return Ok(()),
            None => {}
        }
        let live = self.live.get(host);
        // What runs there is not known, unless it is silent: then a person knows better.
        if let Some(detail) =
            self.survey_note().filter(|_| self.may_run_unknown(host) && !live.is_some_and(|l| l.silent))
        {
            return Err(Refusal::Unavailable { detail });
        }
        let shown = live.and_then(|live| live.report.as_ref()).map_or(0, |report| report.domains.len());
        if shown > 0 && self.surveying() {
            return Err(Refusal::HostHasVms { host: host.clone(), count: shown });
        }
        if let Some(r#move) = self.moves_of(host).next() {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        match self.vms_that_may_run(host) {
            0 => Ok(()),
            count => Err(Refusal::HostHasVms { host: host.clone(), count }),
        }
    }

    /// Asks the controller now; answered when it has, or with what is known while it is being told something.
    pub(crate) fn ask_power(&mut self, reply: ReplyTo, host: &HostId, now: Now) -> Result<(), Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        let shown = self.power_shown(record).ok_or_else(|| Refusal::NoBmc { host: host.clone() })?;
        let open = record.power.as_ref().is_some_and(PowerOrder::is_open);
        let asking = &mut self.live(host).power.asking;
        if open || shown.kind == BmcKind::Wake || asking.len() >= ASKING_MAX {
            self.answer(reply, Answer::Operator(Ok(Reply::Power(shown))));
        } else {
            asking.push(reply);
            self.power_tick(now);
        }
        Ok(())
    }
}
