//! What happens to the rack. The shell turns packets, requests and results into these; nothing else does.

use crate::dhcp::{BootRequest, ServerReply};
use crate::power::{PowerAnswer, PowerFailure};
use crate::recovery::FoundDisk;
use proto::agent::{JoinRequest, Report};
use proto::api::{Balance, CreateDisk, CreateVm, DescribeHost, GrowDisk, MigrateVm, RegisterHost};
use proto::heartbeat::Slot;
use proto::power::{OrderPower, SetBmc};
use proto::release::{CollectReleases, CreatePool, Manifest, PoolId, ReleaseId, StartRollout};
use proto::view::BackupView;
use proto::vm::Restart;
use proto::{DiskId, HostId, Mac, VmId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A moment. Durations are reckoned on the monotonic clock, logs and certificates on the wall's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never steps back; its zero means nothing.
    pub mono_ms: u64,
    /// Unix milliseconds.
    pub unix_ms: u64,
}

/// Where an answer goes. The shell gives each question a number of its own and never uses it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// Randomness from the operating system, drawn by the shell so that the rack stays a function of its input.
#[derive(Clone, Copy)]
pub struct Entropy(pub [u8; 32]);

/// Who speaks for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Key of the certificate.
    pub key: String,
    /// When the certificate was issued, Unix milliseconds.
    pub issued_ms: u64,
    /// Where it calls from.
    pub from: Ipv4Addr,
}

/// One thing that happened.
#[allow(clippy::large_enum_variant)] // a join is large and seldom, and each is moved once or twice
pub enum Event {
    /// A DHCP packet that a client sent to us. Answered by [`crate::effect::Answer::Dhcp`].
    Dhcp {
        /// Whom to answer.
        reply: ReplyTo,
        /// What was asked.
        request: BootRequest,
    },
    /// Another server was heard to answer a client on our network.
    DhcpHeard {
        /// What it said.
        reply: ServerReply,
    },
    /// A host asks for its boot script or xen.cfg. Answered by [`crate::effect::Answer::Script`].
    Script {
        /// Whom to answer.
        reply: ReplyTo,
        /// The address it names in the request.
        mac: Mac,
        /// Where the request came from.
        from: Ipv4Addr,
        /// Which text.
        kind: ScriptKind,
        /// For this boot's nonce and secret.
        entropy: Entropy,
    },
    /// Part of a boot file went out. Coalesced by the shell to few a second for each client.
    Served {
        /// To whom.
        to: Ipv4Addr,
        /// Which file.
        file: BootFile,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        bytes_total: u64,
    },
    /// A machine asks to join. Answered by [`crate::effect::Answer::Join`].
    Join {
        /// Whom to answer.
        reply: ReplyTo,
        /// What it says.
        request: JoinRequest,
        /// sha256 of the request's public key (SubjectPublicKeyInfo), 64 hexadecimal digits; the shell has
        /// verified the CSR's own signature.
        key: String,
        /// Where it came from.
        from: Ipv4Addr,
    },
    /// A machine asks what became of its join. Answered like `Join`.
    JoinPoll {
        /// Whom to answer.
        reply: ReplyTo,
        /// Its key, as in `Join`.
        key: String,
    },
    /// A host with a certificate asks for a new one for the same key. Answered like `Join`.
    Renew {
        /// Whom to answer.
        reply: ReplyTo,
        /// From the certificate.
        host: HostId,
        /// Key of certificate and request, which the shell has compared.
        key: String,
        /// The request.
        csr_pem: String,
    },
    /// An agent reports. Answered by [`crate::effect::Answer::Report`], perhaps later.
    Report {
        /// Whom to answer.
        reply: ReplyTo,
        /// From the certificate.
        host: HostId,
        /// From the certificate and the connection.
        caller: Caller,
        /// What it says.
        report: Report,
    },
    /// The connection on which a report awaited its answer is gone.
    ReportGone {
        /// The question that needs no answer any more.
        reply: ReplyTo,
        /// Whose.
        host: HostId,
    },
    /// An operator asks. Answered by [`crate::effect::Answer::Operator`].
    Operator {
        /// Whom to answer.
        reply: ReplyTo,
        /// What.
        command: Command,
    },
    /// A storage job has ended.
    StorageDone {
        /// Which.
        job: u64,
        /// How: an error is one line on what was tried and what failed.
        result: Result<(), String>,
    },
    /// A management controller has answered, or has not.
    PowerDone {
        /// Which job.
        job: u64,
        /// Whose.
        host: HostId,
        /// How.
        result: Result<PowerAnswer, PowerFailure>,
    },
    /// Which backups there are, and whether the last was taken.
    BackedUp(BackupView),
    /// What the storage has: said once, first of all, to a rack that is [`crate::Rack::surveying`].
    StorageFound(Vec<FoundDisk>),
    /// The storage's server had ended and was started anew: it knows no disk and no grant.
    StorageAnew,
    /// The heartbeat disk was read.
    Heartbeats {
        /// When reading began, on the clock of [`Now::mono_ms`].
        read_mono_ms: u64,
        /// What stands in every slot that was ever written, by its number.
        slots: Vec<(u32, Slot)>,
    },
    /// The heartbeat disk could not be read.
    HeartbeatsUnread {
        /// From where, and why.
        why: String,
        /// Whether there is no such file.
        gone: bool,
    },
    /// Time passes. The shell sends one at least every 250 ms.
    Tick,
}

