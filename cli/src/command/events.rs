//! `tsubame events`.

use super::rack_view;
use crate::client::Server;
use crate::fault::Fault;
use crate::output::Output;
use crate::render::events::line;
use crate::watch::Watch;
use proto::event::LogEvent;
use proto::view::RackView;

/// Most events asked for at once.
const PAGE: u64 = 1000;

pub(super) fn run(server: &Server, follow: bool, limit: u64, out: Output) -> Result<(), Fault> {
    let doing = "reading events";
    let newest = newest(&rack_view(server, doing)?);
    let mut last = newest.saturating_sub(limit);
    if !follow {
        let events = all_after(server, doing, last, newest)?;
        return out.show(&events, |_| events.iter().map(line).collect());
    }
    let mut watch = Watch::new(server, "following events");
    last = print(out, all_after(server, doing, last, newest)?, last)?;
    loop {
        // Without a deadline a view always comes.
        let Some(view) = watch.next(None)? else { continue };
        let newest = self::newest(&view);
        let fresh: Vec<_> = view.events.iter().rev().filter(|e| e.seq > last).cloned().collect();
        let gap = fresh.first().is_some_and(|first| first.seq > last + 1);
        let events = match gap {
            true => match all_after(server, doing, last, newest) {
                // The next view shows the same gap.
                Err(fault) if fault.may_pass() => continue,
                asked => asked?,
            },
            false => fresh,
        };
        last = print(out, events, last)?;
    }
}

/// The events with `after < seq`, to `newest` or beyond, oldest first.
fn all_after(server: &Server, doing: &str, mut after: u64, newest: u64) -> Result<Vec<LogEvent>, Fault> {
    let mut all = Vec::new();
    while after < newest {
        let page: Vec<LogEvent> = server.get(doing, &format!("/v1/events?after={after}&limit={PAGE}"))?;
        // An empty page, or one that leads nowhere: the log is bounded, and what is missing is gone.
        match page.last() {
            Some(event) if event.seq > after => after = event.seq,
            _ => break,
        }
        all.extend(page);
    }
    Ok(all)
}

fn print(out: Output, events: Vec<LogEvent>, mut last: u64) -> Result<u64, Fault> {
    for event in events {
        out.show_one_of_many(&event, || line(&event))?;
        last = last.max(event.seq);
    }
    Ok(last)
}

fn newest(view: &RackView) -> u64 {
    view.events.iter().map(|e| e.seq).max().unwrap_or(0)
}
