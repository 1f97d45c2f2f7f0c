//! Moves, done and planned.

use super::names;
use super::table::{Align, Column, age, bytes, columns, span};
use proto::view::{MovePhase, MoveView, PlanView, RackView};

const COLUMNS: [Column; 10] = [
    ("MOVE", Align::Right),
    ("VM", Align::Left),
    ("FROM", Align::Left),
    ("TO", Align::Left),
    ("PHASE", Align::Left),
    ("SENT", Align::Right),
    ("TOOK", Align::Right),
    ("DOWNTIME", Align::Right),
    ("BEGAN", Align::Right),
    ("WHY", Align::Left),
];

/// Moves under way and the newest that ended.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.moves.iter().map(|m| {
        let phase = match (m.phase, m.stage) {
            (MovePhase::Copying, Some(stage)) => names::stage(stage).to_owned(),
            (phase, _) => names::move_phase(phase).to_owned(),
        };
        vec![
            m.id.to_string(),
            m.vm.to_string(),
            names::host(view, &m.source).to_owned(),
            names::host(view, &m.target).to_owned(),
            phase,
            bytes(m.bytes),
            m.total_ms.map_or_else(String::new, span),
            m.downtime_ms.map_or_else(String::new, span),
            format!("{} ago", age(m.began_ms, view.at_ms)),
            m.failure.clone().unwrap_or_else(|| m.reason.clone()),
        ]
    });
    columns(&COLUMNS, rows.collect(), "no VM was moved yet", width)
}

/// The sentence for a move that has ended well.
pub(crate) fn done(view: &RackView, m: &MoveView) -> String {
    let took = m.total_ms.map_or_else(String::new, |ms| format!(" after {}", span(ms)));
    let still = m.downtime_ms.map_or_else(String::new, |ms| format!("; it stood still for {}", span(ms)));
    format!("VM {} runs on {}{took}{still}\n", m.vm, names::host(view, &m.target))
}

/// A plan. Hosts are named by `view`.
pub(crate) fn plan(view: &RackView, plan: &PlanView, width: Option<u16>) -> String {
    const MOVES: [Column; 4] = [("VM", Align::Left), ("FROM", Align::Left), ("TO", Align::Left), ("WHY", Align::Left)];
    const STAYS: [Column; 2] = [("STAYS", Align::Left), ("WHY", Align::Left)];
    let rows = plan.moves.iter().map(|m| {
        vec![
            m.vm.to_string(),
            names::host(view, &m.source).to_owned(),
            names::host(view, &m.target).to_owned(),
            m.reason.clone(),
        ]
    });
    let mut text = columns(&MOVES, rows.collect(), "no move would even it out further", width);
    if !plan.stays.is_empty() {
        let rows = plan.stays.iter().map(|s| vec![s.vm.to_string(), s.why.clone()]);
        text.push('\n');
        text.push_str(&columns(&STAYS, rows.collect(), "", width));
    }
    text + &format!("\nImbalance {:.3} now, {:.3} then (0 is even)\n", plan.score_before, plan.score_after)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{plan as sample_plan, rack};
    use super::*;
    use expect_test::expect;

    #[test]
    fn tables() {
        let view = rack();
        expect![[r#"
            MOVE  VM     FROM    TO             PHASE         SENT   TOOK  DOWNTIME    BEGAN  WHY
               8  web-1  node-1  h525400aabb03  copying  48.00 MiB                   12s ago  memory: node-1 is at 88 %
               7  web-1  node-1  h525400aabb03  done     48.00 MiB  3.2 s    187 ms  12s ago  memory: node-1 is at 88 %
               6  web-1  node-1  h525400aabb03  aborted  48.00 MiB                   12s ago  the stream broke
        "#]]
        .assert_eq(&list(&view, None));
        expect![[r#"
            VM web-1 runs on h525400aabb03 after 3.2 s; it stood still for 187 ms
        "#]]
        .assert_eq(&done(&view, &view.moves[1]));
        expect![[r#"
            VM     FROM    TO             WHY
            web-1  node-1  h525400aabb03  evens out memory

            STAYS  WHY
            db     it does not run

            Imbalance 0.412 now, 0.100 then (0 is even)
        "#]]
        .assert_eq(&plan(&view, &sample_plan(), None));
        expect![[r#"
            no move would even it out further

            Imbalance 0.000 now, 0.000 then (0 is even)
        "#]]
        .assert_eq(&plan(&view, &PlanView::default(), None));
    }
}
