//! What benchmarks share whose work is done by a script in the guest: the script is PID 1 of a clone and of its peer,
//! and says on the console what it measured, `measured: CASE FIGURE`, and at last `measured: done`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bare::{appears, problem};
use super::mode::Mode;
use super::{Spread, round};
use crate::Error;

/// Where the script lies in clones and peers.
pub(super) const SCRIPT_PATH: &str = "usr/local/sbin/measured";
const SET: &str = "measured";
const SET_HELP: &str = "help: A program that measures the guest it runs in.\nfiles:\n";

/// A file for clones and peers alike.
pub(super) struct GuestFile {
    /// From the root, without a leading `/`.
    pub path: &'static str,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Writes a herd with a set `measured` of these files.
pub(super) fn write_herd(herd: &Path, herd_file: &str, files: &[GuestFile]) -> Result<(), Error> {
    let set = herd.join("sets").join(SET);
    write_files(&set, files)?;
    let mut description = SET_HELP.to_owned();
    for file in files {
        description.push_str(&format!(
            "  {}: {{mode: \"{:04o}\"}}\n",
            file.path, file.mode
        ));
    }
    for (path, text) in [
        (set.join("set.yaml"), description.as_str()),
        (herd.join("herd.yaml"), herd_file),
    ] {
        std::fs::write(path, text).map_err(Error::system(format!("writing {}", herd.display())))?;
    }
    Ok(())
}

/// Writes these files below `directory`.
pub(super) fn write_files(directory: &Path, files: &[GuestFile]) -> Result<(), Error> {
    let doing = || Error::system(format!("writing {}", directory.display()));
    for file in files {
        let path = directory.join(file.path);
        std::fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(doing())?;
        std::fs::write(&path, &file.content).map_err(doing())?;
    }
    Ok(())
}

/// One figure of each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub name: &'static str,
    pub unit: &'static str,
    /// Less is better.
    pub is_time: bool,
}

impl Case {
    pub const fn time(name: &'static str) -> Self {
        Self {
            name,
            unit: "ms",
            is_time: true,
        }
    }

    pub const fn rate(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            is_time: false,
        }
    }
}

/// What was measured in each run, by case; and of how much, as the guest said, `sized: CASE SO MUCH`.
#[derive(Default, Clone)]
pub(super) struct Measured {
    pub figures: BTreeMap<String, Vec<f64>>,
    pub sizes: BTreeMap<String, String>,
}

impl Measured {
    /// Waits until the guest is done, and takes its figures.
    pub async fn take(
        &mut self,
        console: &Path,
        cases: &[Case],
        limit: Duration,
    ) -> Result<(), Error> {
        let waited = tokio::time::timeout(limit, async {
            // One call waits two minutes.
            while appears(console, "measured: done").await.is_err() {}
        });
        let waited = waited.await;
        let text = std::fs::read(console).map_err(Error::system("reading a console"))?;
        let text = String::from_utf8_lossy(&text);
        if waited.is_err() {
            let end: Vec<&str> = text.lines().rev().take(20).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            return Err(problem(&format!(
                "the guest was not done within {} s; its console ends:\n{}",
                limit.as_secs(),
                end.join("\n")
            )));
        }
        let figures = figures(&text);
        for case in cases {
            let figure = figures.get(case.name).copied();
            let figure = figure.filter(|figure| *figure > 0.0).ok_or_else(|| {
                let said: Vec<&str> = text.lines().collect();
                problem(&format!(
                    "the guest said nothing of {}; its console:\n{}",
                    case.name,
                    said.join("\n")
                ))
            })?;
            self.add(case, figure);
        }
        let size = |line: &str| {
            let (case, size) = line.trim().strip_prefix("sized: ")?.split_once(' ')?;
            Some((case.to_owned(), size.to_owned()))
        };
        self.sizes.extend(text.lines().filter_map(size));
        Ok(())
    }

    pub fn add(&mut self, case: &Case, figure: f64) {
        self.figures
            .entry(case.name.to_owned())
            .or_default()
            .push(figure);
    }

