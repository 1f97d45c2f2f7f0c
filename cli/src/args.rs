//! What can be typed.
//!
//! Owns: the commands, their options and their help. Never does: anything with them.

mod release;
pub(crate) use release::{PoolCommand, ReleaseCommand, ReleaseRef, RolloutArgs};

use crate::fault::EXIT_CODES;
use crate::trust::Fingerprint;
use clap::{Args, Parser, Subcommand, ValueEnum};
use proto::release::PoolId;
use proto::{DiskId, HostId, Mac, VmId};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The operator's command for a Tsubame boot server.
///
/// Log in once with `tsubame login URL`; the session is kept in $XDG_CONFIG_HOME/tsubame/session.json, for you alone.
/// TSUBAME_URL, TSUBAME_TOKEN and TSUBAME_CA (sha256 of the CA's certificate, or a PEM file) override it.
#[derive(Debug, Parser)]
#[command(name = "tsubame", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// How to print what is asked for; json and yaml are the API's own types.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    Table,
    /// JSON; one document a line with `events --follow`.
    Json,
    /// YAML.
    Yaml,
}

/// What can be done with backups. Restoring is the server's own command: `bootserver restore FILE`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum BackupCommand {
    /// Take one now.
    Now,
    /// List those there are, and whether the last one is late or has failed.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in, or choose the first password of a new server.
    ///
    /// The password is asked for without echo; where stdin is no terminal, its next line is taken. On a new server the
    /// set-up code comes first. Nothing is asked for or sent before the server's certificate holds under a CA that is
    /// trusted: the one of --ca-sha256, of TSUBAME_CA, or of the last login there.
    Login(LoginArgs),
    /// End the session. The server and its CA stay known.
    Logout,
    /// What the rack is and does, on one screen.
    Status,
    /// Machines.
    #[command(subcommand)]
    Host(HostCommand),
    /// Virtual machines.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Disks on the shared storage.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Moves of VMs.
    #[command(subcommand)]
    Move(MoveCommand),
    /// What hosts and guests boot.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Pools of hosts, and rollouts of releases to them.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Even out the load by moving VMs; says which moves it makes, and does not wait for them.
    Balance {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say of a frozen rack that the hosts which vanished are dead: each is fenced, and its VMs start elsewhere.
    Thaw,
    /// Backups of the server's record and keys.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// What has happened, oldest first.
    Events {
        /// Go on until interrupted.
        #[arg(short, long)]
        follow: bool,
        /// How many of the newest to begin with.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
        limit: u64,
    },
    /// Print what a shell needs to complete these commands.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder, which must be there.
        folder: PathBuf,
    },
}

/// Where to log in, whom to trust, and where the secrets are read.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server, https://HOST[:PORT]; port 8443 unless given. TSUBAME_URL or the server of the last login when absent.
    pub(crate) url: Option<String>,
    /// Trust the CA whose certificate has this sha256 (hexadecimal or base64url), as the boot server prints it.
    #[arg(long, value_name = "HEX", conflicts_with = "trust_on_first_use")]
    pub(crate) ca_sha256: Option<Fingerprint>,
    /// Trust the CA that the server shows now, if none was known for it; prints its sha256.
    #[arg(long)]
    pub(crate) trust_on_first_use: bool,
    /// Read the password from this file's first line; - is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The one-time code that a new server printed, with which the first password is chosen.
    #[arg(long, value_name = "CODE")]
    pub(crate) setup_code: Option<String>,
}

/// Whether and how long to wait for the end of what is begun.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done (the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the server has begun it.
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// A host by its id, its name, or a MAC address it boots from.
#[derive(Debug, Args)]
pub(crate) struct HostRef {
    /// The host's id, name or MAC address.
    pub(crate) host: String,
}

/// `key=value` or `key-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelChange {
    pub(crate) key: String,
    /// Absent where it is taken away.
    pub(crate) value: Option<String>,
}

