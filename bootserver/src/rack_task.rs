//! The task that owns the rack: the one place where events go in and effects come out.
//!
//! Owns: the order of things. While one batch of events becomes durable in one transaction, the next is applied; the other
//! effects of a batch, and what is shown of it, leave when it is durable, in order; but DHCP offers, which promise nothing, at
//! once. Never does: decide; wait for anything but the store.
//!
//! ```text
//!  events ──> [bounded queue] ──> apply … apply ──> [next batch] ──> store.commit ──> answers, storage jobs, view
//!                                    ^                (one at a time, of all that came up meanwhile) | fails
//!  storage jobs' ends, ticks ────────┘                  the server ends: memory is no longer true <──┘
//! ```

use crate::ca::{Ca, CaError};
use crate::crash::Steps;
use crate::power::PowerJobs;
use crate::storage_jobs::{Perform, StorageJobs};
use crate::store::{Store, StoreError};
use proto::HostId;
use proto::agent::Act;
use proto::event::LogEvent;
use proto::view::RackView;
use rack::Rack;
use rack::dhcp::DhcpReply;
use rack::effect::{Answer, Effect};
use rack::event::{Event, Now, ReplyTo};
use rack::record::Change;
use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Events of one commit, about; no more are taken in while so many wait for theirs.
const BATCH_EVENTS_MAX: usize = 1024;
/// Events that wait; who has more to say waits, or drops a packet.
const QUEUE_EVENTS_MAX: usize = 1024;
/// The rack asks for a tick at least every 250 ms.
const TICK: Duration = Duration::from_millis(200);
/// The view is made at most this often.
const VIEW_EVERY: Duration = Duration::from_millis(250);

