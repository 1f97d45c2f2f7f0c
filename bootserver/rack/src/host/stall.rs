//! Why a boot does not go on: one table of rules over how far it is.
//!
//! Owns: the rules, each with its likely cause as a person would be told it. Never does: look at a clock, or act on it; a stalled
//! machine is waited for as before, since most firmware tries again by itself.

use crate::dhcp::clients::Client;
use proto::host::Firmware;
use proto::view::{BootStep, BootStepKind};

/// After so many beginnings that got no further, or requests for the same file, it is no accident.
const AGAIN_MANY: u32 = 4;

/// How far a boot is, as the server sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    /// The newest step.
    pub(crate) last: &'a BootStep,
    /// Who sent the newest DHCP packet, as far as that is known.
    pub(crate) client: Option<Client>,
    /// Beginnings in a row, this one included, that got no further than the one before.
    pub(crate) rounds: u32,
    /// Since when nothing new has come, milliseconds.
    pub(crate) quiet_ms: u64,
}

impl Standing<'_> {
    fn is_ipxe(&self) -> bool {
        matches!(self.client, Some(Client::Ipxe(_)))
    }
}

/// A rule: where a boot is, and after how long without anything new it is taken to stand still.
struct Rule {
    at: At,
    /// Milliseconds; twice and more of what software emulation on two cores needs.
    quiet_ms: u64,
    cause: &'static str,
}

/// Where a boot is.
#[derive(Clone, Copy)]
enum At {
    /// Within this step.
    In(BootStepKind),
    /// This step has ended, and nothing has followed.
    After(BootStepKind),
    /// The same, and iPXE has asked DHCP since.
    AfterIpxe(BootStepKind),
    /// The same, and UEFI HTTP Boot has.
    AfterHttp(BootStepKind),
}

impl At {
    fn fits(self, standing: &Standing<'_>) -> bool {
        let (last, ended) = (standing.last.step, standing.last.took_ms.is_some());
        match self {
            Self::In(step) => last == step && !ended,
            Self::After(step) => last == step && ended,
            Self::AfterIpxe(step) => last == step && ended && standing.is_ipxe(),
            Self::AfterHttp(step) => last == step && ended && standing.client == Some(Client::Http),
        }
    }
}

const STOPPED: &str = "the download stopped: it may have been switched off, lost its link or be short of memory";

/// The first that fits counts.
const RULES: [Rule; 17] = [
    rule(
        At::In(BootStepKind::Dhcp),
        15_000,
        "it was offered an address and did not take it: another DHCP server answers as well, or a switch port that is not yet forwarding (spanning tree) loses the first packets",
    ),
    rule(
        At::AfterIpxe(BootStepKind::Dhcp),
        30_000,
        "iPXE has its address and does not ask for its script: a firewall or VLAN between it and the server's HTTP port",
    ),
    rule(
        At::AfterHttp(BootStepKind::Dhcp),
        30_000,
        "no HTTP request came after the offer: a firewall or VLAN between it and the server's HTTP port, or its firmware allows no plain HTTP",
    ),
    rule(
        At::After(BootStepKind::Dhcp),
        30_000,
        "no TFTP request came after the offer: a firewall or VLAN between it and the server's UDP port 69, or its firmware takes another server's boot file",
    ),
    rule(
        At::In(BootStepKind::Loader),
        30_000,
        "the loader stopped on its way: TFTP packets are lost; look for a firewall that knows no TFTP, or a small MTU",
    ),
    rule(
        At::AfterIpxe(BootStepKind::Loader),
        45_000,
        "iPXE runs and does not ask for its script: a firewall or VLAN between it and the server's HTTP port",
    ),
    rule(
        At::After(BootStepKind::Loader),
        45_000,
        "its loader was sent and asks for nothing: it does not start, as with Secure Boot and a loader without a signature, or has no driver for this network card",
    ),
    rule(
        At::After(BootStepKind::Script),
        45_000,
        "it has its script and fetches no image: its iPXE is too old for the script, or HTTP is cut off after the first request",
    ),
    rule(At::In(BootStepKind::Xen), 45_000, STOPPED),
    rule(At::In(BootStepKind::Kernel), 45_000, STOPPED),
    rule(At::In(BootStepKind::Initrd), 45_000, STOPPED),
    rule(At::In(BootStepKind::Image), 45_000, STOPPED),
    rule(At::After(BootStepKind::Xen), 45_000, "it has Xen and fetches nothing more: it may be short of memory"),
    rule(
        At::After(BootStepKind::Kernel),
        45_000,
        "it has dom0's kernel and fetches nothing more: it may be short of memory",
    ),
    rule(
        At::In(BootStepKind::Linux),
        120_000,
        "its loader has all that it boots, and dom0 never asked for its image: Xen or Linux did not come up, or there is no driver for this network card; look at its console",
    ),
    rule(
        At::In(BootStepKind::Start),
        240_000,
        "its image was sent and its agent never called: dom0 did not come up from it, or its clock is so wrong that TLS fails; look at its console",
    ),
    rule(At::After(BootStepKind::Join), 60_000, "its agent was accepted and does not report: look at its console"),
];

