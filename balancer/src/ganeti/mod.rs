//! Ganeti clusters: read htools' text format, plan by hbal's own score, write `gnt-instance` commands.
//!
//! Owns: what is Ganeti's: its format, its score, its limits. It shares nothing with the planner of a Tsubame rack but the idea, for
//! a score of standard deviations is not a sum over hosts. Never does: input or output; text comes in and goes out.
//!
//! Only instances whose disks every node reaches (`ext`, `rbd`, `gluster`, `sharedfile`, `diskless`) are moved, by live migration, within
//! their node group. DRBD pairs and local disks stay where they are.

mod order;
mod score;
mod search;
mod text;

pub use search::{Limits, plan};
pub use text::{Cluster, Instance, Node, ParseError};

use std::fmt::Write;

/// What is planned for a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct GanetiPlan {
    /// Instance and node by number, in an order in which each step is feasible.
    pub steps: Vec<(usize, usize)>,
    /// hbal's score before.
    pub score_before: f64,
    /// hbal's score after.
    pub score_after: f64,
    /// Distinct instances that end up elsewhere.
    pub moved: usize,
    /// Their memory together, MiB.
    pub moved_mib: u64,
}

impl GanetiPlan {
    /// The steps as a shell script of `gnt-instance migrate -f --target-node NODE INSTANCE` lines.
    pub fn commands(&self, cluster: &Cluster) -> String {
        let mut text = String::new();
        for &(instance, node) in &self.steps {
            let (instance, node) = (&cluster.instances[instance].name, &cluster.nodes[node].name);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "gnt-instance migrate -f --target-node {node} {instance}");
        }
        text
    }
}