/// Why the rack's task has ended.
#[derive(Debug, thiserror::Error)]
pub enum RackError {
    /// A commit failed. Nothing that relied on it was let out.
    #[error("the server stops, as a change could not be made durable: {0}")]
    Store(#[from] StoreError),
    /// A permit could not be signed.
    #[error("the server stops, as a permit could not be signed: {0}")]
    Sign(#[from] CaError),
    /// A job was lost.
    #[error("the server stops, as a job of storage or power was lost: {0}")]
    Job(#[from] tokio::task::JoinError),
}

/// The server is stopping: there will be no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopping;

#[allow(clippy::large_enum_variant)] // nearly all are events
enum Input {
    Event {
        event: Event,
        pending: Option<(ReplyTo, Pending)>,
    },
    /// Reading the log; the view holds its newest part only.
    Log {
        after: u64,
        limit: usize,
        answer: oneshot::Sender<Vec<LogEvent>>,
    },
    /// Reading the view as it is now, and not up to a quarter of a second ago.
    Fresh(oneshot::Sender<Arc<Shown>>),
}

/// The rack's view, and its JSON, which is made once however many look.
#[derive(Debug, Default)]
pub struct Shown {
    /// The view.
    pub view: RackView,
    json: OnceLock<Arc<str>>,
}

impl Shown {
    /// The view as JSON.
    pub fn json(&self) -> Arc<str> {
        let make = || serde_json::to_string(&self.view).expect("plain data with text keys is JSON").into();
        self.json.get_or_init(make).clone()
    }

    fn of(rack: &Rack, now: Now) -> Arc<Self> {
        Arc::new(Self { view: rack.view(now), json: OnceLock::new() })
    }
}

enum Pending {
    /// Somebody waits.
    Asker {
        answer: oneshot::Sender<Answer>,
        /// Set when the question is a report: the rack is told if its asker goes away.
        host: Option<HostId>,
    },
    /// Nobody waits; the answer is given to this, which must not take long.
    Taker(Box<dyn FnOnce(Answer) + Send>),
}

/// A way to the rack.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    replies: Arc<AtomicU64>,
    view: watch::Receiver<Arc<Shown>>,
}

impl Handle {
    /// Asks, and waits for the answer as long as it takes. `event` gets the number to put in.
    pub async fn ask(&self, event: impl FnOnce(ReplyTo) -> Event) -> Result<Answer, Stopping> {
        let reply = self.number();
        let event = event(reply);
        let host = match &event {
            Event::Report { host, .. } => Some(host.clone()),
            _ => None,
        };
        let (answer, receiver) = oneshot::channel();
        self.send(event, (reply, Pending::Asker { answer, host })).await?;
        receiver.await.map_err(|_| Stopping)
    }

    /// Asks, waiting only for a place in the queue. `take` is called by the rack's own task: it hands the answer on.
    pub async fn hand(
        &self,
        event: impl FnOnce(ReplyTo) -> Event,
        take: impl FnOnce(Answer) + Send + 'static,
    ) -> Result<(), Stopping> {
        let reply = self.number();
        self.send(event(reply), (reply, Pending::Taker(Box::new(take)))).await
    }

    /// Tells something that has no answer. Dropped when the queue is full: it is progress, and more will follow.
    pub fn tell(&self, event: Event) {
        let _ = self.inputs.try_send(Input::Event { event, pending: None });
    }

    /// Tells the rack something that must not be lost; waits while its queue is full.
    pub async fn say(&self, event: Event) {
        // A rack that is stopping needs no word any more.
        let _ = self.inputs.send(Input::Event { event, pending: None }).await;
    }

    /// The log's events after `after`, oldest first, at most `limit`.
    pub async fn log(&self, after: u64, limit: usize) -> Result<Vec<LogEvent>, Stopping> {
        let (answer, receiver) = oneshot::channel();
        self.inputs.send(Input::Log { after, limit, answer }).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// The newest view that was shown; up to a quarter of a second old while much happens.
    pub fn shown(&self) -> Arc<Shown> {
        self.view.borrow().clone()
    }

    /// The view with all in it that was acknowledged before this call.
    pub async fn fresh(&self) -> Result<Arc<Shown>, Stopping> {
        let (answer, receiver) = oneshot::channel();
        self.inputs.send(Input::Fresh(answer)).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// To be woken when the view changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Shown>> {
        self.view.clone()
    }

    fn number(&self) -> ReplyTo {
        ReplyTo(self.replies.fetch_add(1, Ordering::Relaxed))
    }

    async fn send(&self, event: Event, pending: (ReplyTo, Pending)) -> Result<(), Stopping> {
        self.inputs.send(Input::Event { event, pending: Some(pending) }).await.map_err(|_| Stopping)
    }
}

/// What came up since the last commit began.
#[derive(Default)]
struct Batch {
    events: usize,
    changes: Vec<Change>,
    out: Vec<Out>,
}

/// What leaves when all before it is durable.
#[allow(clippy::large_enum_variant)] // nearly all are effects
enum Out {
    Effect(Effect),
    Log(oneshot::Sender<Vec<LogEvent>>, Vec<LogEvent>),
    Fresh(oneshot::Sender<Arc<Shown>>, Arc<Shown>),
    Show(Arc<Shown>),
}

/// A commit under way, and what waits for it.
struct Committing {
    done: Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>,
    out: Vec<Out>,
    steps: Steps,
}

impl Batch {
    fn take_in(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit(change) => self.changes.push(change),
                other => self.out.push(Out::Effect(other)),
            }
        }
    }
}

/// What the task works with.
pub struct RackTask {
    rack: Rack,
    store: Store,
    ca: Arc<Ca>,
    jobs: StorageJobs,
    power: PowerJobs,
    pending: HashMap<ReplyTo, Pending>,
    inputs: mpsc::Receiver<Input>,
    view: watch::Sender<Arc<Shown>>,
    clock: Clock,
}

impl RackTask {
    /// Makes task and handle. `clock` is that by which the rack was restored; `restored` its effects.
    pub async fn new(
        rack: Rack,
        restored: Vec<Effect>,
        clock: Clock,
        store: Store,
        ca: Arc<Ca>,
        perform: Perform,
    ) -> Result<(Self, Handle), RackError> {
        let (sender, inputs) = mpsc::channel(QUEUE_EVENTS_MAX);
        let (view, watch) = watch::channel(Shown::of(&rack, clock.now()));
        let jobs = StorageJobs::new(perform);
        let mut task =
            Self { rack, store, ca, jobs, power: PowerJobs::default(), pending: HashMap::new(), inputs, view, clock };
        let mut batch = Batch::default();
        batch.take_in(restored);
        if !batch.changes.is_empty() {
            task.store.commit(batch.changes).await?;
        }
        task.let_out(batch.out)?;
        Ok((task, Handle { inputs: sender, replies: Arc::new(AtomicU64::new(1)), view: watch }))
    }

