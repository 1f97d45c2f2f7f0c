//! Moves (under construction).
use crate::Rack;
use crate::event::Now;
use crate::record::MoveRecord;
use proto::agent::OrderOutcome;
use proto::api::{Accepted, Balance, MigrateVm, Refusal};
use proto::view::{MoveView, PlanView};
use proto::{HostId, MoveId, VmId};

#[derive(Default)]
pub(crate) struct Transit;
#[derive(Default)]
pub(crate) struct Balancing;

fn later() -> Refusal {
    Refusal::Unavailable { detail: "this part of the server is not finished".to_owned() }
}

impl Rack {
    pub(crate) fn moves_of(&self, _host: &HostId) -> impl Iterator<Item = MoveId> {
        std::iter::empty()
    }
    pub(crate) fn moves_after_boot_of(&mut self, _host: &HostId, _now: Now) {}
    pub(crate) fn source_order_ended(&mut self, _m: MoveId, _o: OrderOutcome, _now: Now) {}
    pub(crate) fn target_order_ended(&mut self, _m: MoveId, _o: OrderOutcome, _now: Now) {}
    pub(crate) fn step_move(&mut self, _m: MoveId, _now: Now) {}
    pub(crate) fn migrate_vm(&mut self, _vm: &VmId, _r: MigrateVm, _now: Now) -> Result<Accepted, Refusal> {
        Err(later())
    }
    pub(crate) fn balance_soon(&mut self, _now: Now) {}
    pub(crate) fn balance_tick(&mut self, _now: Now) {}
    pub(crate) fn balance(&mut self, _r: Balance, _now: Now) -> Result<PlanView, Refusal> {
        Err(later())
    }
    pub(crate) fn move_shown(&self, record: &MoveRecord) -> MoveView {
        record.view.clone()
    }
}
