//! The task that owns the rack: the one place where events go in and effects come out.
//!
//! Owns: the order of things. Up to 256 waiting events are applied, all their commits made durable in one transaction,
//! and only then do their other effects leave, in order. Never does: decide; wait for anything but the store.
//!
//! ```text
//!  events ──> [bounded queue] ──> apply … apply ──> store.commit ──> answers (oneshot), storage jobs, view (watch)
//!                                    ^                  | fails
//!  storage jobs' ends, ticks ────────┘                  └──> the server ends: what is in memory is no longer true
//! ```

use crate::ca::{Ca, CaError};
use crate::storage_jobs::{Perform, StorageJobs};
use crate::store::{Store, StoreError};
use proto::HostId;
use proto::agent::Act;
use proto::event::LogEvent;
use proto::view::RackView;
use rack::Rack;
use rack::effect::{Answer, Effect};
use rack::event::{Event, Now, ReplyTo};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Events applied before a commit.
const BATCH_EVENTS_MAX: usize = 256;
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
    /// A storage job was lost.
    #[error("the server stops, as a storage job was lost: {0}")]
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

struct Pending {
    answer: oneshot::Sender<Answer>,
    /// Set when the question is a report: the rack is told if its asker goes away.
    host: Option<HostId>,
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
        let (input, answer) = self.question(event);
        self.inputs.send(input).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Asks without waiting for a place in the queue; `None` when it is full.
    pub fn try_ask(&self, event: impl FnOnce(ReplyTo) -> Event) -> Option<oneshot::Receiver<Answer>> {
        let (input, answer) = self.question(event);
        self.inputs.try_send(input).ok().map(|()| answer)
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

    fn question(&self, event: impl FnOnce(ReplyTo) -> Event) -> (Input, oneshot::Receiver<Answer>) {
        let reply = ReplyTo(self.replies.fetch_add(1, Ordering::Relaxed));
        let (answer, receiver) = oneshot::channel();
        let event = event(reply);
        let host = match &event {
            Event::Report { host, .. } => Some(host.clone()),
            _ => None,
        };
        (Input::Event { event, pending: Some((reply, Pending { answer, host })) }, receiver)
    }
}

/// What the task works with.
pub struct RackTask {
    rack: Rack,
    store: Store,
    ca: Arc<Ca>,
    jobs: StorageJobs,
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
        let mut task = Self { rack, store, ca, jobs, pending: HashMap::new(), inputs, view, clock };
        task.let_out(restored).await?;
        Ok((task, Handle { inputs: sender, replies: Arc::new(AtomicU64::new(1)), view: watch }))
    }

    /// Runs until `stop` turns true, or until something fails that must not be gone over.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), RackError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH_EVENTS_MAX);
        let mut events = Vec::with_capacity(BATCH_EVENTS_MAX);
        let (mut version, mut shown) = (self.rack.version(), Instant::now());
        loop {
            // Each branch only waits: nothing is lost when another comes first.
            tokio::select! {
                count = self.inputs.recv_many(&mut batch, BATCH_EVENTS_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for input in batch.drain(..) {
                        match input {
                            Input::Event { event, pending } => {
                                self.pending.extend(pending);
                                events.push(event);
                            }
                            // Both read the state before this batch: all of it is durable.
                            Input::Log { after, limit, answer } => {
                                let _ = answer.send(self.rack.events(after, limit));
                            }
                            Input::Fresh(answer) => {
                                if version != self.rack.version() {
                                    (version, shown) = self.show();
                                }
                                let _ = answer.send(self.view.borrow().clone());
                            }
                        }
                    }
                }
                done = self.jobs.ended() => {
                    let (job, result) = done?;
                    events.push(Event::StorageDone { job, result });
                }
                _ = tick.tick() => {
                    self.forget_gone(&mut events);
                    events.push(Event::Tick);
                }
                () = tokio::time::sleep_until(shown + VIEW_EVERY), if version != self.rack.version() => {}
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
            }
            let mut effects = Vec::new();
            for event in events.drain(..) {
                effects.extend(self.rack.apply(event, self.clock.now()));
            }
            self.let_out(effects).await?;
            if version != self.rack.version() && shown.elapsed() >= VIEW_EVERY {
                (version, shown) = self.show();
            }
        }
    }

    /// Shows the present view; returns its version and when that was.
    fn show(&self) -> (u64, Instant) {
        self.view.send_replace(Shown::of(&self.rack, self.clock.now()));
        (self.rack.version(), Instant::now())
    }

    /// Commits first, then all else in order.
    async fn let_out(&mut self, effects: Vec<Effect>) -> Result<(), RackError> {
        let mut changes = Vec::new();
        let mut others = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                Effect::Commit(change) => changes.push(change),
                other => others.push(other),
            }
        }
        if !changes.is_empty() {
            self.store.commit(changes).await?;
        }
        for effect in others {
            match effect {
                Effect::Commit(_) => {}
                Effect::Answer { to, answer } => {
                    let answer = self.signed(answer)?;
                    if let Some(pending) = self.pending.remove(&to) {
                        // Whoever asked may be gone.
                        let _ = pending.answer.send(answer);
                    }
                }
                Effect::Storage { job, op } => self.jobs.push(job, op),
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
            let gone = pending.answer.is_closed();
            if gone && let Some(host) = pending.host.take() {
                events.push(Event::ReportGone { reply, host });
            }
            !gone
        });
    }
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
