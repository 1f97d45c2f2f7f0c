//! htools' text format, as `hbal -t` reads it (htools 3.0, `Ganeti/HTools/Backend/Text.hs`; man page hbal(1), section on `-t`).
//!
//! Sections are parted by empty lines: groups, nodes, instances, cluster tags, instance policies. Fields are parted by `|`.

use std::collections::HashMap;

/// A cluster as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// In the order of the file.
    pub instances: Vec<Instance>,
    /// Most virtual processors for each physical one, from the cluster's policy.
    pub vcpu_ratio: f64,
    /// Most disks' spindles in use for each physical one, from the cluster's policy.
    pub spindle_ratio: f64,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Memory, MiB.
    pub memory_mib: f64,
    /// Memory of the node itself, MiB.
    pub own_mib: f64,
    /// Memory free by the node's own word, MiB.
    pub free_mib: f64,
    /// Disk, MiB.
    pub disk_mib: f64,
    /// Disk free, MiB.
    pub disk_free_mib: f64,
    /// Processors.
    pub cpus: f64,
    /// Processors that the node itself uses.
    pub own_cpus: f64,
    /// Speed beside other nodes.
    pub speed: f64,
    /// Spindles.
    pub spindles: f64,
    /// Its node group.
    pub group: String,
    /// Takes no instances: drained.
    pub drained: bool,
    /// Offline: it is left out of everything.
    pub offline: bool,
}

/// An instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpus: f64,
    /// Number of its node.
    pub node: usize,
    /// Spindles in use, of local disks.
    pub spindles: f64,
    /// May be migrated to any node of its group.
    pub movable: bool,
    /// Its exclusion tags: no two instances with the same one belong on one node.
    pub exclusion: Vec<String>,
    /// Load on processor, memory, disk and network by the utilisation file; 1 each without one.
    pub load: [f64; 4],
}

/// A file that cannot be read as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {found}; expected {expected}")]
pub struct ParseError {
    /// 1 is the first.
    pub line: usize,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

fn wrong(line: usize, found: impl Into<String>, expected: impl Into<String>) -> ParseError {
    ParseError { line, found: found.into(), expected: expected.into() }
}

/// A line's fields with its number, for errors.
struct Fields<'a> {
    line: usize,
    fields: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn new(line: usize, text: &'a str, least: usize, what: &str) -> Result<Self, ParseError> {
        let fields: Vec<&str> = text.split('|').collect();
        if fields.len() < least {
            return Err(wrong(
                line,
                format!("{} fields", fields.len()),
                format!("{what}: at least {least} fields parted by '|'"),
            ));
        }
        Ok(Self { line, fields })
    }

    fn text(&self, i: usize) -> &'a str {
        self.fields.get(i).copied().unwrap_or("")
    }

    fn number(&self, i: usize, what: &str) -> Result<f64, ParseError> {
        let text = self.text(i);
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && (0.0..=1e15).contains(&number) => Ok(number),
            _ => Err(wrong(self.line, format!("{text:?}"), format!("{what} (field {}): a number, 0 or more", i + 1))),
        }
    }

    fn number_or(&self, i: usize, what: &str, missing: f64) -> Result<f64, ParseError> {
        if self.text(i).is_empty() { Ok(missing) } else { self.number(i, what) }
    }
}

