//! Starting the machine anew, by order.
//!
//! Owns: that it is done only to the boot that was meant, and only while nothing runs here or is being done. Never does: shut a guest down
//! for it; the server empties a host first.

use super::{Agent, AgentAction, JobFor, failure};
use crate::hypervisor::{Completion, Op, OpResult};
use proto::OrderId;
use proto::agent::{Done, FailureKind};

impl Agent {
    /// An order to start the machine anew has come. What Xen shows decides, so it is asked first.
    pub(super) fn told_to_reboot(&mut self, id: OrderId, boot: &str) {
        if boot != self.boot {
            let detail = "starting anew: the order is for another boot of this host";
            return self.outcome(id, Err(failure(FailureKind::Tool, detail)));
        }
        self.run(JobFor::Reboot(id), Op::Survey);
    }

    /// The look at what runs, before the machine is started anew.
    pub(super) fn looked_to_reboot(&mut self, id: OrderId, result: OpResult) {
        let survey = match result {
            Ok(Completion::Survey(survey)) => survey,
            Ok(_) => return self.outcome(id, Err(failure(FailureKind::Tool, "starting anew: no survey came back"))),
            Err(why) => return self.outcome(id, Err(why)),
        };
        if let Some(domain) = survey.domains.first() {
            let detail = format!("starting anew: {} is here, of {} domains", domain.vm, survey.domains.len());
            return self.outcome(id, Err(failure(FailureKind::Tool, detail)));
        }
        if !self.works.is_empty() || !self.waiting.is_empty() {
            let detail = format!("starting anew: {} orders are under way", self.works.len() + self.waiting.len());
            return self.outcome(id, Err(failure(FailureKind::Tool, detail)));
        }
        self.outcome(id, Ok(Done::Ok));
        self.actions.push(AgentAction::Reboot);
    }
}
