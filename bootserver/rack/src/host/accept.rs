//! Letting machines in without being asked each time: by a list of machines to come, or by rules on what a machine is.
//!
//! Owns: what a list's entry and a rule fit, and the names and labels that they give. Never does: believe more than the operator did who
//! wrote them; UUID and serial number are what the machine itself says.

use super::Rack;
use crate::dhcp::machine::MachineId;
use crate::event::{ListedHost, Now};
use crate::policy::AcceptRule;
use crate::power::{Bmc, bmc_of};
use crate::record::{ExpectedRecord, HostRecord};
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::host::Inventory;
use proto::view::BootStepKind;
use proto::{HostId, Mac};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Machines that are expected by UUID or serial number, at most.
const EXPECTED_MAX: usize = 10_000;
/// Labels of one host, at most.
const LABELS_MAX: usize = 32;
/// The longest name, label or value, characters.
const NAME_CHARS_MAX: usize = 63;
/// What makers leave in where a serial number belongs.
const NO_SERIALS: [&str; 8] = [
    "0",
    "none",
    "default string",
    "to be filled by o.e.m.",
    "system serial number",
    "not specified",
    "123456789",
    "n/a",
];

/// Whether a text fits a pattern in which `*` stands for anything; case does not count.
pub(crate) fn fits_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return text.ends_with(piece);
        }
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// Whether a rule lets such a machine in.
pub(crate) fn fits_rule(rule: &AcceptRule, inventory: &Inventory, address: Ipv4Addr) -> bool {
    let like = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| fits_pattern(p, text));
    like(&rule.product, &inventory.product)
        && like(&rule.cpu, &inventory.cpu.model)
        && rule.memory_mib.is_none_or(|least| inventory.memory_mib >= least)
        && rule.nic.as_ref().is_none_or(|p| inventory.nics.iter().any(|nic| fits_pattern(p, &nic.driver)))
        && rule.network.is_none_or(|(network, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        })
}

/// A serial number as it is compared; `None` for what stands in its place.
fn serial(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    (!text.is_empty() && !NO_SERIALS.contains(&text.as_str())).then_some(text)
}

impl ExpectedRecord {
    fn is(&self, inventory: &Inventory) -> bool {
        let same_uuid =
            MachineId::of_text(&self.uuid).is_some_and(|own| MachineId::of_text(&inventory.uuid) == Some(own));
        let same_serial = serial(&self.serial).is_some_and(|own| serial(&inventory.serial) == Some(own));
        // Where both are given, both must fit.
        match (self.uuid.is_empty(), self.serial.is_empty()) {
            (false, false) => same_uuid && same_serial,
            _ => same_uuid || same_serial,
        }
    }
}

/// A name made of a template: `{serial}`, `{product}`, `{mac}` and `{n}`, the least number from 1 whose name is free.
fn named(template: &str, mac: Mac, inventory: &Inventory, taken: impl Fn(&str) -> bool) -> Option<String> {
    let plain = |text: &str| text.trim().replace([' ', '/'], "-");
    let base = template
        .replace("{serial}", &plain(&inventory.serial))
        .replace("{product}", &plain(&inventory.product))
        .replace("{mac}", &mac.to_string().replace(':', ""));
    let fits = |name: &String| fits_name(name) && !taken(name);
    if base.contains("{n}") {
        // One more than there are hosts is free for certain.
        (1..=100_000).map(|n: u32| base.replace("{n}", &n.to_string())).find(fits)
    } else {
        Some(base).filter(fits)
    }
}

/// Whether it may be a name, a label or a label's value.
pub(crate) fn fits_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Refuses labels that cannot be kept.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bad = |given: String, expected: String| Refusal::BadValue { field: "labels".to_owned(), given, expected };
    if labels.len() > LABELS_MAX {
        return Err(bad(labels.len().to_string(), format!("{LABELS_MAX} or fewer")));
    }
    match labels.iter().find(|(key, value)| !fits_name(key) || !fits_name(value) || key.contains('=')) {
        Some((key, value)) => Err(bad(
            format!("{key}={value}").chars().take(80).collect(),
            format!(
                "names and values of 1 to {NAME_CHARS_MAX} characters, none of them control characters, and no = in a name"
            ),
        )),
        None => Ok(()),
    }
}