impl Cluster {
    /// Reads the text format and, if there is one, the utilisation file (`-U`: name and four loads a line).
    ///
    /// # Errors
    /// The first line that is wrong. [`Cluster::add_load`] reads the second file, so that each error belongs to one file.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut sections: Vec<Vec<(usize, &str)>> = vec![Vec::new()];
        for (i, line) in text.lines().enumerate() {
            match sections.last_mut() {
                Some(section) if !line.is_empty() => section.push((i + 1, line)),
                _ => sections.push(Vec::new()),
            }
        }
        let lines = text.lines().count();
        if sections.len() < 5 {
            let found = format!("{} sections", sections.len());
            return Err(wrong(
                lines,
                found,
                "groups, nodes, instances, cluster tags and policies, parted by empty lines",
            ));
        }
        let nodes = sections[1].iter().map(|&(line, text)| node(line, text)).collect::<Result<Vec<_>, _>>()?;
        let mut names = HashMap::new();
        for (i, (node, &(line, _))) in nodes.iter().zip(&sections[1]).enumerate() {
            if names.insert(node.name.as_str(), i).is_some() {
                return Err(wrong(line, format!("node {:?} again", node.name), "each node once"));
            }
        }
        let prefixes: Vec<String> = sections[3]
            .iter()
            .filter_map(|(_, tag)| tag.strip_prefix("htools:iextags:"))
            .map(|tag| format!("{tag}:"))
            .collect();
        let instances = sections[2]
            .iter()
            .map(|&(line, text)| instance(line, text, &names, &prefixes))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut vcpu_ratio, mut spindle_ratio) = (4.0, 32.0);
        if let Some(&(line, text)) = sections[4].iter().find(|(_, text)| text.starts_with('|')) {
            let fields = Fields::new(line, text, 6, "instance policy")?;
            vcpu_ratio = fields.number(4, "vcpu ratio")?;
            spindle_ratio = fields.number(5, "spindle ratio")?;
        }
        Ok(Self { nodes, instances, vcpu_ratio, spindle_ratio })
    }

    /// Reads the utilisation file: on each line an instance's name and its load on processor, memory, disk and network.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn add_load(&mut self, text: &str) -> Result<(), ParseError> {
        let number: HashMap<String, usize> =
            self.instances.iter().enumerate().map(|(i, instance)| (instance.name.clone(), i)).collect();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let expected = "an instance and its four loads";
            let [name, loads @ ..] = words.as_slice() else { return Err(wrong(i + 1, line, expected)) };
            let Some(&instance) = number.get(*name) else {
                return Err(wrong(i + 1, format!("instance {name:?}"), "an instance of the cluster"));
            };
            if loads.len() != 4 {
                return Err(wrong(i + 1, format!("{} loads", loads.len()), expected));
            }
            for (k, load) in loads.iter().enumerate() {
                match load.parse::<f64>() {
                    Ok(load) if (0.0..=1e9).contains(&load) => self.instances[instance].load[k] = load,
                    _ => return Err(wrong(i + 1, format!("{load:?}"), "a number, 0 or more")),
                }
            }
        }
        Ok(())
    }
}

fn node(line: usize, text: &str) -> Result<Node, ParseError> {
    let f = Fields::new(line, text, 9, "node")?;
    let positive = |i: usize, what: &str| {
        let number = f.number(i, what)?;
        if number > 0.0 {
            Ok(number)
        } else {
            Err(wrong(line, format!("{:?}", f.text(i)), format!("{what}: a number above 0")))
        }
    };
    Ok(Node {
        name: f.text(0).to_owned(),
        memory_mib: positive(1, "memory")?,
        own_mib: f.number(2, "the node's own memory")?,
        free_mib: f.number(3, "free memory")?,
        disk_mib: f.number(4, "disk")?,
        disk_free_mib: f.number(5, "free disk")?,
        cpus: positive(6, "processors")?,
        spindles: f.number_or(9, "spindles", 1.0)?,
        own_cpus: f.number_or(13, "the node's own processors", 1.0)?,
        speed: if f.text(14).is_empty() { 1.0 } else { positive(14, "speed")? },
        group: f.text(8).to_owned(),
        drained: f.text(7) == "D",
        offline: matches!(f.text(7), "O" | "Y"),
    })
}

fn instance(
    line: usize,
    text: &str,
    nodes: &HashMap<&str, usize>,
    prefixes: &[String],
) -> Result<Instance, ParseError> {
    let f = Fields::new(line, text, 10, "instance")?;
    let Some(&node) = nodes.get(f.text(6)) else {
        return Err(wrong(line, format!("node {:?} (field 7)", f.text(6)), "a node of the cluster"));
    };
    let shared = matches!(f.text(8), "ext" | "rbd" | "gluster" | "sharedfile" | "diskless");
    let local = matches!(f.text(8), "plain" | "drbd");
    let spindles = f.number_or(10, "spindle use", 1.0)?;
    Ok(Instance {
        name: f.text(0).to_owned(),
        memory_mib: f.number(1, "memory")? as u64,
        vcpus: f.number(3, "virtual processors")?,
        node,
        spindles: if local { spindles } else { 0.0 },
        movable: shared && f.text(4) == "running" && f.text(5) == "Y",
        exclusion: f
            .text(9)
            .split(',')
            .filter(|tag| prefixes.iter().any(|p| tag.starts_with(p)))
            .map(str::to_owned)
            .collect(),
        load: [1.0; 4],
    })
}