impl FromStr for LabelChange {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        match given.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                Ok(Self { key: key.to_owned(), value: Some(value.to_owned()) })
            }
            None if given.len() > 1 && given.ends_with('-') => {
                Ok(Self { key: given[..given.len() - 1].to_owned(), value: None })
            }
            _ => Err(format!("{given:?} is no label: expected key=value, or key- to take it away")),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// All machines.
    List,
    /// One machine: what it is, and its newest boot step by step.
    Show(HostRef),
    /// The end of what a machine's dom0 said, its kernel and its daemons.
    Log(HostRef),
    /// Let a machine in; waits until it reports.
    Accept {
        #[command(flatten)]
        host: HostRef,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Forget a machine and turn it away.
    Remove(HostRef),
    /// Move all VMs off a machine and give it no new ones; waits until it is empty.
    Drain {
        #[command(flatten)]
        host: HostRef,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Give a machine VMs again.
    Undrain(HostRef),
    /// Say of a failed machine, whose disks are on a SAN, that you have taken its power away
    ///
    /// Its VMs then start elsewhere. If it has power all the same, they run twice.
    ConfirmOff {
        #[command(flatten)]
        host: HostRef,
        /// Its name or id once more, as nothing can undo this.
        #[arg(long, value_name = "HOST")]
        it_is_off: String,
    },
    /// Let in machines of a list when they come: CSV with headings (mac, uuid, serial, name, labels, bmc, bmc_address, bmc_user,
    /// bmc_password, bmc_trust, bmc_system), or YAML.
    Import {
        /// The list; - is stdin.
        file: PathBuf,
        /// Forget machines that earlier lists named by UUID or serial number and that have not come.
        #[arg(long)]
        replace: bool,
    },
    /// Give a machine another name.
    Rename {
        #[command(flatten)]
        host: HostRef,
        /// The new name.
        name: String,
    },
    /// Set and take away a machine's labels.
    Label {
        #[command(flatten)]
        host: HostRef,
        /// key=value sets one, key- takes one away.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<LabelChange>,
    },
    /// Switch a machine's power on or off, or ask its management controller whether it is on; waits until it is so.
    ///
    /// Off and cycle are refused while VMs run there or move: drain it first. They ask nobody: what runs there stops as it is.
    Power {
        #[command(flatten)]
        host: HostRef,
        /// What to do.
        #[arg(value_enum)]
        what: PowerWord,
        /// Boot from the network this once, whatever the machine's boot order is; with on and cycle.
        #[arg(long)]
        network: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Say how a machine's power is switched: by Wake-on-LAN, IPMI or Redfish.
    ///
    /// The password is asked for without echo; where stdin is no terminal, its next line is taken. The server keeps it and shows it nowhere.
    Bmc(BmcArgs),
    /// Put a machine into a pool: it boots that pool's release from its next boot on.
    Pool {
        #[command(flatten)]
        host: HostRef,
        /// The pool.
        pool: PoolId,
    },
    /// Register a machine before it is seen.
    Add {
        /// The address it boots from, such as 52:54:00:aa:bb:01.
        mac: Mac,
        /// A name for it.
        #[arg(long)]
        name: Option<String>,
    },
}

/// What to do with a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PowerWord {
    /// On; one that is on is left alone.
    On,
    /// Off, as by its switch.
    Off,
    /// Off, then on.
    Cycle,
    /// Ask whether it is on.
    Status,
}

/// [`proto::power::BmcKind`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BmcWord {
    /// Wake-on-LAN: can only switch on.
    Wake,
    /// IPMI 2.0 over LAN.
    Ipmi,
    /// Redfish over HTTPS.
    Redfish,
}

impl From<BmcWord> for proto::power::BmcKind {
    fn from(given: BmcWord) -> Self {
        match given {
            BmcWord::Wake => Self::Wake,
            BmcWord::Ipmi => Self::Ipmi,
            BmcWord::Redfish => Self::Redfish,
        }
    }
}

