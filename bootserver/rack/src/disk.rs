//! Disks (under construction).
use crate::Rack;
use crate::event::Now;
use proto::api::{Accepted, CreateDisk, GrowDisk, Refusal};
use proto::{DiskId, HostId};

#[derive(Default)]
pub(crate) struct Storage;

fn later() -> Refusal {
    Refusal::Unavailable { detail: "this part of the server is not finished".to_owned() }
}

impl Rack {
    pub(crate) fn attach_disks(&mut self) {}
    pub(crate) fn cut_host(&mut self, _host: &HostId, _now: Now) {}
    pub(crate) fn storage_done(&mut self, _job: u64, _result: Result<(), String>, _now: Now) {}
    pub(crate) fn create_disk(&mut self, _r: CreateDisk, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn grow_disk(&mut self, _d: &DiskId, _r: GrowDisk, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn delete_disk(&mut self, _d: &DiskId, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
}