impl Rack {
    /// Lets in a machine that a list expects or a rule fits, and gives it name and labels.
    pub(crate) fn accept_by_itself(&mut self, host: &HostId, now: Now) {
        let Some(record) = self.hosts.get(host).filter(|record| !record.accepted && record.joined()) else { return };
        let (mac, Some(inventory)) = (record.mac, record.inventory.clone()) else { return };
        let listed = self.expected.iter().find(|(_, expected)| expected.is(&inventory)).map(|(id, _)| *id);
        let (by, name, labels, bmc) = if let Some(expected) = listed.and_then(|id| self.expected.remove(&id)) {
            ("the list".to_owned(), expected.name, expected.labels, expected.bmc)
        } else {
            let Some(address) = self.leases.address_of(mac) else { return };
            let mut rules = self.policy.accept.iter().enumerate();
            let Some((at, rule)) = rules.find(|(_, rule)| fits_rule(rule, &inventory, address)) else { return };
            (format!("rule {} of accept", at + 1), rule.name.clone(), rule.labels.clone(), None)
        };
        let name = name.and_then(|template| {
            let taken = |name: &str| self.hosts.values().any(|other| other.name == name && other.id != *host);
            let made = named(&template, mac, &inventory, taken);
            if made.is_none() {
                let text = format!("{host} keeps its name: what {template:?} makes of it is taken, or no name");
                self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
            }
            made
        });
        if let Some(record) = self.hosts.edit(host) {
            record.name = name.unwrap_or_else(|| record.name.clone());
            record.labels.extend(labels);
        }
        if bmc.is_some() {
            self.put_bmc(host, bmc);
        }
        self.info(Topic::Host, now, format!("{host} was let in by {by}"), |e| e.host = Some(host.clone()));
        self.admit(host, now);
    }

    /// Lets a machine in: one that was not is alive from now on, so that a boot that has joined and never reports is missed in time.
    pub(crate) fn admit(&mut self, host: &HostId, now: Now) {
        let Some(record) = self.hosts.edit(host) else { return };
        let (mac, was_in) = (record.mac, std::mem::replace(&mut record.accepted, true));
        if !was_in {
            self.live(host).sign_mono_ms = now.mono_ms;
        }
        self.lease_ahead(mac, now);
    }

    /// Takes a list of machines to come: all of it, or none.
    pub(crate) fn list_hosts(&mut self, hosts: Vec<ListedHost>, replace: bool, now: Now) -> Result<Accepted, Refusal> {
        let kept = if replace { 0 } else { self.expected.len() };
        let bad = |line: usize, what: &str, given: String, expected: String| Refusal::BadValue {
            field: format!("line {line}, {what}"),
            given,
            expected,
        };
        if kept + hosts.len() > EXPECTED_MAX {
            let given = (kept + hosts.len()).to_string();
            return Err(bad(hosts.last().map_or(0, |h| h.line), "machines", given, format!("{EXPECTED_MAX} or fewer")));
        }
        let (mut macs, mut names) = (BTreeMap::new(), BTreeMap::new());
        for host in &hosts {
            let line = host.line;
            if let Some(mac) = host.mac {
                if let Some(other) = macs.insert(mac, line) {
                    return Err(bad(line, "mac", mac.to_string(), format!("another than that of line {other}")));
                }
                // A template's name is found when the machine comes; this one is given at once.
                let taken = |name: &String| {
                    self.hosts.values().any(|other| other.name == *name && other.id != self.host_of(mac))
                };
                if let Some(name) = &host.name
                    && (names.insert(name, line).is_some() || taken(name))
                {
                    return Err(bad(line, "name", name.chars().take(80).collect(), "a name that is free".to_owned()));
                }
            }
            if let Some(mac) = host.mac
                && (self.vm_macs.contains_key(&mac) || mac.0[0] & 1 != 0 || mac.0 == [0; 6])
            {
                return Err(bad(line, "mac", mac.to_string(), "a machine's own address, and none of a VM".to_owned()));
            }
            if host.mac.is_none() && MachineId::of_text(&host.uuid).is_none() && serial(&host.serial).is_none() {
                let given = format!("{} {}", host.uuid, host.serial).trim().to_owned();
                return Err(bad(
                    line,
                    "uuid, serial",
                    given,
                    "a MAC, a UUID or a serial number that is the machine's own".to_owned(),
                ));
            }
            if let Some(name) = &host.name
                && !fits_name(name)
            {
                return Err(bad(
                    line,
                    "name",
                    name.chars().take(80).collect(),
                    format!("1 to {NAME_CHARS_MAX} characters"),
                ));
            }
            check_labels(&host.labels).map_err(|refusal| match refusal {
                Refusal::BadValue { field, given, expected } => bad(line, &field, given, expected),
                other => other,
            })?;
        }
        let mut bmcs = Vec::new();
        for host in &hosts {
            let before = host.mac.and_then(|mac| self.hosts.get(&self.host_of(mac))?.bmc.as_ref());
            let bmc = host.bmc.clone().map(|request| bmc_of(request, before, None)).transpose();
            bmcs.push(bmc.map_err(|refusal| match refusal {
                Refusal::BadValue { field, given, expected } => {
                    bad(host.line, &format!("bmc {field}"), given, expected)
                }
                other => other,
            })?);
        }
        if replace {
            for id in self.expected.ids() {
                self.expected.remove(&id);
            }
        }
        let count = hosts.len();
        for (host, bmc) in hosts.into_iter().zip(bmcs) {
            self.expect_host(host, bmc, now);
        }
        self.accept_all(now);
        self.info(Topic::Operator, now, format!("a list of {count} machines was taken"), |_| ());
        Ok(Accepted::Done)
    }

