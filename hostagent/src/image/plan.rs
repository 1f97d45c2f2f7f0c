//! What is wanted, and what comes after each attempt. Pure: time and chance come in as arguments.

use ring::digest::SHA256_OUTPUT_LEN;
use std::net::SocketAddrV4;
use std::time::Duration;

/// The first pause, and the longest. Before each attempt a random part of its second half is left out, so that a rack whose server was away does
/// not come back all at once.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// So many times in a row every server said that it has no such image: the release is another one by now.
const GONE_ROUNDS: usize = 5;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// sha256, hexadecimal.
    hex: String,
    /// sha256.
    pub(super) sha256: [u8; SHA256_OUTPUT_LEN],
    /// Its length, bytes.
    pub bytes: u64,
}

impl Wanted {
    /// Reads what the image's builder has put into the initrd: 64 hexadecimal digits, a space, its length in bytes.
    ///
    /// # Errors
    /// What was found instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is {text:?}, expected 64 hexadecimal digits, a space and a length in bytes");
        let (hex, bytes) = text.trim_end().split_once(' ').ok_or_else(wrong)?;
        let bytes = bytes.parse().ok().filter(|&bytes| bytes > 0).ok_or_else(wrong)?;
        if hex.len() != 2 * SHA256_OUTPUT_LEN || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        for (at, byte) in sha256.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self { hex: hex.to_ascii_lowercase(), sha256, bytes })
    }

    /// Where servers have it.
    pub(super) fn path(&self) -> String {
        format!("/b/{}/dom0.squashfs", &self.hex[..16])
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// All is there, and its digest is right.
    Whole,
    /// All is there, and it is something else.
    Altered,
    /// The connection broke, or the answer was of no use; so many bytes came with this attempt.
    Broke {
        /// Bytes.
        came: u64,
    },
    /// The server has no such image.
    Gone,
    /// The server is busy and said for how long.
    Busy {
        /// Seconds; 0 when it did not say.
        again_s: u64,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Use the image.
    Done,
    /// Ask again after this time.
    Ask {
        /// What has come is thrown away first.
        anew: bool,
        /// How long to wait.
        after: Duration,
    },
    /// No server has the image any more: the machine is to boot anew, and gets the one that they have.
    BootAnew,
}

/// The attempts so far.
#[derive(Debug)]
pub(super) struct Plan {
    addresses: Vec<SocketAddrV4>,
    at: usize,
    pause: Duration,
    gone: usize,
}

impl Plan {
    /// Of these servers, at least one.
    pub(super) fn new(addresses: Vec<SocketAddrV4>) -> Self {
        assert!(!addresses.is_empty(), "the caller refuses a boot without a server");
        Self { addresses, at: 0, pause: PAUSE_MIN, gone: 0 }
    }

    /// Whom to ask now.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.addresses[self.at]
    }

    /// What comes after an attempt. `chance` is random.
    pub(super) fn after(&mut self, ended: &Ended, chance: u32) -> Next {
        self.gone = if *ended == Ended::Gone { self.gone + 1 } else { 0 };
        let (anew, at_least) = match *ended {
            Ended::Whole => return Next::Done,
            Ended::Gone if self.gone >= GONE_ROUNDS * self.addresses.len() => return Next::BootAnew,
            Ended::Altered => (true, Duration::ZERO),
            Ended::Broke { came } => {
                // It goes on, if with breaks.
                if came > 0 {
                    self.pause = PAUSE_MIN;
                }
                (false, Duration::ZERO)
            }
            Ended::Gone => (false, Duration::ZERO),
            Ended::Busy { again_s } => (false, Duration::from_secs(again_s)),
        };
        self.at = (self.at + 1) % self.addresses.len();
        let left_out = (self.pause / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        let after = at_least + self.pause - left_out;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Next::Ask { anew, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(addresses: u8) -> Plan {
        Plan::new((1..=addresses).map(|n| SocketAddrV4::new([10, 77, 0, n].into(), 8080)).collect())
    }

    fn ask(anew: bool, after_ms: u64) -> Next {
        Next::Ask { anew, after: Duration::from_millis(after_ms) }
    }

    #[test]
    fn wanted() {
        let hex = "00112233445566778899aabbccddeeff".repeat(2);
        let wanted = Wanted::parse(&format!("{hex} 1234\n")).expect("good");
        assert_eq!((wanted.bytes, wanted.sha256[1], wanted.sha256[31]), (1234, 0x11, 0xff));
        assert_eq!(wanted.path(), "/b/0011223344556677/dom0.squashfs");
        for wrong in ["", "1234", &format!("{hex} 0"), &format!("{hex} x"), &format!("{}g {}", &hex[..63], 7), &hex] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_address_is_asked_in_turn_and_pauses_grow() {
        let mut plan = plan(2);
        let mut said = Vec::new();
        for _ in 0..8 {
            let address = *plan.address().ip();
            let Next::Ask { anew: false, after } = plan.after(&Ended::Broke { came: 0 }, 0) else {
                panic!("it asks again")
            };
            said.push((address.octets()[3], after.as_millis()));
        }
        let grow = [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000];
        assert_eq!(said, (0..8).map(|at| (1 + at as u8 % 2, grow[at])).collect::<Vec<_>>());
        assert_eq!(plan.after(&Ended::Broke { came: 1 }, 0), ask(false, 500), "something came");
        assert_eq!(plan.after(&Ended::Altered, u32::MAX), ask(true, 500), "half of the pause is jitter");
        assert_eq!(plan.after(&Ended::Busy { again_s: 7 }, 0), ask(false, 9000));
        assert_eq!(plan.after(&Ended::Whole, 0), Next::Done);
    }

    #[test]
    fn a_release_that_is_gone_is_no_longer_asked_for() {
        let mut plan = plan(2);
        let mut gone = |ended: Ended| plan.after(&ended, 0) == Next::BootAnew;
        for _ in 0..9 {
            assert!(!gone(Ended::Gone));
        }
        assert!(!gone(Ended::Broke { came: 0 }), "one may still have it");
        for _ in 0..9 {
            assert!(!gone(Ended::Gone));
        }
        assert!(gone(Ended::Gone));
    }

    proptest! {
        #[test]
        fn jitter_is_at_most_half(chance: u32, before in 0usize..8) {
            let mut plan = plan(1);
            for _ in 0..before {
                plan.after(&Ended::Altered, chance);
            }
            let pause = plan.pause;
            let Next::Ask { after, .. } = plan.after(&Ended::Altered, chance) else { panic!("it asks again") };
            prop_assert!(after <= pause && after * 2 + Duration::from_micros(1) >= pause, "{after:?} of {pause:?}");
        }
    }
}
