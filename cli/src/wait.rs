//! Waits until what was begun is done, and shows how far it is.
//!
//! Owns: the progress bar on stderr (nothing is drawn where stderr is no terminal) and the time limit. Never does:
//! judging a view, which is `goal`'s.

use crate::args::WaitArgs;
use crate::client::Server;
use crate::fault::Fault;
use crate::goal::{Goal, Look, Progress};
use crate::render::table::plain;
use crate::watch::Watch;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::view::RackView;
use std::time::{Duration, Instant};

/// Waits until `goal` is met and gives the view that shows it.
///
/// # Errors
/// `Failed` when it cannot be met any more, `TimedOut`, and what `Watch::next` gives.
pub(crate) fn until(server: &Server, doing: &str, goal: &Goal, limits: &WaitArgs) -> Result<RackView, Fault> {
    let deadline = Instant::now().checked_add(limits.timeout);
    let mut watch = Watch::new(server, doing);
    let bar = Bar::new(doing);
    let mut last = "nothing was seen of it".to_owned();
    loop {
        let Some(view) = watch.next(deadline)? else {
            let last = watch.trouble().unwrap_or(last);
            return Err(Fault::TimedOut { doing: doing.to_owned(), after: limits.timeout, last });
        };
        match goal.look(&view) {
            Look::Met => return Ok(view),
            Look::Failed(why) => return Err(Fault::Failed { doing: doing.to_owned(), why }),
            Look::Waiting(progress) => {
                bar.show(&progress);
                last = format!("it was last seen {}", progress.stage);
            }
        }
    }
}

/// A bar that goes away when dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new(doing: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_prefix(doing.to_owned());
        bar.set_style(style("{spinner} {prefix} [{elapsed}] {msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    fn show(&self, progress: &Progress) {
        let bar = &self.0;
        bar.set_message(plain(&progress.stage));
        if progress.bytes == 0 {
            return;
        }
        if progress.bytes_total == 0 {
            bar.set_style(style("{spinner} {prefix} [{elapsed}] {msg} {bytes}"));
        } else {
            bar.set_style(style("{spinner} {prefix} [{elapsed}] {bar:24} {bytes}/{total_bytes} {msg}"));
            bar.set_length(progress.bytes_total.max(progress.bytes));
        }
        bar.set_position(progress.bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("each template above is a constant that indicatif reads")
}
