//! VMs (under construction).
use crate::Rack;
use crate::event::Now;
use crate::record::VmRecord;
use proto::agent::OrderOutcome;
use proto::api::{Accepted, CreateVm, Refusal};
use proto::view::VmPhase;
use proto::{HostId, VmId};

#[derive(Default)]
pub(crate) struct Guest;

fn later() -> Refusal {
    Refusal::Unavailable { detail: "this part of the server is not finished".to_owned() }
}

impl Rack {
    pub(crate) fn create_vm(&mut self, _r: CreateVm, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn start_vm(&mut self, _vm: &VmId, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn shutdown_vm(&mut self, _vm: &VmId, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn destroy_vm(&mut self, _vm: &VmId, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn pause_vm(&mut self, _vm: &VmId, _p: bool, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn delete_vm(&mut self, _vm: &VmId, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn touch_host(&mut self, _host: &HostId) {}
    pub(crate) fn surveyed(&mut self, _host: &HostId, _now: Now) {}
    pub(crate) fn vm_order_ended(&mut self, _vm: &VmId, _h: &HostId, _o: OrderOutcome, _now: Now) {}
    pub(crate) fn vms_after_boot_of(&mut self, _host: &HostId, _now: Now) {}
    pub(crate) fn look_again(&mut self, _now: Now) {}
    pub(crate) fn step_vm(&mut self, _vm: &VmId, _now: Now) {}
    pub(crate) fn phase_shown(&self, record: &VmRecord) -> VmPhase {
        record.phase
    }
    pub(crate) fn vm_note(&self, record: &VmRecord) -> String {
        record.note.clone()
    }
}