    /// One that is named by its MAC is let in as by hand; another when it is seen to be the one.
    fn expect_host(&mut self, host: ListedHost, bmc: Option<Bmc>, now: Now) {
        let ListedHost { line: _, mac, uuid, serial, name, labels, bmc: _ } = host;
        let Some(mac) = mac else {
            let id = self.expected.iter().last().map_or(1, |(id, _)| id + 1);
            return self.expected.put(ExpectedRecord { id, uuid, serial, name, labels, bmc });
        };
        let id = self.host_of(mac);
        if !self.hosts.contains(&id) {
            self.hosts.put(HostRecord::new(mac));
        }
        if let Some(record) = self.hosts.edit(&id) {
            record.registered = true;
            record.name = name.unwrap_or_else(|| record.name.clone());
            record.labels.extend(labels);
        }
        if bmc.is_some() {
            self.put_bmc(&id, bmc);
        }
        self.admit(&id, now);
    }

    /// Looks at all that wait: the list or the rules have changed.
    pub(crate) fn accept_all(&mut self, now: Now) {
        for host in self.hosts.ids() {
            self.accept_by_itself(&host, now);
            if self.hosts.get(&host).is_some_and(|record| record.accepted && record.joined()) {
                self.step_ends(&host, BootStepKind::Join, now);
            }
            self.note_host_state(&host, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{inventory, mac};

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("Dell*R6*", "Dell Inc. PowerEdge R640", true),
            ("dell*r6*", "HPE ProLiant", false),
            ("*", "", true),
            ("ixgbe", "IXGBE", true),
            ("ixgbe", "ixgbevf", false),
            ("a*a", "a", false),
            ("*b*c", "abcabc", true),
            ("a**c", "abc", true),
            ("", "", true),
        ] {
            assert_eq!(fits_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn rules() {
        let address = Ipv4Addr::new(10, 77, 0, 60);
        let all = AcceptRule::default();
        for (rule, fits) in [
            (all.clone(), true),
            (AcceptRule { product: Some("QE*".into()), ..all.clone() }, true),
            (AcceptRule { product: Some("Dell*".into()), ..all.clone() }, false),
            (AcceptRule { cpu: Some("y*".into()), ..all.clone() }, false),
            (AcceptRule { memory_mib: Some(4608), ..all.clone() }, true),
            (AcceptRule { memory_mib: Some(4609), ..all.clone() }, false),
            (AcceptRule { nic: Some("*".into()), ..all.clone() }, false),
            (AcceptRule { network: Some((Ipv4Addr::new(10, 77, 0, 0), 24)), ..all.clone() }, true),
            (AcceptRule { network: Some((Ipv4Addr::new(10, 78, 0, 0), 24)), ..all.clone() }, false),
            (AcceptRule { network: Some((Ipv4Addr::UNSPECIFIED, 0)), ..all.clone() }, true),
        ] {
            assert_eq!(fits_rule(&rule, &inventory(), address), fits, "{rule:?}");
        }
    }

    #[test]
    fn names() {
        let made = |template: &str, serial: &str| {
            let inventory = Inventory { serial: serial.to_owned(), ..inventory() };
            named(template, mac(1), &inventory, |name| name == "r1" || name == "S1")
        };
        assert_eq!(made("r{n}", ""), Some("r2".to_owned()));
        assert_eq!(made("{product}-{serial}", "A 1/2 "), Some("QEMU-A-1-2".to_owned()));
        assert_eq!(made("{mac}", ""), Some("525400aabb01".to_owned()));
        assert_eq!(made("{serial}", "S1"), None, "taken");
        assert_eq!(made("{serial}", ""), None, "no name");
        assert_eq!(made("{serial}", &"x".repeat(64)), None, "too long");
    }
}