const fn rule(at: At, quiet_ms: u64, cause: &'static str) -> Rule {
    Rule { at, quiet_ms, cause }
}

/// Why a boot stands still; `None` while it goes on, or waits for the operator.
pub(crate) fn cause(standing: &Standing<'_>) -> Option<String> {
    let again = standing.last.again;
    match standing.last.step {
        BootStepKind::Loader if again >= AGAIN_MANY && !standing.is_ipxe() => {
            return Some(format!(
                "it asked for the same loader {} times: a quirk of its firmware, which does not get on with how it is sent; look for newer \
                 firmware, or boot it from an iPXE of its own",
                again + 1
            ));
        }
        BootStepKind::Script if again >= AGAIN_MANY => {
            return Some(format!(
                "it fetched its script {} times and no image: what the script names does not reach it",
                again + 1
            ));
        }
        BootStepKind::Loader
            if standing.rounds >= AGAIN_MANY && standing.last.took_ms.is_some() && !standing.is_ipxe() =>
        {
            let firmware = match standing.client.and_then(Client::firmware) {
                Some(Firmware::Uefi) => "Secure Boot refuses it, or it is a quirk of its firmware",
                Some(Firmware::Bios) | None => "a quirk of its firmware",
            };
            return Some(format!(
                "it fetched its loader {} times and began anew each time: {firmware}",
                standing.rounds
            ));
        }
        _ => {}
    }
    let fits = RULES.iter().find(|rule| rule.at.fits(standing))?;
    (standing.quiet_ms >= fits.quiet_ms).then(|| fits.cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::fmt::Write;

    const ROM: Client = Client::Pxe(Firmware::Uefi);
    const IPXE: Client = Client::Ipxe(Firmware::Bios);
    const KINDS: [BootStepKind; 10] = [
        BootStepKind::Dhcp,
        BootStepKind::Loader,
        BootStepKind::Script,
        BootStepKind::Xen,
        BootStepKind::Kernel,
        BootStepKind::Initrd,
        BootStepKind::Linux,
        BootStepKind::Image,
        BootStepKind::Start,
        BootStepKind::Join,
    ];

    fn at(step: BootStepKind, ended: bool) -> BootStep {
        BootStep { step, at_ms: 0, took_ms: ended.then_some(1), bytes: 0, bytes_total: 0, again: 0 }
    }

    fn standing(last: &BootStep) -> Standing<'_> {
        Standing { last, client: Some(ROM), rounds: 1, quiet_ms: 0 }
    }

    #[test]
    fn every_place_has_its_cause_or_waits_for_somebody() {
        let mut text = String::new();
        for step in KINDS {
            for ended in [false, true] {
                for client in [ROM, Client::Http, IPXE] {
                    let last = at(step, ended);
                    let of = |quiet_ms| cause(&Standing { client: Some(client), quiet_ms, ..standing(&last) });
                    assert_eq!(of(0), None, "{step:?}: nothing stalls at once");
                    let said = of(u64::MAX).unwrap_or_else(|| "-".to_owned());
                    let place = if ended { "after" } else { "in" };
                    writeln!(text, "{place} {step:?}, {client:?}: {}", said.chars().take(70).collect::<String>())
                        .expect("a String");
                }
            }
        }
        expect![[r#"
            in Dhcp, Pxe(Uefi): it was offered an address and did not take it: another DHCP server ans
            in Dhcp, Http: it was offered an address and did not take it: another DHCP server ans
            in Dhcp, Ipxe(Bios): it was offered an address and did not take it: another DHCP server ans
            after Dhcp, Pxe(Uefi): no TFTP request came after the offer: a firewall or VLAN between it an
            after Dhcp, Http: no HTTP request came after the offer: a firewall or VLAN between it an
            after Dhcp, Ipxe(Bios): iPXE has its address and does not ask for its script: a firewall or VL
            in Loader, Pxe(Uefi): the loader stopped on its way: TFTP packets are lost; look for a firew
            in Loader, Http: the loader stopped on its way: TFTP packets are lost; look for a firew
            in Loader, Ipxe(Bios): the loader stopped on its way: TFTP packets are lost; look for a firew
            after Loader, Pxe(Uefi): its loader was sent and asks for nothing: it does not start, as with S
            after Loader, Http: its loader was sent and asks for nothing: it does not start, as with S
            after Loader, Ipxe(Bios): iPXE runs and does not ask for its script: a firewall or VLAN between 
            in Script, Pxe(Uefi): -
            in Script, Http: -
            in Script, Ipxe(Bios): -
            after Script, Pxe(Uefi): it has its script and fetches no image: its iPXE is too old for the sc
            after Script, Http: it has its script and fetches no image: its iPXE is too old for the sc
            after Script, Ipxe(Bios): it has its script and fetches no image: its iPXE is too old for the sc
            in Xen, Pxe(Uefi): the download stopped: it may have been switched off, lost its link or 
            in Xen, Http: the download stopped: it may have been switched off, lost its link or 
            in Xen, Ipxe(Bios): the download stopped: it may have been switched off, lost its link or 
            after Xen, Pxe(Uefi): it has Xen and fetches nothing more: it may be short of memory
            after Xen, Http: it has Xen and fetches nothing more: it may be short of memory
            after Xen, Ipxe(Bios): it has Xen and fetches nothing more: it may be short of memory
            in Kernel, Pxe(Uefi): the download stopped: it may have been switched off, lost its link or 
            in Kernel, Http: the download stopped: it may have been switched off, lost its link or 
            in Kernel, Ipxe(Bios): the download stopped: it may have been switched off, lost its link or 
            after Kernel, Pxe(Uefi): it has dom0's kernel and fetches nothing more: it may be short of memo
            after Kernel, Http: it has dom0's kernel and fetches nothing more: it may be short of memo
            after Kernel, Ipxe(Bios): it has dom0's kernel and fetches nothing more: it may be short of memo
            in Initrd, Pxe(Uefi): the download stopped: it may have been switched off, lost its link or 
            in Initrd, Http: the download stopped: it may have been switched off, lost its link or 
            in Initrd, Ipxe(Bios): the download stopped: it may have been switched off, lost its link or 
            after Initrd, Pxe(Uefi): -
            after Initrd, Http: -
            after Initrd, Ipxe(Bios): -
            in Linux, Pxe(Uefi): its loader has all that it boots, and dom0 never asked for its image: 
            in Linux, Http: its loader has all that it boots, and dom0 never asked for its image: 
            in Linux, Ipxe(Bios): its loader has all that it boots, and dom0 never asked for its image: 
            after Linux, Pxe(Uefi): -
            after Linux, Http: -
            after Linux, Ipxe(Bios): -
            in Image, Pxe(Uefi): the download stopped: it may have been switched off, lost its link or 
            in Image, Http: the download stopped: it may have been switched off, lost its link or 
            in Image, Ipxe(Bios): the download stopped: it may have been switched off, lost its link or 
            after Image, Pxe(Uefi): -
            after Image, Http: -
            after Image, Ipxe(Bios): -
            in Start, Pxe(Uefi): its image was sent and its agent never called: dom0 did not come up fr
            in Start, Http: its image was sent and its agent never called: dom0 did not come up fr
            in Start, Ipxe(Bios): its image was sent and its agent never called: dom0 did not come up fr
            after Start, Pxe(Uefi): -
            after Start, Http: -
            after Start, Ipxe(Bios): -
            in Join, Pxe(Uefi): -
            in Join, Http: -
            in Join, Ipxe(Bios): -
            after Join, Pxe(Uefi): its agent was accepted and does not report: look at its console
            after Join, Http: its agent was accepted and does not report: look at its console
            after Join, Ipxe(Bios): its agent was accepted and does not report: look at its console
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn what_is_asked_for_again_and_again() {
        let mut loader = at(BootStepKind::Loader, true);
        loader.again = AGAIN_MANY;
        expect!["it asked for the same loader 5 times: a quirk of its firmware, which does not get on with how it is sent; look for newer firmware, or boot it from an iPXE of its own"].assert_eq(&cause(&standing(&loader)).expect("a quirk"));
        loader.again = AGAIN_MANY - 1;
        assert_eq!(cause(&standing(&loader)), None);
        let rounds = Standing { rounds: AGAIN_MANY, ..standing(&loader) };
        expect!["it fetched its loader 4 times and began anew each time: Secure Boot refuses it, or it is a quirk of its firmware"].assert_eq(&cause(&rounds).expect("a quirk"));
        assert_eq!(cause(&Standing { client: Some(IPXE), ..rounds }), None, "it runs by now");
        let script = BootStep { again: AGAIN_MANY, ..at(BootStepKind::Script, true) };
        expect!["it fetched its script 5 times and no image: what the script names does not reach it"]
            .assert_eq(&cause(&standing(&script)).expect("nothing gets through"));
    }
}
