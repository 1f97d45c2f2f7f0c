//! The rack as it changes: one view after another, whatever happens to the connection.
//!
//! Owns: the event stream of `/v1/stream` and its being opened anew, and asking `/v1/rack` every second where there is no
//! stream. Never does: deciding what a view means.
//!
//! ```text
//! Closed --open--> Open --end, silence, garbled bytes--> Closed (after a pause that doubles up to 3 s)
//!    \--no stream at this server--> Polling
//! ```

use crate::client::{Server, StreamBody};
use crate::fault::Fault;
use crate::sse::{SseEvent, SseParser};
use proto::view::RackView;
use std::collections::VecDeque;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

const POLL_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Views of one rack.
pub(crate) struct Watch<'a> {
    server: &'a Server,
    doing: String,
    source: Source,
    /// Until the next try; doubles while the server is not reached.
    pause: Duration,
    /// The fault of the newest try, for who runs out of time.
    trouble: Option<Fault>,
}

enum Source {
    Closed,
    Open { body: StreamBody, parser: SseParser, waiting: VecDeque<SseEvent> },
    Polling { asked: bool },
}

impl<'a> Watch<'a> {
    /// Nothing is asked until the first `next`.
    pub(crate) fn new(server: &'a Server, doing: &str) -> Self {
        Self { server, doing: doing.to_owned(), source: Source::Closed, pause: RETRY_PAUSE_MIN, trouble: None }
    }

    /// Why there is no view now, if there is none.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.as_ref().map(Fault::to_string)
    }

    /// The next view; `None` when `deadline` passes before. Without a deadline it waits for ever.
    ///
    /// # Errors
    /// What no waiting mends: not logged in, not trusted, no Tsubame server. A server that is not reached is asked
    /// again.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<RackView>, Fault> {
        loop {
            if left(deadline).is_some_and(|d| d.is_zero()) {
                return Ok(None);
            }
            match self.step(deadline) {
                Ok(Some(view)) => {
                    self.pause = RETRY_PAUSE_MIN;
                    self.trouble = None;
                    return Ok(Some(view));
                }
                Ok(None) => {}
                Err(fault) if fault.may_pass() => {
                    if !matches!(self.source, Source::Polling { .. }) {
                        self.source = Source::Closed;
                    }
                    // Reading until the deadline is no trouble.
                    if left(deadline).is_none_or(|d| !d.is_zero()) {
                        self.trouble = Some(fault);
                    }
                    sleep(self.pause, deadline);
                    self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn step(&mut self, deadline: Option<Instant>) -> Result<Option<RackView>, Fault> {
        match &mut self.source {
            Source::Closed => {
                self.source = match self.server.stream(&self.doing, left(deadline))? {
                    Some(body) => Source::Open { body, parser: SseParser::default(), waiting: VecDeque::new() },
                    None => Source::Polling { asked: false },
                };
                Ok(None)
            }
            Source::Polling { asked } => {
                if std::mem::replace(asked, true) {
                    sleep(POLL_PAUSE, deadline);
                }
                self.server.get(&self.doing, "/v1/rack").map(Some)
            }
            Source::Open { body, parser, waiting } => {
                if let Some(event) = waiting.pop_front() {
                    if event.name != "rack" {
                        return Ok(None);
                    }
                    let view = serde_json::from_str(&event.data);
                    return view.map(Some).map_err(|e| self.server.nonsense(&self.doing, format!("event rack: {e}")));
                }
                let mut bytes = [0; 16 << 10];
                let broken = match body.read(&mut bytes) {
                    Ok(0) => "the stream ended".to_owned(),
                    Ok(n) => match parser.feed(&bytes[..n]) {
                        Ok(events) => {
                            waiting.extend(events);
                            return Ok(None);
                        }
                        Err(e) => return Err(self.server.nonsense(&self.doing, e.to_string())),
                    },
                    Err(e) => e.to_string(),
                };
                let url = self.server.url.to_string();
                Err(Fault::Unreached { doing: self.doing.clone(), url, why: broken, unsure: false })
            }
        }
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|d| d.saturating_duration_since(Instant::now()))
}

fn sleep(pause: Duration, deadline: Option<Instant>) {
    thread::sleep(left(deadline).map_or(pause, |left| left.min(pause)));
}