/// A management controller, and how to log in to it.
#[derive(Debug, Args)]
pub(crate) struct BmcArgs {
    #[command(flatten)]
    pub(crate) host: HostRef,
    /// By which protocol.
    #[arg(long, value_enum, required_unless_present = "forget")]
    pub(crate) kind: Option<BmcWord>,
    /// Its name or address, with :PORT where it is not the usual one. When absent: that which the machine's inventory told; to wake, the
    /// broadcast address of the machine's subnet.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Account; for IPMI one that may be operator.
    #[arg(long, default_value = "")]
    pub(crate) user: String,
    /// Read the password from this file's first line; - is stdin. To wake: a SecureOn password, aa:bb:cc:dd:ee:ff.
    #[arg(long, value_name = "FILE", conflicts_with = "keep_password")]
    pub(crate) password_file: Option<PathBuf>,
    /// Leave the password as it is, for the same kind, address and user.
    #[arg(long)]
    pub(crate) keep_password: bool,
    /// Redfish: which certificate to trust: `first` pins the one shown next, `any` trusts whatever is shown, or a sha256. As it was when absent;
    /// `first` for a new one.
    #[arg(long, value_name = "first|any|SHA256")]
    pub(crate) trust: Option<String>,
    /// Redfish: which system, by its Id, where there are several behind that address.
    #[arg(long, value_name = "ID")]
    pub(crate) system: Option<String>,
    /// Forget how its power is switched.
    #[arg(long, conflicts_with_all = ["kind", "address", "user", "password_file", "keep_password", "trust", "system"])]
    pub(crate) forget: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Make a VM from a template; waits until its disk is made (and it runs, with --start).
    Create(CreateVmArgs),
    /// All VMs.
    List,
    /// One VM.
    Show(VmRef),
    /// Start a VM; waits until it runs.
    Start(VmWait),
    /// Ask a VM's guest to shut down; waits until it has.
    #[command(visible_alias = "stop")]
    Shutdown(VmWait),
    /// Take a VM's power away, as it is; waits until it is off. Its disk stays.
    Destroy(VmWait),
    /// Let a VM stand still; waits until it does.
    Pause(VmWait),
    /// Let a paused VM go on; waits until it does.
    Resume(VmWait),
    /// Say in which order a VM is started again after its host has failed, and whether after a crash. What is not given stays as it is.
    Ha {
        #[command(flatten)]
        vm: VmRef,
        /// Who is started before others, where there is not room for all.
        #[arg(long, value_enum, required_unless_present_any = ["restart_delay", "on_crash"])]
        priority: Option<RestartPriority>,
        /// Start it no sooner than so many seconds after its host was fenced.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
        restart_delay: Option<u32>,
        /// What becomes of it when its guest crashes.
        #[arg(long, value_enum)]
        on_crash: Option<AfterCrash>,
    },
    /// Move a running VM to another host; waits until it runs there.
    Migrate {
        #[command(flatten)]
        vm: VmRef,
        /// To this host (id, name or MAC address); the planner chooses when absent.
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove a stopped VM and its disks, for good; waits until they are gone.
    Delete(VmWait),
    /// The end of what a VM's guest wrote to its console.
    Console(VmRef),
}

#[derive(Debug, Args)]
pub(crate) struct VmRef {
    /// The VM's name.
    pub(crate) vm: VmId,
}

#[derive(Debug, Args)]
pub(crate) struct VmWait {
    /// The VM's name.
    pub(crate) vm: VmId,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CreateVmArgs {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'.
    pub(crate) name: VmId,
    /// Which template; `tsubame status` names them.
    #[arg(short, long)]
    pub(crate) template: String,
    /// Memory, MiB or with a unit such as 2G; the template's when absent.
    #[arg(long, value_name = "SIZE", value_parser = size_mib)]
    pub(crate) memory: Option<u64>,
    /// Virtual processors; the template's when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) vcpus: Option<u32>,
    /// Size of its disk, MiB or with a unit such as 10G; the template's when absent.
    #[arg(long, value_name = "SIZE", value_parser = size_mib)]
    pub(crate) disk: Option<u64>,
    /// Address of its interface; made from the name when absent.
    #[arg(long)]
    pub(crate) mac: Option<Mac>,
    /// Appended to the template's kernel command line.
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    pub(crate) cmdline: String,
    /// Start it at once.
    #[arg(long)]
    pub(crate) start: bool,
    /// Who is started before others, where there is not room for all, after a host has failed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) priority: RestartPriority,
    /// Start it no sooner than so many seconds after its host was fenced.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub(crate) restart_delay: u32,
    /// What becomes of it when its guest crashes.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_crash: AfterCrash,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// [`proto::vm::Priority`] on the command line.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum RestartPriority {
    High,
    #[default]
    Normal,
    Low,
    /// Not started again by itself.
    Never,
}

impl From<RestartPriority> for proto::vm::Priority {
    fn from(given: RestartPriority) -> Self {
        match given {
            RestartPriority::High => Self::High,
            RestartPriority::Normal => Self::Normal,
            RestartPriority::Low => Self::Low,
            RestartPriority::Never => Self::Never,
        }
    }
}

/// [`proto::vm::OnCrash`] on the command line.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum AfterCrash {
    /// Start it again, after a wait that doubles each time.
    #[default]
    Restart,
    /// Leave it stopped until it is started by hand.
    Stop,
}

impl From<AfterCrash> for proto::vm::OnCrash {
    fn from(given: AfterCrash) -> Self {
        match given {
            AfterCrash::Restart => Self::Restart,
            AfterCrash::Stop => Self::Stop,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// All disks.
    List,
    /// Make a disk; waits until it is ready.
    Create {
        /// Its name.
        name: DiskId,
        /// Its size, MiB or with a unit such as 10G.
        #[arg(long, value_parser = size_mib)]
        size: u64,
        /// Disk or template to copy from.
        #[arg(long)]
        from: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make a disk larger.
    Grow {
        /// Which.
        name: DiskId,
        /// The new size, MiB or with a unit such as 10G.
        #[arg(long, value_parser = size_mib)]
        size: u64,
    },
    /// Remove a disk and what is on it, for good; waits until it is gone.
    Delete {
        /// Which.
        name: DiskId,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MoveCommand {
    /// Moves under way and the newest that ended, newest first.
    List,
}

/// Where a host is named: its id needs no question to the server.
pub(crate) fn host_id(given: &str) -> Option<HostId> {
    match given.parse::<Mac>() {
        Ok(mac) => Some(HostId::of(mac)),
        Err(_) => given.parse().ok(),
    }
}

/// A size in MiB: a number, or one with M, G or T (also MiB, GiB, TiB); 1 or more.
fn size_mib(given: &str) -> Result<u64, String> {
    let wrong = || format!("{given:?} is no size: expected MiB, or a number with M, G or T, 1 MiB or more");
    let digits = given.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &given[digits.len()..] {
        "" | "M" | "MiB" => 1,
        "G" | "GiB" => 1 << 10,
        "T" | "TiB" => 1 << 20,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|&mib| mib > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn labels() {
        let change = |key: &str, value: Option<&str>| Ok(LabelChange { key: key.into(), value: value.map(Into::into) });
        assert_eq!("row=a=b".parse(), change("row", Some("a=b")));
        assert_eq!("row-".parse(), change("row", None));
        assert_eq!("ro-w-".parse(), change("ro-w", None));
        for bad in ["", "-", "=", "row", "row=", "=a"] {
            assert!(bad.parse::<LabelChange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (given, mib) in [("64", 64), ("64M", 64), ("2G", 2048), ("2GiB", 2048), ("1T", 1 << 20)] {
            assert_eq!(size_mib(given), Ok(mib));
        }
        for bad in ["", "0", "G", "1K", "-1", "1.5G", "2 G", "99999999999999T", "1é", "1GG"] {
            assert!(size_mib(bad).is_err(), "{bad}");
        }
    }
}