    /// Runs until `stop` turns true, or until something fails that must not be gone over.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), RackError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(BATCH_EVENTS_MAX);
        let mut events = Vec::with_capacity(BATCH_EVENTS_MAX);
        let (mut next, mut committing) = (Batch::default(), None::<Committing>);
        let (mut version, mut shown) = (self.rack.version(), Instant::now());
        loop {
            let room = BATCH_EVENTS_MAX.saturating_sub(next.events);
            // Each branch only waits: nothing is lost when another comes first.
            tokio::select! {
                done = durable(&mut committing) => {
                    let (out, steps) = done?;
                    steps.point("committed");
                    self.let_out(out)?;
                    steps.point("let-out");
                }
                count = self.inputs.recv_many(&mut inputs, room), if room > 0 => {
                    if count == 0 {
                        return Ok(());
                    }
                    for input in inputs.drain(..) {
                        match input {
                            Input::Event { event, pending } => {
                                self.pending.extend(pending);
                                events.push(event);
                            }
                            // Both read the state before the events beside them.
                            Input::Log { after, limit, answer } => {
                                next.out.push(Out::Log(answer, self.rack.events(after, limit)));
                            }
                            Input::Fresh(answer) => next.out.push(Out::Fresh(answer, Shown::of(&self.rack, self.clock.now()))),
                        }
                    }
                }
                done = self.jobs.ended() => {
                    let (job, result) = done?;
                    events.push(Event::StorageDone { job, result });
                }
                done = self.power.ended() => {
                    let (job, host, result) = done?;
                    events.push(Event::PowerDone { job, host, result });
                }
                _ = tick.tick() => {
                    self.forget_gone(&mut events);
                    events.push(Event::Tick);
                }
                () = tokio::time::sleep_until(shown + VIEW_EVERY), if version != self.rack.version() => {}
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
            }
            next.events += events.len();
            for event in events.drain(..) {
                let mut effects = self.rack.apply(event, self.clock.now());
                self.let_out(effects.extract_if(.., |effect| promises_nothing(effect)).map(Out::Effect))?;
                next.take_in(effects);
            }
            if version != self.rack.version() && shown.elapsed() >= VIEW_EVERY {
                (version, shown) = (self.rack.version(), Instant::now());
                next.out.push(Out::Show(Shown::of(&self.rack, self.clock.now())));
            }
            if committing.is_none() {
                let Batch { changes, out, .. } = std::mem::take(&mut next);
                if changes.is_empty() {
                    self.let_out(out)?;
                } else {
                    let (store, steps) = (self.store.clone(), Steps::of(&changes));
                    steps.point("before-commit");
                    let done = Box::pin(async move { store.commit(changes).await });
                    committing = Some(Committing { done, out, steps });
                }
            }
        }
    }

    fn let_out(&mut self, out: impl IntoIterator<Item = Out>) -> Result<(), RackError> {
        for out in out {
            // Whoever asked may be gone.
            match out {
                Out::Effect(Effect::Answer { to, answer }) => {
                    let given = self.signed(answer)?;
                    match self.pending.remove(&to) {
                        Some(Pending::Asker { answer, .. }) => drop(answer.send(given)),
                        Some(Pending::Taker(take)) => take(given),
                        None => {}
                    }
                }
                Out::Effect(Effect::Storage { job, op }) => self.jobs.push(job, op),
                Out::Effect(Effect::Power { job, host, bmc, op }) => self.power.push(job, host, bmc, op),
                // Commits are no part of what leaves.
                Out::Effect(Effect::Commit(_)) => {}
                Out::Log(to, events) => drop(to.send(events)),
                Out::Fresh(to, shown) => drop(to.send(shown)),
                Out::Show(shown) => drop(self.view.send_replace(shown)),
            }
        }
        Ok(())
    }

    /// Fills in the signature of every permit that leaves; the rack has no key.
    fn signed(&self, mut answer: Answer) -> Result<Answer, CaError> {
        if let Answer::Report(Ok(report)) = &mut answer {
            for order in &mut report.orders {
                if let Act::Send { permit, .. } = &mut order.act {
                    permit.signature = self.ca.sign(permit.permit_json.as_bytes())?;
                }
            }
        }
        Ok(answer)
    }

    /// Questions whose asker has gone away are forgotten; of a report the rack is told.
    fn forget_gone(&mut self, events: &mut Vec<Event>) {
        self.pending.retain(|&reply, pending| {
            let Pending::Asker { answer, host } = pending else { return true };
            let gone = answer.is_closed();
            if gone && let Some(host) = host.take() {
                events.push(Event::ReportGone { reply, host });
            }
            !gone
        });
    }
}

/// What need not wait until anything is durable.
fn promises_nothing(effect: &Effect) -> bool {
    matches!(effect, Effect::Answer { answer: Answer::Dhcp(Some(DhcpReply { binds: false, .. })), .. })
}

/// Waits until the commit under way is durable; what waited for it. For ever when there is none.
async fn durable(committing: &mut Option<Committing>) -> Result<(Vec<Out>, Steps), StoreError> {
    let Some(under_way) = committing else { return pending().await };
    under_way.done.as_mut().await?;
    Ok(committing.take().map(|done| (done.out, done.steps)).unwrap_or_default())
}

/// The two clocks that the rack is told.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begun: Instant,
}

impl Clock {
    /// A clock whose monotonic zero is now.
    pub fn start() -> Self {
        Self { begun: Instant::now() }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.begun.elapsed()), unix_ms: millis(unix) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
