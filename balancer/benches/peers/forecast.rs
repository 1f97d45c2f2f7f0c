//! Mean absolute error of forecasts by horizon, beside the last value and EWMA 0.1.

use crate::planetlab::day;
use balancer::Tracker;

/// Samples before any forecast is judged: an hour.
const WARM_UP: usize = 12;

pub(crate) fn run(_long: bool) {
    println!("## 5. Forecasts on PlanetLab, mean absolute error beside \"same as the last value\"\n");
    println!(
        "| day | minutes ahead | last value, points | EWMA 0.1 | ours | ours beside EWMA 0.1 |\n|---|---|---|---|---|---|"
    );
    for name in ["20110303", "20110306", "20110309", "20110322", "20110325"] {
        let Some(traces) = day(name) else { continue };
        for ahead in [1usize, 2, 3, 6, 12] {
            let (mut last, mut ewma, mut ours, mut n) = (0.0, 0.0, 0.0, 0.0);
            for series in &traces {
                let mut tracker = Tracker::new(ahead);
                let mut smooth = series[0];
                for (t, &sample) in series.iter().enumerate() {
                    smooth += 0.1 * (sample - smooth);
                    tracker.observe(sample);
                    let Some(&came) = series.get(t + ahead).filter(|_| t >= WARM_UP) else { continue };
                    last += (came - sample).abs();
                    ewma += (came - smooth).abs();
                    ours += (came - tracker.expected().mean).abs();
                    n += 1.0;
                }
            }
            println!(
                "| {name} | {} | {:.2} | {:.3} | {:.3} | {:.3} |",
                ahead * 5,
                last / n * 100.0,
                ewma / last,
                ours / last,
                ours / ewma
            );
        }
    }
    println!();
}
