//! Sun, wind and temperature of sites from a file that a sensor or a weather forecast writes.
//!
//! Owns: the format, and laying irregular samples onto the planner's steps. Never does: open files, turn degrees or metres a second into factors; what
//! a site's panels, turbine and cooling make of the weather is known where the sensor is.
//!
//! ```text
//! site,at_ms,sun,wind,temperature      one line of names, in any order; sun, wind and temperature may be missing and count as 1
//! north,1800000000000,0.8,0.5,0.9      Unix milliseconds, factors from 0 to 1; each site's lines from old to new
//! north,1800003600000,0.6,,0.9         nothing between two commas: as before
//! ```

use crate::ganeti::ParseError;
use crate::policy::Site;
use std::collections::BTreeMap;

/// Steps of one site at most: more than a month at 5 minutes.
const STEPS_MAX: usize = 10_000;

/// Names of the columns that hold factors.
const FACTORS: [&str; 3] = ["sun", "wind", "temperature"];

/// A line of the file: when, and the factors that hold from then on.
type Sample = (u64, [f64; 3]);

/// Reads series and lays them onto steps of `sample_ms` from `from_ms` on: at each step holds the newest sample that is not younger, before the first
/// sample that one. With `sample_ms` 0 only `from_ms` itself is looked at. Sites come in the order of their names.
///
/// # Errors
/// The first line that is not as it should be.
pub fn read_sites(text: &str, from_ms: u64, sample_ms: u64) -> Result<Vec<Site>, ParseError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().ok_or_else(|| wrong(1, "no line", "site,at_ms,sun,wind,temperature"))?;
    let columns: Vec<&str> = head.split(',').map(str::trim).collect();
    if let Some(odd) = columns.iter().find(|name| !["site", "at_ms"].contains(name) && !FACTORS.contains(name)) {
        return Err(wrong(1, format!("column {odd:?}"), "site, at_ms, sun, wind or temperature"));
    }
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (Some(site), Some(at)) = (column("site"), column("at_ms")) else {
        return Err(wrong(1, format!("{head:?}"), "the columns site and at_ms"));
    };
    let factors = FACTORS.map(|name| (name, column(name)));
    let mut sites: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    for (i, line) in lines {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != columns.len() {
            let expected = format!("{}, as in the first line", columns.len());
            return Err(wrong(i + 1, format!("{} fields", fields.len()), &expected));
        }
        let at_ms: u64 = fields[at]
            .parse()
            .map_err(|_| wrong(i + 1, format!("at_ms {:?}", fields[at]), "Unix milliseconds, a whole number"))?;
        let samples = sites.entry(fields[site]).or_default();
        let mut sample = samples.last().map_or([1.0; 3], |(_, before)| *before);
        if samples.last().is_some_and(|(before, _)| *before >= at_ms) {
            return Err(wrong(i + 1, format!("at_ms {at_ms}"), "a later time than on this site's line before"));
        }
        for (value, (name, column)) in sample.iter_mut().zip(factors) {
            let Some(field) = column.map(|c| fields[c]).filter(|field| !field.is_empty()) else { continue };
            *value = field
                .parse()
                .ok()
                .filter(|x| (0.0..=1.0).contains(x))
                .ok_or_else(|| wrong(i + 1, format!("{name} {field:?}"), "a number from 0 to 1"))?;
        }
        samples.push((at_ms, sample));
    }
    Ok(sites.into_iter().map(|(name, samples)| laid(name, &samples, from_ms, sample_ms)).collect())
}

fn laid(name: &str, samples: &[Sample], from_ms: u64, sample_ms: u64) -> Site {
    let last_ms = samples.last().map_or(0, |(at_ms, _)| *at_ms);
    // Behind the newest sample it holds on, so no step is needed there.
    let steps = last_ms.saturating_sub(from_ms).checked_div(sample_ms).map_or(1, |n| n.saturating_add(2));
    let steps = usize::try_from(steps).unwrap_or(STEPS_MAX).min(STEPS_MAX);
    let at = |step: usize| {
        let now_ms = from_ms.saturating_add(step as u64 * sample_ms);
        samples[samples.partition_point(|(at_ms, _)| *at_ms <= now_ms).saturating_sub(1)].1
    };
    let factor = |f: usize| (0..steps).map(|step| at(step)[f]).collect();
    Site { name: name.to_owned(), sun: factor(0), wind: factor(1), temperature: factor(2) }
}

fn wrong(line: usize, found: impl Into<String>, expected: &str) -> ParseError {
    ParseError { line, found: found.into(), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_hold_until_the_next() {
        let text = "at_ms,site,sun,temperature\n1000,n,0.2,0.9\n3500,n,0.8,\n500,s,1,1\n";
        let sites = read_sites(text, 2000, 1000).expect("a good file");
        assert_eq!(sites.len(), 2);
        assert_eq!(sites[0].sun, [0.2, 0.2, 0.8]);
        assert_eq!((&sites[0].wind, &sites[0].temperature), (&vec![1.0; 3], &vec![0.9; 3]));
        assert_eq!((sites[1].name.as_str(), &sites[1].sun), ("s", &vec![1.0; 2]), "an old sample holds");
        assert_eq!(read_sites(text, 0, 0).expect("a good file")[0].sun, [0.2], "before the first sample, that one");
    }

    #[test]
    fn each_wrong_line_is_named() {
        for (text, told) in [
            ("", "line 1: no line; expected site,at_ms,sun,wind,temperature"),
            ("site,sun\n", "line 1: \"site,sun\"; expected the columns site and at_ms"),
            ("site,at_ms,rain\n", "line 1: column \"rain\"; expected site, at_ms, sun, wind or temperature"),
            ("site,at_ms\nn\n", "line 2: 1 fields; expected 2, as in the first line"),
            ("site,at_ms\nn,noon\n", "line 2: at_ms \"noon\"; expected Unix milliseconds, a whole number"),
            ("site,at_ms\nn,2\nn,2\n", "line 3: at_ms 2; expected a later time than on this site's line before"),
            ("site,at_ms,sun\nn,2,1.5\n", "line 2: sun \"1.5\"; expected a number from 0 to 1"),
            ("site,at_ms,wind\nn,2,NaN\n", "line 2: wind \"NaN\"; expected a number from 0 to 1"),
        ] {
            assert_eq!(read_sites(text, 0, 1).map_err(|err| err.to_string()), Err(told.to_owned()));
        }
    }
}