/// Texts that a booting machine fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptKind {
    /// iPXE script for a machine under BIOS.
    IpxeBios,
    /// iPXE script for a machine under UEFI.
    IpxeUefi,
    /// `xen.cfg` for Xen's EFI loader.
    XenCfg,
    /// What a unified image's initrd asks for: the words that are on the command line otherwise.
    Words,
}

/// Files that a booting machine fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootFile {
    /// First-stage loader, by TFTP.
    Loader,
    /// Xen, ELF or EFI.
    Xen,
    /// dom0's kernel.
    Kernel,
    /// dom0's initrd.
    Initrd,
    /// Xen, kernel and initrd in one.
    Unified,
    /// dom0's image.
    Image,
}

/// A machine of a list. One of the first three is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedHost {
    /// Its line in the list, counted from 1.
    pub line: usize,
    /// The address it boots from.
    pub mac: Option<Mac>,
    /// Its UUID, or empty.
    pub uuid: String,
    /// Its serial number, or empty.
    pub serial: String,
    /// Its name; a template where it is not known by its MAC.
    pub name: Option<String>,
    /// Labels that it gets.
    pub labels: BTreeMap<String, String>,
    /// Its management controller.
    pub bmc: Option<SetBmc>,
}

/// What an operator can ask. Reading is not among them: that is done from the view.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // each is named after its request in proto::api or its button
pub enum Command {
    RegisterHost(RegisterHost),
    ListHosts {
        hosts: Vec<ListedHost>,
        /// Those that an earlier list expects are forgotten.
        replace: bool,
    },
    DescribeHost {
        host: HostId,
        request: DescribeHost,
    },
    AcceptHost {
        host: HostId,
    },
    RemoveHost {
        host: HostId,
    },
    DrainHost {
        host: HostId,
    },
    UndrainHost {
        host: HostId,
    },
    SetBmc {
        host: HostId,
        request: SetBmc,
    },
    ForgetBmc {
        host: HostId,
    },
    OrderPower {
        host: HostId,
        request: OrderPower,
    },
    AskPower {
        host: HostId,
    },
    ConfirmOff {
        host: HostId,
    },
    CreateVm(CreateVm),
    StartVm {
        vm: VmId,
    },
    ShutdownVm {
        vm: VmId,
    },
    DestroyVm {
        vm: VmId,
    },
    PauseVm {
        vm: VmId,
    },
    ResumeVm {
        vm: VmId,
    },
    DeleteVm {
        vm: VmId,
    },
    MigrateVm {
        vm: VmId,
        request: MigrateVm,
    },
    /// In which order it is started again after its host has failed.
    SetRestart {
        vm: VmId,
        restart: Restart,
    },
    Console {
        vm: VmId,
    },
    CreateDisk(CreateDisk),
    GrowDisk {
        disk: DiskId,
        request: GrowDisk,
    },
    DeleteDisk {
        disk: DiskId,
    },
    Balance(Balance),
    /// The rack is frozen, and the hosts that vanished are truly dead.
    Thaw,
    /// Its files are all in the store.
    AddRelease {
        manifest: Manifest,
    },
    DeleteRelease {
        release: ReleaseId,
    },
    CollectReleases(CollectReleases),
    CreatePool(CreatePool),
    DeletePool {
        pool: PoolId,
    },
    SetPool {
        host: HostId,
        pool: PoolId,
    },
    StartRollout {
        pool: PoolId,
        request: StartRollout,
    },
    StopRollout {
        pool: PoolId,
    },
}
