//! Whose orders count: those of the highest term that was ever told.
//!
//! Owns: that term, and what a server is told whose record is that of a backup. Never does: decide whose a guest is.
//!
//! A server that was restored from a backup has a higher term than any before it. The agent that first hears it gives up what it was
//! told and has not begun, ends every stream, and says what is here as soon as nothing of the old is under way any more: from then on
//! nothing here changes but by order of the new one. What the old server says is not heard, should it come back.

use super::{Agent, AgentAction};
use proto::Term;
use proto::agent::{HostSurvey, KnownGuest, ReportAnswer};
use proto::host::Inventory;

#[derive(Debug, Default)]
pub(super) struct Rule {
    term: Term,
    inventory: Option<Inventory>,
    /// The server asks what is here.
    asked: bool,
    /// The report under way was begun after that, with nothing under way.
    quiet: bool,
}

impl Rule {
    pub(super) fn of(term: Term, inventory: Option<Inventory>) -> Self {
        Self { term, inventory, ..Self::default() }
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }
}

impl Agent {
    /// Whether an answer counts; the first of a higher term ends what the one before has ordered.
    pub(super) fn rules(&mut self, answer: &ReportAnswer) -> bool {
        if answer.term < self.rule.term {
            return false;
        }
        if answer.term > self.rule.term {
            self.rule.term = answer.term;
            self.actions.push(AgentAction::KeepTerm(answer.term));
            self.waiting.clear();
            // Each ends as a failure, unless it has just ended well: then the guest stands still at both ends until it is told where to run.
            for vm in self.works.keys().cloned().collect::<Vec<_>>() {
                self.call_off(&vm);
            }
        }
        if answer.survey != self.rule.asked {
            self.rule.asked = answer.survey;
            self.report_wanted = true;
        }
        true
    }

    /// A look at the host begins that a report will be made of.
    pub(super) fn survey_begins(&mut self) {
        self.rule.quiet = self.rule.asked && self.works.is_empty();
    }

    /// What goes into that report for a server that asks.
    pub(super) fn host_survey(&self) -> Option<Box<HostSurvey>> {
        if !self.rule.quiet || !self.rule.asked || !self.works.is_empty() {
            return None;
        }
        let known = self.notes.values().filter_map(|note| {
            let guest = note.guest.as_ref()?;
            Some(KnownGuest {
                spec: guest.spec.clone(),
                floor: note.floor,
                r#move: guest.r#move,
                received: guest.received.is_some(),
            })
        });
        Some(Box::new(HostSurvey { guests: known.collect(), inventory: self.rule.inventory.clone() }))
    }
}
