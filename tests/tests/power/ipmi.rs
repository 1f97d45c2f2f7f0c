//! IPMI, by ipmitool.

use super::*;
use std::process::Command;
use tests::bmc::{self, PASSWORD, USER};

fn bmc(address: SocketAddr, user: &str, password: &str) -> Bmc {
    Bmc::Ipmi { address: address.to_string(), user: user.to_owned(), password: secret(password) }
}

#[tokio::test]
async fn a_machine_is_switched_and_booted_from_the_network() {
    let machine = Machine::new();
    let sim = bmc::Bmc::ipmi(machine.dir(), free_udp(), &machine.control, None, &machine.guard).expect("it starts");
    let bmc = bmc(sim.address, USER, PASSWORD);
    check_switching(&machine, &bmc).await;
    check_stuck(&machine, &bmc).await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let machine = Machine::new();
    let sim = bmc::Bmc::ipmi(machine.dir(), free_udp(), &machine.control, None, &machine.guard).expect("it starts");
    let named = sim.address.to_string();
    let wrong = perform(&bmc(sim.address, USER, "wr0ng"), on(None), LIMITS).await;
    check_failure(wrong, PowerWhy::Login, &[&named, "ipmi", "password of \"admin\" is wrong"]);
    let nobody = perform(&bmc(sim.address, "nobody", PASSWORD), PowerOp::Off, LIMITS).await;
    check_failure(nobody, PowerWhy::Login, &[&named, "no user \"nobody\""]);
    assert_eq!(machine.read("told"), "");
}

#[tokio::test]
async fn one_that_is_not_there_or_hangs() {
    let nobody = free_udp();
    let limits = Limits { resend: Duration::from_secs(1), ..LIMITS };
    let answer = perform(&bmc(nobody, USER, PASSWORD), PowerOp::Off, limits).await;
    check_failure(answer, PowerWhy::Unreached, &[&nobody.to_string(), "asking whether", "does not answer on UDP port"]);
    let hung = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = hung.local_addr().expect("an address");
    let limits = Limits { request: Duration::from_millis(300), ..LIMITS };
    let answer = perform(&bmc(at, USER, PASSWORD), PowerOp::Off, limits).await;
    check_failure(answer, PowerWhy::Unreached, &[&at.to_string(), "no answer within"]);
}

/// The server gives up its privileges; ipmitool must do with what is left.
#[tokio::test]
async fn it_runs_without_privileges_and_shows_no_password() {
    let machine = Machine::new();
    let sim = bmc::Bmc::ipmi(machine.dir(), free_udp(), &machine.control, None, &machine.guard).expect("it starts");
    let (bmc, hung) = (bmc(sim.address, USER, PASSWORD), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let asking = std::thread::spawn(move || {
        bootserver::privileges::give_up().expect("root may give up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(perform(&bmc, PowerOp::State, LIMITS))
    });
    let answer = asking.join().expect("no panic").map(|answer| answer.state);
    assert_eq!(answer, Ok(PowerState::Off));
    // While it waits for one that does not answer, all can see its arguments.
    let at = hung.local_addr().expect("an address");
    let asking = tokio::spawn(async move {
        loop {
            // It gives up in time; that must not be before it was seen.
            let _ = perform(&self::bmc(at, USER, PASSWORD), PowerOp::State, LIMITS).await;
        }
    });
    let port = at.port().to_string();
    let shown = tokio::task::spawn_blocking(move || {
        machine.guard.wait("ipmitool to run", || {
            let ps = Command::new("ps").args(["-eo", "args"]).output()?;
            let ps = String::from_utf8_lossy(&ps.stdout).into_owned();
            Ok(ps.lines().find(|line| line.starts_with("ipmitool") && line.contains(&port)).map(str::to_owned))
        })
    });
    let shown = shown.await.expect("no panic").expect("it was seen");
    assert!(shown.contains("-E") && !shown.contains(PASSWORD), "{shown}");
    asking.abort();
}
