//! Power of a machine.

use super::table::{fields, time};
use proto::power::{PowerOrderView, PowerView};

/// All of it.
pub(crate) fn show(power: &PowerView, width: Option<u16>) -> String {
    fields(&pairs(power), width)
}

/// What is shown beside a machine's other properties.
pub(crate) fn pairs(power: &PowerView) -> Vec<(&'static str, String)> {
    let at = power.at_ms.filter(|_| power.failure.is_empty());
    let at = at.map_or_else(String::new, |at| format!(", as it said {}", time(at)));
    let account = if power.user.is_empty() { String::new() } else { format!(" as {}", power.user) };
    let system = if power.system.is_empty() { String::new() } else { format!(", system {}", power.system) };
    let since = power.failing_since_ms.map_or_else(String::new, |since| format!("since {}: ", time(since)));
    vec![
        ("Power", format!("{}{at}", power.state)),
        ("Switched by", format!("{} {}{account}{system}", power.kind, power.address)),
        ("Certificate", power.trust.clone()),
        ("Not reached", format!("{since}{}", power.failure)),
        ("Power order", power.order.as_ref().map(order).unwrap_or_default()),
    ]
}

fn order(order: &PowerOrderView) -> String {
    let network = if order.network { " from the network" } else { "" };
    let tries = if order.tries > 1 { format!(" after {} tries", order.tries) } else { String::new() };
    let cause = if order.cause.is_empty() { String::new() } else { format!(": {}", order.cause) };
    format!("{}{network}, {}, {}{tries}{cause}", order.verb, time(order.asked_ms), order.stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proto::power::{BmcKind, PowerStage, PowerState, PowerVerb};

    #[test]
    fn texts() {
        let mut power = PowerView {
            kind: BmcKind::Redfish,
            address: "10.9.9.9".to_owned(),
            user: "admin".to_owned(),
            trust: "first".to_owned(),
            system: "1".to_owned(),
            state: PowerState::On,
            at_ms: Some(1_795_000_000_000),
            failing_since_ms: None,
            failure: String::new(),
            order: None,
        };
        expect![[r#"
            Power        on, as it said 2026-11-18 11:06:40
            Switched by  redfish 10.9.9.9 as admin, system 1
            Certificate  first
        "#]]
        .assert_eq(&show(&power, None));
        power.state = PowerState::Unknown;
        (power.failing_since_ms, power.failure) = (Some(1_795_000_000_000), "BMC 10.9.9.9: no".to_owned());
        power.order = Some(PowerOrderView {
            verb: PowerVerb::Cycle,
            network: true,
            stage: PowerStage::Asked,
            asked_ms: 1_795_000_000_000,
            ended_ms: None,
            tries: 2,
            cause: "BMC 10.9.9.9: no".to_owned(),
        });
        expect![[r#"
            Power        unknown
            Switched by  redfish 10.9.9.9 as admin, system 1
            Certificate  first
            Not reached  since 2026-11-18 11:06:40: BMC 10.9.9.9: no
            Power order  cycle from the network, 2026-11-18 11:06:40, asked after 2 tries: BMC 10.9.9.9: no
        "#]]
        .assert_eq(&show(&power, None));
    }
}
