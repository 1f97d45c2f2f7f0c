//! `tsubame pool`.

use super::{conclude, open, rack_view, release, say};
use crate::args::{PoolCommand, RolloutArgs};
use crate::fault::Fault;
use crate::goal::Goal;
use crate::output::Output;
use crate::render::releases;
use crate::session::Environment;
use proto::api::{Accepted, Refusal};
use proto::release::{CreatePool, StartRollout};

pub(super) fn run(environment: &Environment, command: PoolCommand, out: Output) -> Result<(), Fault> {
    match command {
        PoolCommand::List => {
            let doing = "listing pools";
            let view = rack_view(&open(doing, environment)?, doing)?;
            out.show(&view.pools, |width| releases::pools(&view, width))
        }
        PoolCommand::Show { pool } => {
            let doing = format!("showing pool {pool}");
            let view = rack_view(&open(&doing, environment)?, &doing)?;
            let shown = view.pools.iter().find(|p| p.name == pool).ok_or_else(|| Fault::Refused {
                doing: doing.clone(),
                message: Refusal::NoPool { pool: pool.clone() }.to_string(),
            })?;
            out.show(shown, |width| releases::pool(&view, shown, width))
        }
        PoolCommand::Create { pool, release } => {
            let doing = format!("making pool {pool}");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let release = release::resolve(&view, &doing, &release)?.id.clone();
            let accepted = server.post(&doing, "/v1/pools", &CreatePool { name: pool, release })?;
            say(out, &accepted, &doing)
        }
        PoolCommand::Delete { pool } => {
            let doing = format!("deleting pool {pool}");
            let accepted: Accepted = open(&doing, environment)?.delete(&doing, &format!("/v1/pools/{pool}"))?;
            say(out, &accepted, &doing)
        }
        PoolCommand::Rollout(args) => {
            let RolloutArgs { pool, release, canary, deadline, healthy, at_once, no_reboot, wait } = args;
            let doing = format!("rolling {release} out to pool {pool}");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let request = StartRollout {
                to: release::resolve(&view, &doing, &release)?.id.clone(),
                canary,
                deadline_s: deadline.as_secs(),
                healthy_s: healthy.as_secs(),
                at_once,
                reboot: !no_reboot,
            };
            let goal = Goal::rollout(&pool, &view);
            let accepted = server.post(&doing, &format!("/v1/pools/{pool}/rollout"), &request)?;
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |view| {
                let shown = view.pools.iter().find(|p| p.name == pool)?;
                Some((shown.clone(), format!("pool {pool} boots {}\n", releases::title(view, &shown.release))))
            })
        }
        PoolCommand::Stop { pool } => {
            let doing = format!("stopping the rollout of pool {pool}");
            let accepted = open(&doing, environment)?.post_empty(&doing, &format!("/v1/pools/{pool}/stop"))?;
            say(out, &accepted, &doing)
        }
    }
}