    /// The last run, in words.
    pub fn last(&self, cases: &[Case]) -> String {
        let shown = |case: &Case| {
            let figure = self.figures.get(case.name).and_then(|all| all.last())?;
            Some(format!("{} {figure:.0} {}", case.name, case.unit))
        };
        cases
            .iter()
            .filter_map(shown)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn spread(&self, case: &Case) -> Spread {
        Spread::of(self.figures.get(case.name).map_or(&[][..], Vec::as_slice))
    }
}

fn figures(console: &str) -> BTreeMap<String, f64> {
    let figure = |line: &str| {
        let (case, figure) = line.trim().strip_prefix("measured: ")?.split_once(' ')?;
        Some((case.to_owned(), figure.parse().ok()?))
    };
    console.lines().filter_map(figure).collect()
}

/// Ours ÷ peer, each case in throughput, and the worst of them, from which `ours`, `peer` and `ratio` are.
pub(super) fn worst_of(cases: &[Case], ours: &Measured, peer: &Measured) -> Map<String, Value> {
    let mut each = Map::new();
    let mut worst: Option<(f64, &Case)> = None;
    for case in cases {
        let ratio = ratio(case, ours, peer);
        each.insert(
            case.name.to_owned(),
            json!({
                "ours": ours.spread(case),
                "peer": peer.spread(case),
                "unit": case.unit,
                "ratio": round(ratio),
            }),
        );
        if worst.is_none_or(|(before, _)| ratio < before) {
            worst = Some((ratio, case));
        }
    }
    let mut line = Map::new();
    if let Some((ratio, case)) = worst {
        line.insert("ours".to_owned(), json!(ours.spread(case).median));
        line.insert("peer".to_owned(), json!(peer.spread(case).median));
        line.insert("ratio".to_owned(), json!(round(ratio)));
        line.insert("worst".to_owned(), json!(case.name));
    }
    line.insert("cases".to_owned(), Value::Object(each));
    line
}

/// The line of a benchmark from that of each mode: of several, the worst of ours stands for all, and each beside it.
pub(super) fn of_modes(name: &str, lines: Vec<(Mode, Map<String, Value>)>) -> Map<String, Value> {
    let ratio = |line: &Map<String, Value>| line["ratio"].as_f64().unwrap_or(0.0);
    let ours = lines.iter().filter(|(mode, _)| mode.is_ours());
    let worst = ours.min_by(|(_, one), (_, other)| ratio(one).total_cmp(&ratio(other)));
    let mut line = match worst.or(lines.first()) {
        Some((mode, line)) => {
            let mut line = line.clone();
            line.insert("mode".to_owned(), json!(mode.words()));
            line
        }
        None => Map::new(),
    };
    line.insert("name".to_owned(), json!(name));
    if lines.len() > 1 {
        let each = lines
            .into_iter()
            .map(|(mode, line)| (mode.name().to_owned(), Value::Object(line)));
        line.insert("modes".to_owned(), Value::Object(each.collect()));
    }
    line
}

/// In throughput, of the medians.
pub(super) fn ratio(case: &Case, ours: &Measured, peer: &Measured) -> f64 {
    let (our, their) = (ours.spread(case).median, peer.spread(case).median);
    if case.is_time {
        their / our
    } else {
        our / their
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: [Case; 2] = [Case::time("find"), Case::rate("dbench", "MB/s")];

    #[test]
    fn the_worst_case_is_the_ratio_and_times_are_turned_round() {
        let of = |find: f64, dbench: f64| {
            let mut measured = Measured::default();
            measured.add(&CASES[0], find);
            measured.add(&CASES[1], dbench);
            measured
        };
        let line = worst_of(&CASES, &of(200.0, 90.0), &of(100.0, 100.0));
        assert_eq!(line["ratio"], 0.5);
        assert_eq!(line["worst"], "find");
        assert_eq!(line["ours"], 200.0);
        assert_eq!(line["cases"]["dbench"]["ratio"], 0.9);
    }

    #[test]
    fn of_several_modes_the_worst_of_ours_stands_for_all() {
        let of = |ratio: f64| Map::from_iter([("ratio".to_owned(), json!(ratio))]);
        let lines = vec![
            (Mode::Stateless, of(0.9)),
            (Mode::Live, of(0.7)),
            (Mode::Ganesha, of(0.5)),
        ];
        let line = of_modes("rootfs", lines);
        assert_eq!(
            (&line["ratio"], &line["name"]),
            (&json!(0.7), &json!("rootfs"))
        );
        assert_eq!(line["mode"], "stateless, live");
        assert_eq!(line["modes"]["ganesha"]["ratio"], 0.5);
        let line = of_modes("rootfs", vec![(Mode::Stateful, of(0.8))]);
        assert_eq!(line["mode"], "stateful, sealed");
        assert!(!line.contains_key("modes"));
    }

    #[test]
    fn figures_are_read_among_other_lines() {
        let found = figures(
            "[ 1.0] x\r\nmeasured: find 812\r\nmeasured: dbench 61.5\r\nmeasured: done\r\n",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found["dbench"], 61.5);
    }
}
