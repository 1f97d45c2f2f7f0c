//! Power jobs under way, side by side. The rack gives each host one at a time and bounds how many there are.

use super::{Limits, perform};
use proto::HostId;
use rack::power::{Bmc, PowerAnswer, PowerFailure, PowerOp};
use tokio::task::{JoinError, JoinSet};

/// A job's number, whose it is, and how it ended.
pub(super) type Ended = (u64, HostId, Result<PowerAnswer, PowerFailure>);

/// The jobs.
#[derive(Default)]
pub struct PowerJobs {
    running: JoinSet<Ended>,
}

impl PowerJobs {
    /// Takes a job on.
    pub fn push(&mut self, job: u64, host: HostId, bmc: Bmc, op: PowerOp) {
        self.running.spawn(async move {
            let result = perform(&bmc, op, Limits::default()).await;
            match &result {
                Ok(answer) => tracing::debug!(%host, ?op, state = %answer.state, "power"),
                Err(failure) => tracing::debug!(%host, ?op, failure = failure.text, "power"),
            }
            (job, host, result)
        });
    }

    /// The next job that ends; waits for ever when none is under way. Cancel-safe.
    pub async fn ended(&mut self) -> Result<Ended, JoinError> {
        match self.running.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}
